"""Samples whose whole work follows from their embeddings: begun in one go, and recorded for lengths that come often."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyneuro.engine.arrival import Arrival
from pyneuro.engine.base_run import require_finite
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.recording import Recording, Work
from pyneuro.models.weights import Encoding


class AtOnce:
    """Begins samples one at a time.

    Parameters
    ----------
    engine : ExactEngine
        Whose classifier embeds, and on whose device the work is done.
    work : callable, Tensor -> tuple of Tensors
        From embeddings, float64 [S, d] on the device, to results, then ``logits`` and ``finite`` of ``Forward``; as
        ``Recording`` wants it.
    encodings : sequence of Encoding
        Those that are to come.
    """

    def __init__(self, engine: ExactEngine, work: Work, encodings: Sequence[Encoding]) -> None:
        self._engine = engine
        shapes = [(len(encoding), engine.shape.hidden) for encoding in encodings]
        self._recording = Recording(work, engine.backend.device, shapes)

    def launch(self, encoding: Encoding) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """One sample, begun.

        Returns
        -------
        results : list of Tensors
            As the work gives them, not waited for.
        logits : callable
            Waits for the base run and returns its logits, float64 [C] on the CPU. Raises InputError where an activation
            is not finite: sample, layer and module named.
        """
        engine = self._engine
        x = engine.backend.move(engine.clf.embed(encoding, torch.float64))
        *results, logits, finite = self._recording(x)
        arriving = Arrival.of(logits), Arrival.of(finite)

        def result() -> Tensor:
            on_cpu = [part.result() for part in arriving]
            require_finite(on_cpu[1], engine.shape, encoding.id)
            return on_cpu[0]

        return results, result
