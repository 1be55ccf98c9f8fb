"""delta_layernorm, and delta_linear_norm: the same behind a linear layer and a residual, in one pass over the rows."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import reference
from pyneuro.ops.arguments import norm_argument, packed_or_pack, weight_argument
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def check_norm(op: str, tokens: int, hidden: int, centred: Tensor, rstd: Tensor, gamma: Tensor) -> None:
    """The base run's LayerNorm tensors belong to S tokens and d columns."""
    expect(op, "centred", centred, tokens, hidden)
    expect(op, "rstd", rstd, tokens)
    expect(op, "gamma", gamma, hidden)


def _check(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor) -> tuple[int, ...]:
    expect("delta_layernorm", "du", du, None, None, None)
    check_norm("delta_layernorm", du.shape[0], du.shape[2], centred, rstd, gamma)
    return tuple(du.shape)


def _kernel(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor) -> Tensor:
    out = du.new_empty(du.shape)
    base = norm_argument(centred, rstd, gamma)
    native().module.delta_layernorm(native().isa, du.data_ptr(), base, out.data_ptr(), *du.shape, threads())
    return out


def _check_linear(
    dx: Tensor, residual: Tensor, weight: Tensor, packed: Tensor | None, centred: Tensor, rstd: Tensor, gamma: Tensor
) -> tuple[int, ...]:
    op = "delta_linear_norm"
    expect(op, "dx", dx, None, None, None)
    tokens, candidates, inner = dx.shape
    expect(op, "weight", weight, None, inner)
    expect(op, "residual", residual, tokens, candidates, weight.shape[0])
    check_norm(op, tokens, weight.shape[0], centred, rstd, gamma)
    return tuple(residual.shape)


def _kernel_linear(
    dx: Tensor, residual: Tensor, weight: Tensor, packed: Tensor | None, centred: Tensor, rstd: Tensor, gamma: Tensor
) -> Tensor:
    out = residual.new_empty(residual.shape)
    kept = packed_or_pack(weight, packed)
    w, base = weight_argument(kept, *weight.shape), norm_argument(centred, rstd, gamma)
    native().module.delta_linear_norm(
        native().isa, dx.data_ptr(), residual.data_ptr(), w, base, out.data_ptr(), dx.shape[0], dx.shape[1], threads()
    )
    return out


register(
    "delta_layernorm(Tensor du, Tensor centred, Tensor rstd, Tensor gamma) -> Tensor",
    reference=reference.delta_layernorm,
    kernel=_kernel,
    check=_check,
)
register(
    "delta_linear_norm(Tensor dx, Tensor residual, Tensor weight, Tensor? packed, Tensor centred, Tensor rstd, "
    "Tensor gamma) -> Tensor",
    reference=reference.delta_linear_norm,
    kernel=_kernel_linear,
    check=_check_linear,
)
