"""Weights laid out for the native kernels.

A packed weight holds W [out, in] in panels of ``width`` output rows, K running before the row, so that one step along
K reads one contiguous panel row: fp32 ``[ceil(out / width), in, width]``; bf16, whose dot product takes pairs along
K, ``[ceil(out / width), ceil(in / 2), width, 2]``. Short panels are padded with zeros. The width belongs to the
instruction set: 32 for AVX-512, 16 for AVX2, 8 for the baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops.native import native


def pack_weight(weight: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pack W [out, in] for the instruction set in use.

    Parameters
    ----------
    weight : Tensor [out, in]
    dtype : torch.float32 or torch.bfloat16
        Precision of the product's operands; sums are fp32 either way.
    """
    width = native().panel_width
    out, inner = weight.shape
    rows = -(-out // width) * width
    if dtype == torch.float32:
        padded = torch.nn.functional.pad(weight.float(), (0, 0, 0, rows - out))
        return padded.view(-1, width, inner).transpose(1, 2).contiguous()
    if dtype != torch.bfloat16:
        raise TypeError(f"weights are packed in float32 or bfloat16, not {dtype}")
    padded = torch.nn.functional.pad(weight.bfloat16(), (0, inner % 2, 0, rows - out))
    return padded.view(rows // width, width, -1, 2).transpose(1, 2).contiguous()


def pack_heads(weight: Tensor, heads: int) -> Tensor:
    """Pack W [H e, in] head by head, fp32: [H ceil(e / width), in, width]."""
    return torch.cat([pack_weight(part) for part in weight.chunk(heads)])
