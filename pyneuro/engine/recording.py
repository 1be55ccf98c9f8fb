"""Work of a device that comes again and again at a few shapes: recorded once a shape, then launched as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

#: How often a shape must be still to come for a recording of it to pay: recording takes as long as a call.
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
    """

    def __init__(self, work: Work, device: torch.device) -> None:
        self._work = work
        self._records = device.type == "cuda"
        self._called: set[torch.Size] = set()  # recorded the next time: in a first call libraries set themselves up
        self._stream = torch.cuda.Stream(device) if self._records else None
        self._graphs: dict[torch.Size, _Graph] = {}

    def __call__(self, x: Tensor, to_come: int) -> tuple[Tensor, ...]:
        """The work's results, the caller's to keep.

        Parameters
        ----------
        x : Tensor
        to_come : int
            Calls of this shape that will follow.
        """
        if self._records and x.shape in self._called and to_come >= WORTH and x.shape not in self._graphs:
            self._record(x)
        if (graph := self._graphs.get(x.shape)) is not None:
            return graph(x)
        self._called.add(x.shape)
        return self._work(x)

    def _record(self, x: Tensor) -> None:
        beside = next(iter(self._graphs.values()), None)
        try:
            self._graphs[x.shape] = _Graph(self._work, x, self._stream, beside)
        except RuntimeError as error:  # a driver that cannot, or no memory left
            self._records = False
            warnings.warn(
                f"work for {tuple(x.shape)} could not be recorded as a CUDA graph ({error}); it goes on without, with "
                "the same results",
                stacklevel=2,
            )


class _Graph:
    """A recording of one shape. Memory between the argument and the results is shared with recordings `beside`, which
    never run at the same time."""

    def __init__(self, work: Work, x: Tensor, stream: torch.cuda.Stream | None, beside: _Graph | None) -> None:
        with torch.cuda.device(x.device):
            self._argument = torch.empty_like(x)
            self._graph = torch.cuda.CUDAGraph()
            pool = None if beside is None else beside._graph.pool()
            with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                self._results = work(self._argument)

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        with torch.cuda.device(x.device):
            self._argument.copy_(x)
            self._graph.replay()
            return tuple(result.clone() for result in self._results)
