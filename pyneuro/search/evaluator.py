"""What the search loop asks of a way to compute patched runs. The exact engine is one; the baselines are others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pyneuro.models.weights import Encoding
from pyneuro.sites import NeuronSet

Float = npt.NDArray[np.float64]
# Of one (layer, module): layer, module, index int64 [n], z float64 [T, n] or None.
Neurons = tuple[int, str, npt.NDArray[np.int64], Float | None]


class Evaluator(Protocol):
    """Patched runs of blocks of samples. B samples, T treatments, n neurons or sets, C classes.

    ``z`` holds replacement values, float64 [T, n], or None where the intervention needs none (then T = 1).
    """

    @property
    def samples_at_once(self) -> int:
        """B, the samples of a block (the last block may be smaller)."""

    def admit(self, tokens: int) -> None:
        """Raise InputError where a sample of this length cannot be run, before any is."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Any, Float]:
        """Base runs of a block: (state for the calls below, logits [B, C])."""

    def neurons(self, state: Any, layer: int, module: str, index: npt.NDArray[np.int64], z: Float | None) -> Float:
        """Change of the logits [B, T, n, C], each neuron of one (layer, module) patched alone."""

    def sets(self, state: Any, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        """Change of the logits [B, T, n, C], each set patched jointly; ``z[i]`` is [T, len(sets[i])]."""

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """Work of one patched run of a sample of this length, in any unit; for the time left."""


@runtime_checkable
class Launcher(Protocol):
    """What an evaluator on a device offers beside: work that goes on while the loop counts what came before."""

    @property
    def launches(self) -> bool:
        """Whether it does here."""

    def launch_begin(self, encodings: Sequence[Encoding]) -> Callable[[], tuple[Any, Float]]:
        """``Evaluator.begin``, begun: call what is returned for the result."""

    def launch(self, state: Any, groups: Sequence[Neurons]) -> Callable[[], list[Float]]:
        """``Evaluator.neurons`` of all these groups together, begun: call what is returned for the results."""
