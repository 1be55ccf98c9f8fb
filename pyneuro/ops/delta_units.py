"""delta_units: differences of row 0 as they enter, into fp16 in their candidates' units."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.registry import define, expect


def _reference(true: Tensor) -> tuple[Tensor, Tensor]:
    expect("delta_units", "true", true, None, None)
    return reference.delta_units(true)


def _cuda(true: Tensor) -> tuple[Tensor, Tensor]:
    if not cuda.cuda_built() or true.dtype != torch.float32 or not true.numel():
        return _reference(true)
    true, (stored, unit) = true.contiguous(), _fake(true)
    cuda.launch("delta_units", true, true.data_ptr(), stored.data_ptr(), unit.data_ptr(), *true.shape)
    return stored, unit


def _fake(true: Tensor) -> tuple[Tensor, Tensor]:
    expect("delta_units", "true", true, None, None)
    return torch.empty_like(true, dtype=torch.float16), true.new_empty(len(true), dtype=torch.float32)


define("delta_units(Tensor true) -> (Tensor, Tensor)", cpu=_reference, cuda=_cuda, elsewhere=_reference, fake=_fake)
