"""delta_attention_low_rank: the attention block of the layer after a change of row 0 alone, rank 3H on every other
row."""

from __future__ import annotations

import torch
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
) -> Tensor:
    out = dx.new_empty(q.shape[0], *dx.shape)
    native().module.delta_attention_low_rank(
        native().isa,
        dqkv.data_ptr(),
        dx.data_ptr(),
        attention_argument(native().module, q, k, v, p),
        context_rows.data_ptr(),
        value_row.data_ptr(),
        weight_argument(kept := packed_or_pack(wao, packed_wao), *wao.shape),
        norm_argument(native().module, centred, rstd, gamma),
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
    heads, weight, (tokens, _), candidates = p.shape[0], cuda.weight_for(dx, wao, packed_wao), q.shape, len(dx)
    out = dx.new_empty(tokens, *dx.shape)
    du0 = (context_row0(dqkv, q, k, v, p, unit) @ weight.T).unsqueeze(0)
    norm_into(out[:1], du0, dx.unsqueeze(0), centred[:1], rstd[:1], gamma, unit)
    if tokens == 1 or not candidates:
        return out
    _, dk, dv = (x.view(candidates, heads, -1).transpose(0, 1) for x in dqkv.chunk(3, -1))  # [H, N, e]
    scores = q.to(dx.dtype).view(tokens, heads, -1).transpose(0, 1) @ dk.transpose(1, 2)  # [H, S, N]
    along_base = dx.new_empty(tokens, candidates, cuda.whole(2 * heads))
    along_change = dx.new_empty(candidates, tokens, cuda.whole(heads))
    cuda.launch(
        "delta_low_rank_weights",
        dx,
        scores.data_ptr(),
        attention_argument(cuda.cuda_module(), q, k, v, p),
        (rest := p[:, :, 1:].sum(-1)).data_ptr(),
        cuda.address(unit),
        along_base.data_ptr(),
        along_change.data_ptr(),
        along_base.shape[-1],
        along_change.shape[-1],
        cuda.is_half(dx),
        candidates,
    )
    del rest
    rows = torch.cat([context_rows, value_row.expand_as(context_rows)], 1).to(dx.dtype)  # [S, 2H, d]
    values = dv @ weight.view(-1, heads, dv.shape[-1]).permute(1, 2, 0)  # [H, N, d]
    du = along_base[1:, :, : 2 * heads] @ rows[1:]  # [S - 1, N, d]
    changes = along_change[..., :heads] @ values.transpose(0, 1)  # [N, S, d]
    norm_into(out[1:], du, changes.transpose(0, 1)[1:], centred[1:], rstd[1:], gamma, unit)
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
