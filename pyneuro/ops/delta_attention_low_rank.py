"""delta_attention_low_rank: the attention block of the layer after a change of row 0 alone, rank 3H on every other
row."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import attention_argument, norm_argument, packed_or_pack, weight_argument
from pyneuro.ops.delta_attention import check_attention
from pyneuro.ops.delta_attention_row0 import context_row0
from pyneuro.ops.delta_layernorm import check_norm, check_unit, norm_into
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
    unit: Tensor | None = None,
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
    check_unit(op, candidates, unit)
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
    unit: Tensor | None = None,
) -> Tensor:
    if unit is not None:
        norm = (centred, rstd, gamma)
        return reference.delta_attention_low_rank(
            dqkv, dx, q, k, v, p, context_rows, value_row, wao, packed_wao, *norm, unit
        )
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


def _cuda(
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
    unit: Tensor | None = None,
) -> Tensor:
    heads, weight = p.shape[0], cuda.weight_for(dx, wao, packed_wao)
    out = dx.new_empty(q.shape[0], *dx.shape)
    du0 = (context_row0(dqkv, q, k, v, p, unit) @ weight.T).unsqueeze(0)
    norm_into(out[:1], du0, dx.unsqueeze(0), centred[:1], rstd[:1], gamma, unit)
    dv = dqkv.chunk(3, -1)[2].unflatten(-1, (heads, -1)).transpose(0, 1)  # [H, N, e]
    value_changes = dv @ weight.unflatten(1, (heads, -1)).permute(1, 2, 0)  # [H, N, d]
    rest = p[:, :, 1:].sum(-1)
    cuda.launch(
        "delta_attention_low_rank",
        dx,
        dqkv.data_ptr(),
        cuda.attention(q, k, v, p),
        rest.data_ptr(),
        context_rows.data_ptr(),
        value_row.data_ptr(),
        value_changes.data_ptr(),
        cuda.norm(centred, rstd, gamma),
        cuda.address(unit),
        out.data_ptr(),
        cuda.is_half(dx),
        dx.shape[0],
    )
    return out


register(
    "delta_attention_low_rank(Tensor dqkv, Tensor dx, Tensor q, Tensor k, Tensor v, Tensor p, Tensor context_rows, "
    "Tensor value_row, Tensor wao, Tensor? packed_wao, Tensor centred, Tensor rstd, Tensor gamma, "
    "Tensor? unit=None) -> Tensor",
    reference=reference.delta_attention_low_rank,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
)
