"""gelu_series: what GELU differences need of a base run, computed in the dtype it comes in and kept in another."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.registry import define, expect


def _reference(a: Tensor, dtype: torch.dtype) -> Tensor:
    expect("gelu_series", "a", a, None, None)
    return reference.gelu_series(a).to(dtype)


def _cuda(a: Tensor, dtype: torch.dtype) -> Tensor:
    if not cuda.cuda_built() or (a.dtype, dtype) != (torch.float64, torch.float32):
        return _reference(a, dtype)
    a, out = a.contiguous(), _fake(a, dtype)
    cuda.launch("gelu_series", a, a.data_ptr(), out.data_ptr(), *a.shape)
    return out


def _fake(a: Tensor, dtype: torch.dtype) -> Tensor:
    expect("gelu_series", "a", a, None, None)
    return a.new_empty(a.shape[0], 4, a.shape[1], dtype=dtype)


define(
    "gelu_series(Tensor a, ScalarType dtype) -> Tensor",
    cpu=_reference,
    cuda=_cuda,
    elsewhere=_reference,
    fake=_fake,
)
