"""Work of a device that comes again and again at a few shapes: recorded once a shape, then launched as one."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import Tensor

#: How often a shape must be still to come for a recording of it to pay: recording takes longer than a call.
WORTH = 3

Work = Callable[[Tensor], tuple[Tensor, ...]]


class Recording:
    """Calls work on one tensor; on a CUDA device as a CUDA graph, for shapes that come often.

    Parameters
    ----------
    work : callable, Tensor -> tuple of Tensors
        Waits for nothing, and reads nothing that changes from call to call but its argument.
    device : torch.device
        Where it works. On the CPU it is called as it is.
    shapes : iterable of tuples of int
        Of the arguments that are to come, one for every call.
    """

    def __init__(self, work: Work, device: torch.device, shapes: Iterable[tuple[int, ...]]) -> None:
        self._work = work
        self._records = device.type == "cuda"
        self._to_come = Counter(shapes)
        self._called: set[tuple[int, ...]] = set()
        self._graphs: dict[tuple[int, ...], _Graph] = {}

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """The work's results, the caller's to keep."""
        shape = tuple(x.shape)
        self._to_come[shape] -= 1
        # Not in a first call: libraries set themselves up in that.
        if self._records and shape not in self._graphs and shape in self._called and self._to_come[shape] >= WORTH:
            self._record(x)
        if (graph := self._graphs.get(shape)) is not None:
            return graph(x)
        self._called.add(shape)
        try:
            return self._work(x)
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
            self._graphs.clear()  # with the memory they share
            self._records = False
            return self._work(x)

    def _record(self, x: Tensor) -> None:
        """The first time of the largest shape too: the smaller ones then fit into its memory."""
        shapes = [tuple(x.shape)]
        if not self._graphs:
            largest = max(shape for shape, left in self._to_come.items() if left >= WORTH)
            if largest != shapes[0]:
                shapes.insert(0, largest)
        try:
            for shape in shapes:
                argument = x.new_zeros(shape)
                if shape not in self._called:
                    self._work(argument)
                    self._called.add(shape)
                self._graphs[shape] = _Graph(self._work, argument, next(iter(self._graphs.values()), None))
        except RuntimeError as error:  # a driver that cannot, or no memory left
            self._records = False
            self._graphs.clear()
            warnings.warn(
                f"work for {tuple(x.shape)} could not be recorded as a CUDA graph ({error}); it goes on without, with "
                "the same results",
                stacklevel=3,
            )


class _Graph:
    """A recording of one shape. Memory between the argument and the results is shared with recordings `beside`, which
    never run at the same time."""

    _one_at_a_time = threading.Lock()

    def __init__(self, work: Work, argument: Tensor, beside: _Graph | None) -> None:
        self._argument = argument
        self._graph = torch.cuda.CUDAGraph()
        pool = None if beside is None else beside._graph.pool()
        with self._one_at_a_time, torch.cuda.device(argument.device):
            stream = torch.cuda.current_stream()
            try:
                recording = torch.cuda.graph(
                    self._graph, pool=pool, stream=_stream(argument.device), capture_error_mode="thread_local"
                )
                with recording:
                    self._results = work(argument)
            finally:
                torch.cuda.set_stream(stream)  # where ending the recording fails, torch does not do it

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device(x.device):
            self._argument.copy_(x)
            self._graph.replay()
            return tuple(result.clone() for result in self._results)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """That recordings are made on: libraries keep a workspace for every stream they have seen."""
    return torch.cuda.Stream(device)
