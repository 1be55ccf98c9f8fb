"""One unpadded sample repeated along the batch, one candidate a row: what neurons-in-batch methods have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyneuro.baselines.patching import Float, Int, Patch, Patching, chunks, to_changes
from pyneuro.models import Encoding
from pyneuro.sites import NeuronSet


@dataclass(frozen=True, eq=False)
class Base:
    """An unpatched run of some number of equal rows."""

    start: Any  # what a patched run of as many rows starts from
    logits: Tensor  # [rows, C]


@dataclass(frozen=True, eq=False)
class Sample:
    """A sample under way, with its base runs by number of rows."""

    encoding: Encoding
    bases: dict[int, Base] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RowsEvaluator(ABC):
    """Evaluator of the search for methods that patch one candidate in each row."""

    patching: Patching
    batch_size: int
    samples_at_once: int = field(default=1, init=False)

    @abstractmethod
    def changes(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        """Change of the logits under the patches, float64 [rows, C]. Called with dropout and gradients off."""

    def admit(self, tokens: int) -> None:  # noqa: B027 (nothing to refuse)
        """Any length the model takes."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Sample, Float]:
        (encoding,) = encodings
        return Sample(encoding), self.patching.clf.logits(encodings).double().cpu().numpy()

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
        return to_changes(stacked, [state.encoding.id], layer, module, index)

    def sets(self, state: Sample, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        raise NotImplementedError(f"{type(self).__name__} refuses sets before it searches")

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """Work of one patched run, in forwards × tokens: here a full forward."""
        return float(tokens)


class HookedRows(RowsEvaluator):
    """Rows patched by hooks.

    A patched run is compared, row by row, with a base run of the same shape: kernels round by shape and, with several
    threads, by row, and a neuron that keeps its value must come out as exactly 0. Base runs are kept with the sample.
    """

    @abstractmethod
    def base(self, encoding: Encoding, rows: int) -> Base:
        """The base run of a sample repeated."""

    @abstractmethod
    def run(self, base: Base, first: int) -> Tensor:
        """Logits [rows, C], in the model's dtype, as the base run computes them, with hooks in layer `first` and later
        ones."""

    def changes(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        if rows not in sample.bases:
            sample.bases[rows] = self.base(sample.encoding, rows)
        base = sample.bases[rows]
        with self.patching.applied(patches):
            logits = self.run(base, min(patch.layer for patch in patches))
        return logits.double() - base.logits.double()


def cost_from(layer: int, layers: int, tokens: int) -> float:
    """Work of the layers from the patched one on, in forwards × tokens."""
    return tokens * (layers - layer) / layers
