"""Where a patch enters: delta_entry, the LayerNorm difference of a rank-two change (K, V and I); delta_entry_query, the
context of row 0 when one neuron of its query moved."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import attention_argument, norm_argument
from pyneuro.ops.delta_attention import check_attention
from pyneuro.ops.delta_layernorm import check_norm, check_unit
from pyneuro.ops.registry import expect, register


def _check(
    first: Tensor,
    a: Tensor,
    pick_a: Tensor,
    second: Tensor | None,
    b: Tensor | None,
    pick_b: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> tuple[int, ...]:
    op = "delta_entry"
    expect(op, "first", first, None, None)
    tokens, candidates = first.shape
    hidden = gamma.shape[0]
    expect(op, "a", a, None if len(a) == 1 else tokens, None, hidden)
    expect(op, "pick_a", pick_a, candidates)
    if second is not None:
        expect(op, "second", second, tokens, candidates)
        if b is None or pick_b is None:
            raise ValueError(f"{op}: second comes with b and pick_b")
        expect(op, "b", b, None, hidden)
        expect(op, "pick_b", pick_b, candidates)
    check_norm(op, tokens, hidden, centred, rstd, gamma)
    check_unit(op, candidates, unit)
    return (tokens, candidates, hidden)


def _dtype(first: Tensor, *rest: Tensor | None) -> torch.dtype:
    return first.dtype if len(rest) < 9 or rest[8] is None else torch.float16


def _kernel(
    first: Tensor,
    a: Tensor,
    pick_a: Tensor,
    second: Tensor | None,
    b: Tensor | None,
    pick_b: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
) -> Tensor:
    du = first.unsqueeze(-1) * a[:, pick_a]
    if second is not None and b is not None and pick_b is not None:
        du.addcmul_(second.unsqueeze(-1), b[pick_b])
    found: Tensor = torch.ops.pyneuro.delta_layernorm(du, centred, rstd, gamma)
    return found


def _cuda(
    first: Tensor,
    a: Tensor,
    pick_a: Tensor,
    second: Tensor | None,
    b: Tensor | None,
    pick_b: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    out = first.new_empty(*first.shape, gamma.shape[0], dtype=torch.float32 if unit is None else torch.float16)
    cuda.launch(
        "delta_entry",
        first,
        first.data_ptr(),
        a.data_ptr(),
        0 if len(a) == 1 else a.stride(0),
        pick_a.data_ptr(),
        cuda.address(second),
        cuda.address(b),
        cuda.address(pick_b),
        norm_argument(cuda.cuda_module(), centred, rstd, gamma),
        cuda.address(unit),
        out.data_ptr(),
        cuda.is_half(out),
        *out.shape,
    )
    return out


def _check_query(index: Tensor, change: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple[int, ...]:
    check_attention("delta_entry_query", q.shape[-1], q, k, v, p)
    expect("delta_entry_query", "index", index, None)
    expect("delta_entry_query", "change", change, len(index))
    return (len(index), q.shape[1])


def _cuda_query(index: Tensor, change: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
    out = change.new_empty(len(index), q.shape[1])
    cuda.launch(
        "delta_entry_query",
        change,
        index.data_ptr(),
        change.data_ptr(),
        attention_argument(cuda.cuda_module(), q, k, v, p),
        out.data_ptr(),
        len(index),
    )
    return out


register(
    "delta_entry(Tensor first, Tensor a, Tensor pick_a, Tensor? second, Tensor? b, Tensor? pick_b, Tensor centred, "
    "Tensor rstd, Tensor gamma, Tensor? unit=None) -> Tensor",
    reference=reference.delta_entry,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
    dtype=_dtype,
)
register(
    "delta_entry_query(Tensor index, Tensor change, Tensor q, Tensor k, Tensor v, Tensor p) -> Tensor",
    reference=reference.delta_entry_query,
    kernel=reference.delta_entry_query,
    cuda=_cuda_query,
    check=_check_query,
    dtype=lambda index, change, *rest: change.dtype,
)
