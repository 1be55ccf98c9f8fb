"""Shared by the benchmarks: interleaved timing, machine facts, JSON. One thread unless a benchmark says otherwise:

OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/NAME.py
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pyneuro import data, ops
from pyneuro.data import Pairs
from pyneuro.results.environment import environment

ROOT = Path(__file__).resolve().parent
CORPORA = ROOT.parents[1] / "shared" / "data"


def interleaved(sides: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every side, one after the other in each round, after one warm-up each."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    return statistics.median(values)


def matmul_rate(shapes: list[tuple[int, int, int]], dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of torch.mm over (rows, in, out) products of these shapes, medians of seven."""
    work, seconds = 0.0, 0.0
    for rows, inner, out in shapes:
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(out, inner).to(dtype)
        times = interleaved({"mm": lambda a=a, b=b: torch.mm(a, b.T)}, 7)["mm"]
        work += 2.0 * rows * inner * out
        seconds += median(times)
    return work / seconds


def real_pairs(n: int, seed: int = 0, corpus: str = "mnli_dev_matched") -> Pairs:
    """A seeded draw of a corpus where the corpora lie beside the project, of the generator elsewhere."""
    path = CORPORA / f"{corpus}.jsonl.gz"
    pairs = data.read_pairs(path) if path.exists() else data.embedded_pairs(max(n, 2000), seed=0)
    generator = torch.Generator().manual_seed(seed)
    return pairs.subset(torch.randperm(len(pairs), generator=generator)[:n].tolist())


def once(folder: str, name: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A run's result, kept in folder/name.json: a finished run is not repeated."""
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run()))
    found: dict[str, Any] = json.loads(path.read_text())
    print(f"{name}: {found}", flush=True)
    return found


def save(name: str, content: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/<name>.json with machine, versions and settings, and print the path."""
    path = ROOT / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    facts = {
        **environment(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "instruction_set": ops.native().isa if ops.built() else None,
    }
    path.write_text(json.dumps({**facts, **content}, indent=1) + "\n")
    print(f"written: {path}")
    return path
