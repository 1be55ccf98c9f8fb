"""One unpadded sample repeated along the batch, one candidate a row: what neurons-in-batch methods have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyneuro.baselines.patching import Float, Int, Patch, Patching, chunks, to_changes
from pyneuro.models import Encoding
from pyneuro.sites import NeuronSet


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample under way: what its runs start from, and its base runs, by rows and ``RowsEvaluator.kind``."""

    id: str
    start: Any
    base: dict[tuple[int, Hashable], Tensor] = field(default_factory=dict)  # float64 [rows, C]


@dataclass(frozen=True, eq=False)
class RowsEvaluator(ABC):
    """Evaluator of the search for methods that patch one candidate in each row.

    A patched run is compared, row by row, with a base run of the same shape through the same computation: kernels
    round by shape, and a neuron replaced by its own value must come out as exactly 0. Base runs are kept as long as the
    sample.
    """

    patching: Patching
    batch_size: int
    samples_at_once: int = field(default=1, init=False)

    @abstractmethod
    def start(self, encoding: Encoding) -> Any:
        """What every run of the sample starts from."""

    @abstractmethod
    def run(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        """Logits [rows, C] under the patches, in the model's dtype. Called with dropout and gradients off."""

    @abstractmethod
    def kind(self, patches: Sequence[Patch]) -> Hashable:
        """Equal for patches whose runs do the same computation, so that they can share a base run."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Sample, Float]:
        clf = self.patching.clf
        (encoding,) = encodings
        with clf.inference():
            sample = Sample(encoding.id, self.start(encoding))
        return sample, clf.logits(encodings).double().cpu().numpy()

    def neurons(self, state: Sample, layer: int, module: str, index: Int, z: Float | None) -> Float:
        treatments = 1 if z is None else len(z)
        every, values = np.tile(index, treatments), None if z is None else z.reshape(-1)
        delta = []
        with self.patching.clf.inference():
            for part in chunks(len(every), self.batch_size):
                rows = np.arange(part.stop - part.start)
                value = None if values is None else values[part]
                patch = self.patching.patch(layer, module, rows, every[part], value)
                delta.append(self.changes(state, len(rows), [patch]))
        stacked = torch.cat(delta).view(1, treatments, len(index), -1)
        return to_changes(stacked, [state.id], layer, module, index)

    def changes(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        """Change of the logits, float64 [rows, C]."""
        key = (rows, self.kind(patches))
        if key not in sample.base:
            sample.base[key] = self.run(sample, rows, [patch.nothing() for patch in patches]).double()
        return self.run(sample, rows, patches).double() - sample.base[key]

    def sets(self, state: Sample, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        raise NotImplementedError(f"{type(self).__name__} refuses sets before it searches")

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """One forward, in forwards × tokens."""
        return float(tokens)
