"""Exact entry times adjoint, for the linear method: adjoint_query (Q), adjoint_key (K), adjoint_norm (AO, I and O)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.registry import define, expect


def _check_query(index: Tensor, change: Tensor, k: Tensor, p: Tensor, along: Tensor, strength: Tensor) -> int:
    heads = _check_site("adjoint_query", index, change, k, p)
    expect("adjoint_query", "along", along, heads, None, k.shape[0])
    expect("adjoint_query", "strength", strength, heads)
    return along.shape[1]


def _check_key(
    index: Tensor,
    change: Tensor,
    q: Tensor,
    p: Tensor,
    rest: Tensor,
    along_rest: Tensor,
    along_first: Tensor,
    strength: Tensor,
) -> int:
    op = "adjoint_key"
    heads, tokens = _check_site(op, index, change, q, p), q.shape[0]
    expect(op, "rest", rest, heads, tokens)
    expect(op, "along_rest", along_rest, heads, None, tokens)
    expect(op, "along_first", along_first, *along_rest.shape)
    expect(op, "strength", strength, heads, tokens)
    return along_rest.shape[1]


def _check_norm(index: Tensor, change: Tensor, products: Tensor, squares: Tensor, facts: Tensor, hidden: int) -> int:
    op = "adjoint_norm"
    _check_candidates(op, index, change)
    expect(op, "products", products, None, None)
    expect(op, "squares", squares, products.shape[1])
    expect(op, "facts", facts, products.shape[0] + 1)
    for what, tensor in (("products", products), ("squares", squares), ("facts", facts)):
        _require_float64(op, what, tensor)
    return products.shape[0] - 1


def _check_site(op: str, index: Tensor, change: Tensor, other: Tensor, p: Tensor) -> int:
    """The other side of the scores [S, d] and the attention [H, S, S] belong together; returns H."""
    _check_candidates(op, index, change)
    expect(op, "the other side of the scores", other, None, None)
    expect(op, "p", p, None, other.shape[0], other.shape[0])
    if other.shape[1] % p.shape[0]:
        raise ValueError(f"{op}: {other.shape[1]} columns do not divide into {p.shape[0]} heads")
    return p.shape[0]


def _check_candidates(op: str, index: Tensor, change: Tensor) -> None:
    expect(op, "index", index, None)
    expect(op, "change", change, len(index))
    _require_float64(op, "change", change)


def _require_float64(op: str, what: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float64:
        raise ValueError(f"{op}: {what} must be float64, got {tensor.dtype}")


def _launch(name: str, out: Tensor, tensors: Sequence[Tensor], *sizes: int) -> None:
    held = [x.contiguous() for x in tensors]
    cuda.launch(name, out, *(x.data_ptr() for x in held), out.data_ptr(), len(out), out.shape[1] - 1, *sizes)


def _cuda_scores(name: str, out: Tensor, *tensors: Tensor) -> None:
    other, p = tensors[2:4]
    _launch(name, out, tensors, *other.shape, p.shape[0])


def _cuda_norm(
    out: Tensor, index: Tensor, change: Tensor, products: Tensor, squares: Tensor, facts: Tensor, hidden: int
) -> None:
    _launch("adjoint_norm", out, (index, change, products, squares, facts), products.shape[1], hidden)


def _register(
    schema: str,
    check: Callable[..., int],
    definition: Callable[..., Tensor],
    kernel: Callable[..., None],
    working: torch.dtype,
) -> None:
    """`check` returns G; `kernel` takes the output and the arguments, with base values in the dtype `working`."""

    def elsewhere(*args: Any) -> Tensor:
        check(*args)
        return definition(*args)

    def fake(index: Tensor, change: Tensor, *base: Any) -> Tensor:
        return change.new_empty(len(index), check(index, change, *base) + 1)

    def on_cuda(index: Tensor, change: Tensor, *base: Any) -> Tensor:
        if not cuda.cuda_built() or base[0].dtype != working:
            return elsewhere(index, change, *base)
        out = fake(index, change, *base)
        kernel(out, index, change, *base)
        return out

    define(schema, cpu=elsewhere, cuda=on_cuda, elsewhere=elsewhere, fake=fake)


_register(
    "adjoint_query(Tensor index, Tensor change, Tensor k, Tensor p, Tensor along, Tensor strength) -> Tensor",
    _check_query,
    reference.adjoint_query,
    partial(_cuda_scores, "adjoint_query"),
    torch.float32,
)
_register(
    "adjoint_key(Tensor index, Tensor change, Tensor q, Tensor p, Tensor rest, Tensor along_rest, Tensor along_first, "
    "Tensor strength) -> Tensor",
    _check_key,
    reference.adjoint_key,
    partial(_cuda_scores, "adjoint_key"),
    torch.float32,
)
_register(
    "adjoint_norm(Tensor index, Tensor change, Tensor products, Tensor squares, Tensor facts, int hidden) -> Tensor",
    _check_norm,
    reference.adjoint_norm,
    _cuda_norm,
    torch.float64,
)
