"""Attention read at row 0 alone: delta_attention_row0 (row 0 of the input changed), delta_attention_row0_dense (every
row changed)."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import reference
from pyneuro.ops.arguments import attention_argument, weight_argument
from pyneuro.ops.delta_attention import check_attention
from pyneuro.ops.native import native, threads
from pyneuro.ops.packing import pack_heads, pack_weight
from pyneuro.ops.registry import expect, register


def _check(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple[int, ...]:
    check_attention("delta_attention_row0", q.shape[-1], q, k, v, p)
    expect("delta_attention_row0", "dqkv", dqkv, None, 3 * q.shape[1])
    return (dqkv.shape[0], q.shape[1])


def _kernel(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
    out = dqkv.new_empty(dqkv.shape[0], q.shape[1])
    base = attention_argument(q, k, v, p)
    native().module.delta_attention_row0(native().isa, dqkv.data_ptr(), base, out.data_ptr(), dqkv.shape[0], threads())
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
) -> tuple[int, ...]:
    op = "delta_attention_row0_dense"
    hidden = q.shape[-1]
    tokens = check_attention(op, hidden, q, k, v, p)
    expect(op, "dx", dx, tokens, None, hidden)
    expect(op, "dq0", dq0, dx.shape[1], hidden)
    expect(op, "wk", wk, hidden, hidden)
    expect(op, "wv", wv, hidden, hidden)
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
        attention_argument(q, k, v, p),
        weight_argument(keys, hidden, hidden),
        weight_argument(values, hidden, hidden),
        out.data_ptr(),
        dq0.shape[0],
        threads(),
    )
    return out


register(
    "delta_attention_row0(Tensor dqkv, Tensor q, Tensor k, Tensor v, Tensor p) -> Tensor",
    reference=reference.delta_attention_row0,
    kernel=_kernel,
    check=_check,
)
register(
    "delta_attention_row0_dense(Tensor dx, Tensor dq0, Tensor q, Tensor k, Tensor v, Tensor p, Tensor wk, "
    "Tensor? packed_key_transposed, Tensor wv, Tensor? packed_value_heads) -> Tensor",
    reference=reference.delta_attention_row0_dense,
    kernel=_kernel_dense,
    check=_check_dense,
)
