"""Calls of every device kernel at BERT-base's shapes, for ``gpu_check.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyneuro.ops import cuda
from pyneuro.ops.delta_feed_forward import gelu_linear
from tests.ops.cases import arguments


def kernel_calls(s: int, n: int, dtype: torch.dtype) -> dict[str, tuple[Callable[[], object], int]]:
    """Every kernel at BERT-base's shapes and the bytes it must move: differences read and written once."""
    d, f, heads = 768, 3072, 12
    half = dtype == torch.float16
    unit = torch.full((n,), 2.0**-10, device="cuda") if half else None
    row = d * dtype.itemsize
    rest = {name: args[1:] for name, args in arguments(s, 4, d, heads, f).items()}

    def base(name: str, first: int) -> list[Any]:
        """Arguments of an operation that belong to the base run or the model."""
        return [a.float().cuda() if isinstance(a, torch.Tensor) else a for a in rest[name][first - 1 :]]

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device="cuda").to(dtype)

    op = torch.ops.pyneuro
    dx, dqkv, inner = drawn(s, n, d), drawn(s, n, 3 * d), drawn(s, n, f)
    norm, attention = base("delta_layernorm", 1), base("delta_attention", 1)
    low_rank, dense = base("delta_attention_low_rank", 2), base("delta_attention_row0_dense", 2)
    wi, _, _, _, pre_gelu, series = base("delta_feed_forward", 1)[:6]
    if half:
        low_rank[7], dense[5], dense[7] = low_rank[6].half(), dense[4].half(), dense[6].half()
    head = torch.randint(heads, (n,), device="cuda")
    first, second = (torch.randn(s, n, device="cuda") for _ in range(2))
    entry = (first, low_rank[4], head, second, low_rank[5], head, *norm)
    gelu = (inner.data_ptr(), pre_gelu.data_ptr(), series.data_ptr(), cuda.address(unit), half, s, n, f)
    query = dqkv[0, :, :d].contiguous()
    return {
        "delta_layernorm": (lambda: op.delta_layernorm(dx, *norm, unit), 2 * s * n * row),
        "delta_gelu": (lambda: cuda.launch("delta_gelu", inner, *gelu), 2 * s * n * f * dtype.itemsize),
        "product and delta_gelu": (lambda: gelu_linear(dx, wi.to(dtype), pre_gelu, series, unit), 5 * s * n * row),
        "delta_attention": (lambda: op.delta_attention(dqkv, *attention, unit), 4 * s * n * row),
        "delta_entry": (lambda: op.delta_entry(*entry, unit), s * n * row),
        "delta_attention_low_rank": (
            lambda: op.delta_attention_low_rank(dqkv[0], dx[0], *low_rank, unit),
            s * n * row,
        ),
        "delta_attention_row0": (lambda: op.delta_attention_row0(dqkv[0], *attention, unit), 4 * n * row),
        "delta_attention_row0_dense": (lambda: op.delta_attention_row0_dense(dx, query, *dense, unit), s * n * row),
    }
