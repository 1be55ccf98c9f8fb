"""delta_layernorm, and delta_linear_norm: the same behind a linear layer and a residual, in one pass over the rows."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import norm_argument, packed_or_pack, weight_argument
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def check_norm(op: str, tokens: int, hidden: int, centred: Tensor, rstd: Tensor, gamma: Tensor) -> None:
    """The base run's LayerNorm tensors belong to S tokens and d columns."""
    expect(op, "centred", centred, tokens, hidden)
    expect(op, "rstd", rstd, tokens)
    expect(op, "gamma", gamma, hidden)


def check_unit(op: str, candidates: int, unit: Tensor | None) -> None:
    """The candidates' units, one each."""
    if unit is not None:
        expect(op, "unit", unit, candidates)


def _check(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor, unit: Tensor | None = None) -> tuple[int, ...]:
    expect("delta_layernorm", "du", du, None, None, None)
    check_unit("delta_layernorm", du.shape[1], unit)
    check_norm("delta_layernorm", du.shape[0], du.shape[2], centred, rstd, gamma)
    return tuple(du.shape)


def _kernel(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor) -> Tensor:
    out = du.new_empty(du.shape)
    base = norm_argument(native().module, centred, rstd, gamma)
    native().module.delta_layernorm(native().isa, du.data_ptr(), base, out.data_ptr(), *du.shape, threads())
    return out


def norm_into(
    out: Tensor,
    du: Tensor,
    residual: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None,
) -> Tensor:
    """LayerNorm difference of du + residual on a CUDA device. `out` may be du; the residual [S, N, d] has contiguous
    rows in any order."""
    strides = (0, 0) if residual is None else residual.stride()[:2]
    cuda.launch(
        "delta_layernorm",
        du,
        du.data_ptr(),
        cuda.address(residual),
        *strides,
        norm_argument(cuda.cuda_module(), centred, rstd, gamma),
        cuda.address(unit),
        out.data_ptr(),
        cuda.is_half(du),
        *du.shape,
    )
    return out


def _cuda(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor, unit: Tensor | None = None) -> Tensor:
    return norm_into(torch.empty_like(du), du, None, centred, rstd, gamma, unit)


def _check_linear(
    dx: Tensor,
    residual: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> tuple[int, ...]:
    op = "delta_linear_norm"
    expect(op, "dx", dx, None, None, None)
    tokens, candidates, inner = dx.shape
    expect(op, "weight", weight, None, inner)
    expect(op, "residual", residual, tokens, candidates, weight.shape[0])
    check_norm(op, tokens, weight.shape[0], centred, rstd, gamma)
    check_unit(op, candidates, unit)
    return tuple(residual.shape)


def _kernel_linear(
    dx: Tensor,
    residual: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
) -> Tensor:
    out = residual.new_empty(residual.shape)
    kept = packed_or_pack(weight, packed)
    w, base = weight_argument(kept, *weight.shape), norm_argument(native().module, centred, rstd, gamma)
    native().module.delta_linear_norm(
        native().isa, dx.data_ptr(), residual.data_ptr(), w, base, out.data_ptr(), dx.shape[0], dx.shape[1], threads()
    )
    return out


def _cuda_linear(
    dx: Tensor,
    residual: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    du = dx @ cuda.weight_for(dx, weight, packed).T
    return norm_into(du, du, residual, centred, rstd, gamma, unit)


register(
    "delta_layernorm(Tensor du, Tensor centred, Tensor rstd, Tensor gamma, Tensor? unit=None) -> Tensor",
    reference=reference.delta_layernorm,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
)
register(
    "delta_linear_norm(Tensor dx, Tensor residual, Tensor weight, Tensor? packed, Tensor centred, Tensor rstd, "
    "Tensor gamma, Tensor? unit=None) -> Tensor",
    reference=reference.delta_linear_norm,
    kernel=_kernel_linear,
    cuda=_cuda_linear,
    check=_check_linear,
)
