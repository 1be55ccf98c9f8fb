"""Tensors as the native modules take them: addresses and sizes."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyneuro.ops.native import native
from pyneuro.ops.packing import pack_weight


def packed_or_pack(weight: Tensor, packed: Tensor | None) -> Tensor:
    """The packed weight, made on the spot where the caller keeps none."""
    if packed is None:
        return pack_weight(weight)
    width = native().panel_width
    if packed.shape[0] * width < weight.shape[0] or packed.shape[2] != width:
        raise ValueError(
            f"packed weight {list(packed.shape)} does not belong to weight {list(weight.shape)} in panels of {width}; "
            "pack it with pyneuro.ops.pack_weight on this machine"
        )
    if packed.dtype == torch.bfloat16 and not native().bf16:
        raise ValueError("this machine's instruction set has no bf16 dot product; pack the weight in float32")
    return packed


def weight_argument(packed: Tensor, out: int, inner: int) -> Any:
    return native().module.Weight(packed.data_ptr(), out, inner, packed.dtype == torch.bfloat16)


def norm_argument(module: ModuleType, centred: Tensor, rstd: Tensor, gamma: Tensor) -> Any:
    """For one of the two native modules."""
    return module.Norm(centred.data_ptr(), rstd.data_ptr(), gamma.data_ptr())


def attention_argument(module: ModuleType, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Any:
    """For one of the two native modules."""
    tokens, hidden = q.shape
    heads = p.shape[0]
    pointers = (x.data_ptr() for x in (q, k, v, p))
    return module.Attention(*pointers, tokens, hidden, heads, 1 / math.sqrt(hidden // heads))
