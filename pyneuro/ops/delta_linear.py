"""delta_linear: dx Wᵀ. A linear layer is exact on differences, W x' + b = (W x + b) + W dx."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import packed_or_pack, weight_argument
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def _check(dx: Tensor, weight: Tensor, packed: Tensor | None = None) -> tuple[int, ...]:
    expect("delta_linear", "weight", weight, None, dx.shape[-1])
    return (*dx.shape[:-1], weight.shape[0])


def _kernel(dx: Tensor, weight: Tensor, packed: Tensor | None = None) -> Tensor:
    out = dx.new_empty(*dx.shape[:-1], weight.shape[0])
    kept = packed_or_pack(weight, packed)
    rows = dx.numel() // max(dx.shape[-1], 1)
    w = weight_argument(kept, *weight.shape)
    native().module.delta_linear(native().isa, dx.data_ptr(), w, out.data_ptr(), rows, threads())
    return out


def _cuda(dx: Tensor, weight: Tensor, packed: Tensor | None = None) -> Tensor:
    return dx @ cuda.weight_for(dx, weight, packed).T


register(
    "delta_linear(Tensor dx, Tensor weight, Tensor? packed=None) -> Tensor",
    reference=reference.delta_linear,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
)
