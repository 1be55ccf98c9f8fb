"""delta_attention_low_rank: the attention block of the layer after a change of row 0 alone, rank 3H on every other
row."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import reference
from pyneuro.ops.arguments import attention_argument, norm_argument, packed_or_pack, weight_argument
from pyneuro.ops.delta_attention import check_attention
from pyneuro.ops.delta_layernorm import check_norm
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def _check(
    dqkv: Tensor,
    dx: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    context_rows: Tensor,
    value_row: Tensor,
    wao: Tensor,
    packed_wao: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
) -> tuple[int, ...]:
    op = "delta_attention_low_rank"
    expect(op, "dx", dx, None, None)
    candidates, hidden = dx.shape
    tokens = check_attention(op, hidden, q, k, v, p)
    expect(op, "dqkv", dqkv, candidates, 3 * hidden)
    expect(op, "context_rows", context_rows, tokens, p.shape[0], hidden)
    expect(op, "value_row", value_row, p.shape[0], hidden)
    expect(op, "wao", wao, hidden, hidden)
    check_norm(op, tokens, hidden, centred, rstd, gamma)
    return (tokens, candidates, hidden)


def _kernel(
    dqkv: Tensor,
    dx: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    context_rows: Tensor,
    value_row: Tensor,
    wao: Tensor,
    packed_wao: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
) -> Tensor:
    out = dx.new_empty(q.shape[0], *dx.shape)
    native().module.delta_attention_low_rank(
        native().isa,
        dqkv.data_ptr(),
        dx.data_ptr(),
        attention_argument(q, k, v, p),
        context_rows.data_ptr(),
        value_row.data_ptr(),
        weight_argument(kept := packed_or_pack(wao, packed_wao), *wao.shape),
        norm_argument(centred, rstd, gamma),
        out.data_ptr(),
        dx.shape[0],
        threads(),
    )
    del kept
    return out


register(
    "delta_attention_low_rank(Tensor dqkv, Tensor dx, Tensor q, Tensor k, Tensor v, Tensor p, Tensor context_rows, "
    "Tensor value_row, Tensor wao, Tensor? packed_wao, Tensor centred, Tensor rstd, Tensor gamma) -> Tensor",
    reference=reference.delta_attention_low_rank,
    kernel=_kernel,
    check=_check,
)
