"""How much work and how much memory a sweep takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pyneuro.engine.backend import Backend
from pyneuro.errors import InputError, is_number
from pyneuro.sites import ModelShape

MIB = 1 << 20
# Without a budget, the largest array of a chunk, [S, N, 3d], stays near the size of a last-level cache.
CHUNK_BYTES = 12 * MIB
MOST_CANDIDATES = 1024
# On a device a chunk fills every multiprocessor with whole tiles of the products many times over.
DEVICE_CHUNK_ROWS = 1 << 17
DEVICE_MOST_CANDIDATES = 1 << 14
BASE_RUNS_ON_DEVICE = 4  # two whose layers wait to be counted (where samples have a layer each), this one, and the next
# Of the memory that is free, what a sweep may take; the matrix library's workspaces come out of the rest.
DEVICE_SHARE = 0.8


@dataclass(frozen=True)
class Memory:
    """Memory of a sweep's arrays (base run and differences), beside the model and its packed weights.

    Parameters
    ----------
    budget : int, optional
        Bytes. None takes what full speed needs.
    """

    budget: int | None = None

    @classmethod
    def of(cls, backend: Backend, budget: int | None = None) -> Memory:
        """The budget; without one what full speed needs, on a device no more than most of what is free now."""
        if budget is None and backend.device.type == "cuda":
            budget = int(DEVICE_SHARE * free_device_bytes(backend.device))
        return cls(budget)

    def __post_init__(self) -> None:
        if self.budget is None:
            return
        if not is_number(self.budget) or not 0 < self.budget < math.inf:
            raise InputError(f"memory = {self.budget!r} bytes; pass a positive number, such as 2 * 1024**3")

    def candidates(self, shape: ModelShape, tokens: int, rows: int, backend: Backend) -> int:
        """Candidates to carry at once so that the budget holds; a multiple of the kernels' tile where that many fit.

        Parameters
        ----------
        tokens : int
            S of the sample.
        rows : int
            Rows that change: S, or 1.

        Raises
        ------
        InputError
            If not even one candidate fits.
        """
        tile = backend.tile_rows
        if backend.name == "cuda":
            wanted = min(DEVICE_CHUNK_ROWS // rows, DEVICE_MOST_CANDIDATES)
        else:
            wanted = min(CHUNK_BYTES // (rows * 3 * shape.hidden * backend.dtype.itemsize), MOST_CANDIDATES)
        wanted = max(wanted // tile * tile, 2 * tile)
        if self.budget is None:
            return wanted
        held = BASE_RUNS_ON_DEVICE if backend.name == "cuda" else 1
        base = held * base_run_bytes(shape, tokens, backend)
        left = self.budget - base
        fits = int(left // candidate_bytes(shape, rows, backend))
        if fits < 1:
            needed = base + candidate_bytes(shape, rows, backend)
            raise InputError(
                f"memory budget of {self.budget / MIB:.4g} MiB is too small for a sample of {tokens} tokens; "
                f"it takes at least {math.ceil(1000 * needed / MIB) / 1000} MiB"
            )
        fits = min(fits, wanted)
        return max(fits // tile * tile, min(fits, tile))


def base_run_bytes(shape: ModelShape, tokens: int, backend: Backend) -> int:
    """Bytes of a base run: all layers kept, one layer in float64 while it is made."""
    d, f, h, s = shape.hidden, shape.intermediate, shape.heads, tokens
    layer = 5 * s * d + h * s * s + (s + 1) * h * d + 5 * s * f
    making = 8 * (4 * d * d + 2 * d * f + 8 * s * d + h * s * s + 2 * s * h * d + 8 * s * f)
    return shape.layers * layer * backend.dtype.itemsize + making


def candidate_bytes(shape: ModelShape, rows: int, backend: Backend) -> int:
    """Bytes one candidate adds: its input, q k v, context and output differences at every row; with the reference, the
    intermediate and the scores too."""
    d, f, h = shape.hidden, shape.intermediate, shape.heads
    itemsize = 2 if backend.in_units and backend.name == "cuda" else backend.dtype.itemsize
    match backend.name:
        case "cpu":
            per_row = 7 * d
        case "cuda":
            per_row = 7 * d + f
        case _:
            per_row = 8 * d + 6 * f + 4 * h * rows + 3 * h * d
    return (rows * per_row + 3 * h * d) * itemsize


def free_device_bytes(device: torch.device) -> int:
    """Memory a sweep can have: what the device has free and what torch keeps of it unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def layer_flops(shape: ModelShape, tokens: int) -> float:
    """Floating-point operations of one full layer on one sample: 12 d² + 2 S d multiply-adds a token at f = 4 d."""
    d, f, s = shape.hidden, shape.intermediate, tokens
    return 2.0 * s * (4 * d * d + 2 * d * f + 2 * s * d)


def forward_flops(shape: ModelShape, tokens: int) -> float:
    """Of a full forward, embeddings and head left out."""
    return shape.layers * layer_flops(shape, tokens)


def patch_flops(shape: ModelShape, tokens: int, layer: int, module: str) -> float:
    """Operations of one exact patched run as the engine does it: entry, low-rank layer, dense layers, last layer.

    The attention of a dense layer costs twice a plain forward's, since both factors of each product change.
    """
    d, f, h, s, last = shape.hidden, shape.intermediate, shape.heads, tokens, shape.layers - 1
    feed_forward = 4.0 * d * f  # a row
    dense = s * (8.0 * d * d + feed_forward + 8.0 * s * d)
    row0_dense = 4.0 * h * d * s + 8.0 * d * d + feed_forward  # last layer, every row changed
    row0 = 8.0 * d * d + 4.0 * s * d + feed_forward  # one row through attention, output and feed-forward
    if module in ("K", "V"):
        if layer == last:
            return feed_forward
        entered = s * (4.0 * d + feed_forward)
        return entered + max(last - layer - 1, 0) * dense + row0_dense
    entered = {"Q": 2.0 * d * d + feed_forward, "AO": feed_forward}.get(module, 0.0)
    if layer == last:
        return entered
    if layer == last - 1:
        return entered + row0
    low_rank = s * (6.0 * h * d + feed_forward) + 8.0 * d * d + 4.0 * s * d
    return entered + low_rank + max(last - layer - 2, 0) * dense + row0_dense
