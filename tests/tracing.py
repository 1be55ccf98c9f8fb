"""In place of a CUDA graph, on the CPU: the operations a piece of work asked for, traced once and repeated on another
argument. Like a graph they hold on to every tensor but the argument, and know nothing of what the host did between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from pyneuro.engine import recording

#: Answers of the device to the host, which a capture refuses.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}


class Traced:
    """As ``recording._Graph``. Fails where the work is none that a graph could repeat."""

    def __init__(self, work: recording.Work, argument: torch.Tensor, beside: Any) -> None:
        self._argument = torch.randn_like(argument)
        traces = [make_fx(lambda x: work(x))(self._argument) for _ in range(2)]  # noqa: PLW0108 (make_fx counts arguments)
        for node in traces[0].graph.nodes:
            name = str(node.target).removeprefix("aten.").partition(".")[0]
            assert name not in WAITING, f"{node} waits for the device and cannot be recorded"
            masks = [a for a in (node.args[1] if name == "index" else ()) if a is not None]
            assert all(a.meta["val"].dtype != torch.bool for a in masks), f"{node} has a data-dependent shape"
        held = [{t.data_ptr() for t in constants(trace)} for trace in traces]
        assert held[0] == held[1], "a tensor is made on the host in every call and cannot be recorded"
        self._trace = traces[0]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._argument.copy_(x)
        found: tuple[torch.Tensor, ...] = self._trace(self._argument)
        return found


def constants(trace: torch.fx.GraphModule) -> list[torch.Tensor]:
    """Tensors a trace holds."""
    names = [str(node.target) for node in trace.graph.nodes if node.op == "get_attr"]
    return [getattr(trace, name) for name in names]


def recording_by_trace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., recording.Recording]:
    """``Recording`` that records on the CPU too, by traces."""
    monkeypatch.setattr(recording, "_Graph", Traced)
    return lambda work, device, shapes: recording.Recording(work, torch.device("cuda"), shapes)
