"""Attention read at row 0 alone: delta_attention_row0 (row 0 of the input changed), delta_attention_row0_dense (every
row changed)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import attention_argument, weight_argument
from pyneuro.ops.delta_attention import check_attention
from pyneuro.ops.delta_layernorm import check_unit
from pyneuro.ops.native import native, threads
from pyneuro.ops.packing import pack_heads, pack_weight
from pyneuro.ops.registry import expect, register


def _check(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None) -> tuple[int, ...]:
    check_attention("delta_attention_row0", q.shape[-1], q, k, v, p)
    expect("delta_attention_row0", "dqkv", dqkv, None, 3 * q.shape[1])
    check_unit("delta_attention_row0", dqkv.shape[0], unit)
    return (dqkv.shape[0], q.shape[1])


def _kernel(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
    out = dqkv.new_empty(dqkv.shape[0], q.shape[1])
    base = attention_argument(native().module, q, k, v, p)
    native().module.delta_attention_row0(native().isa, dqkv.data_ptr(), base, out.data_ptr(), dqkv.shape[0], threads())
    return out


def context_row0(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None) -> Tensor:
    """On a CUDA device."""
    out = dqkv.new_empty(dqkv.shape[0], q.shape[1])
    cuda.launch(
        "delta_attention_row0",
        dqkv,
        dqkv.data_ptr(),
        attention_argument(cuda.cuda_module(), q, k, v, p),
        cuda.address(unit),
        out.data_ptr(),
        cuda.is_half(dqkv),
        dqkv.shape[0],
    )
    return out


def _check_dense(
    dx: Tensor,
    dq0: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    wk: Tensor,
    packed_key_transposed: Tensor | None,
    wv: Tensor,
    packed_value_heads: Tensor | None,
    unit: Tensor | None = None,
) -> tuple[int, ...]:
    op = "delta_attention_row0_dense"
    hidden = q.shape[-1]
    tokens = check_attention(op, hidden, q, k, v, p)
    expect(op, "dx", dx, tokens, None, hidden)
    expect(op, "dq0", dq0, dx.shape[1], hidden)
    expect(op, "wk", wk, hidden, hidden)
    expect(op, "wv", wv, hidden, hidden)
    check_unit(op, dx.shape[1], unit)
    return tuple(dq0.shape)


def _kernel_dense(
    dx: Tensor,
    dq0: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    wk: Tensor,
    packed_key_transposed: Tensor | None,
    wv: Tensor,
    packed_value_heads: Tensor | None,
) -> Tensor:
    out = dq0.new_empty(dq0.shape)
    hidden, heads = q.shape[1], p.shape[0]
    keys = pack_weight(wk.T) if packed_key_transposed is None else packed_key_transposed
    values = pack_heads(wv, heads) if packed_value_heads is None else packed_value_heads
    native().module.delta_attention_row0_dense(
        native().isa,
        dx.data_ptr(),
        dq0.data_ptr(),
        attention_argument(native().module, q, k, v, p),
        weight_argument(keys, hidden, hidden),
        weight_argument(values, hidden, hidden),
        out.data_ptr(),
        dq0.shape[0],
        threads(),
    )
    return out


def _cuda_dense(
    dx: Tensor,
    dq0: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    wk: Tensor,
    packed_key_transposed: Tensor | None,
    wv: Tensor,
    packed_value_heads: Tensor | None,
    unit: Tensor | None = None,
) -> Tensor:
    heads = p.shape[0]

    def by_head(x: Tensor) -> Tensor:  # [., H e] -> [H, ., e]
        return x.view(len(x), heads, -1).transpose(0, 1)

    tokens, candidates = dx.shape[:2]
    query = dq0 if unit is None else dq0.float() * unit[:, None]
    keys = cuda.weight_for(dx, wk, packed_key_transposed).view(heads, -1, dx.shape[-1])  # [H, e, d]
    values = cuda.weight_for(dx, wv, packed_value_heads).view(heads, -1, dx.shape[-1])
    key_rows = by_head((q[0] + query).to(dx.dtype)) @ keys  # [H, N, d]
    scores = dx.new_empty(candidates, heads, cuda.whole(tokens))
    torch.bmm(key_rows.transpose(0, 1), dx.permute(1, 2, 0), out=scores[..., :tokens])
    changes = by_head(dq0) @ by_head(k.to(dx.dtype)).transpose(1, 2)  # [H, N, S]
    cuda.launch(
        "delta_softmax_row0",
        dx,
        scores.data_ptr(),
        changes.data_ptr(),
        scores.shape[-1],
        attention_argument(cuda.cuda_module(), q, k, v, p),
        cuda.address(unit),
        cuda.is_half(dx),
        candidates,
    )
    pooled = scores[..., :tokens] @ dx.transpose(0, 1)  # [N, H, d]: sum of p'_t dx[t]
    context = torch.baddbmm(
        pooled.transpose(0, 1) @ values.transpose(1, 2), changes, by_head(v.to(dx.dtype))
    )  # [H, N, e]
    out: Tensor = context.transpose(0, 1).flatten(1)
    return out


register(
    "delta_attention_row0(Tensor dqkv, Tensor q, Tensor k, Tensor v, Tensor p, Tensor? unit=None) -> Tensor",
    reference=reference.delta_attention_row0,
    kernel=_kernel,
    cuda=context_row0,
    check=_check,
)
register(
    "delta_attention_row0_dense(Tensor dx, Tensor dq0, Tensor q, Tensor k, Tensor v, Tensor p, Tensor wk, "
    "Tensor? packed_key_transposed, Tensor wv, Tensor? packed_value_heads, Tensor? unit=None) -> Tensor",
    reference=reference.delta_attention_row0_dense,
    kernel=_kernel_dense,
    cuda=_cuda_dense,
    check=_check_dense,
)
