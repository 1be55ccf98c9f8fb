"""Recorded work gives what the work gives: a trace in place of the CUDA graph here, the graph itself on a GPU."""

from __future__ import annotations

import pytest
import torch

from pyneuro.engine import recording
from tests.device import HAS_DEVICE
from tests.tracing import Traced, recording_by_trace


def work(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    kept = x.clone()
    kept *= WEIGHT
    return kept @ WEIGHT, kept.sum()


def shapes(lengths: list[int]) -> list[tuple[int, int]]:
    return [(n, 4) for n in lengths]


CPU = torch.device("cpu")
WEIGHT = torch.linspace(-1, 1, 4, dtype=torch.float64)


def calls(recorded: recording.Recording, lengths: list[int], device: str) -> int:
    """Runs work of these lengths and compares with what it gives unrecorded. Returns how many shapes were recorded."""
    rng = torch.Generator().manual_seed(0)
    found, wanted = [], []
    for n in lengths:
        x = torch.randn(n, 4, generator=rng, dtype=torch.float64).to(device)
        wanted.append(work(x))
        found.append(recorded(x))  # kept: a later call must not change them
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    return len(recorded._graphs)


def test_shapes_that_come_often_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 5, 3, 3, 7, 3, 5, 3, 3, 0, 0, 0, 0, 0]
    recorded = recording_by_trace(monkeypatch)(work, CPU, shapes(lengths))
    assert calls(recorded, lengths, "cpu") == 2


def test_the_largest_shape_is_recorded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 3, 3, 3, 3, 7, 7, 7, 5, 7, 7, 9]
    recorded = recording_by_trace(monkeypatch)(work, CPU, shapes(lengths))
    assert calls(recorded, lengths[:2], "cpu") == 2
    assert list(recorded._graphs) == [(7, 4), (3, 4)]
    assert calls(recorded, lengths[2:], "cpu") == 2


def test_memory_that_recordings_keep_is_given_back_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def tight(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(x) == 9 and recorded._graphs:
            raise torch.OutOfMemoryError
        return work(x)

    lengths = [3, 3, 3, 3, 3, 9, 3, 3, 3, 3]
    recorded = recording_by_trace(monkeypatch)(tight, CPU, shapes(lengths))
    assert calls(recorded, lengths, "cpu") == 0
    none = recording.Recording(lambda x: (_ for _ in ()).throw(torch.OutOfMemoryError), CPU, [(1, 1)])
    with pytest.raises(torch.OutOfMemoryError):
        none(torch.zeros(1, 1))


def test_on_the_cpu_nothing_is_recorded() -> None:
    assert calls(recording.Recording(work, CPU, shapes([3] * 6)), [3] * 6, "cpu") == 0


def test_what_cannot_be_recorded_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3] * 6 + [5] * 6
    recorded = recording_by_trace(monkeypatch)(work, CPU, shapes(lengths))

    def failing(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recording, "_Graph", failing)
    with pytest.warns(
        UserWarning, match=r"work for \(3, 4\) could not be recorded as a CUDA graph \(operation not"
    ) as w:
        assert calls(recorded, lengths, "cpu") == 0
    assert len(w) == 1


def test_the_trace_notices_what_a_graph_could_not_repeat() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    for wrong in (
        lambda x: (x + torch.tensor([1.0, 2.0, 3.0, 4.0]),),  # comes from the host, and is gone by the next call
        lambda x: (x[x > 0],),  # a shape that depends on the values
        lambda x: (x * float(x.sum()),),  # waits
    ):
        with pytest.raises(Exception, match=r"recorded|data-dependent|\.item\(\)|_local_scalar_dense"):
            Traced(wrong, x, None)


@pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device, or no CUDA kernels built")
def test_by_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.WEIGHT", WEIGHT.cuda())
    lengths = [3, 5, 3, 3, 7, 3, 5, 3, 3, 5, 5, 5, 5, 5]
    recorded = recording.Recording(work, torch.device("cuda", 0), shapes(lengths))
    assert calls(recorded, lengths, "cuda") == 2
