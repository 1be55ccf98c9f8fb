"""How exact an estimate is to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from pyneuro.errors import InputError, is_number, is_whole
from pyneuro.search.evaluator import Float

ToleranceOf = Literal["sampling", "effect", "absolute"]
TOLERANCES: tuple[ToleranceOf, ...] = get_args(ToleranceOf)


@dataclass(frozen=True)
class Tolerance:
    """When a neuron's estimate is good enough.

    Parameters
    ----------
    value : float
    of : "sampling", "effect" or "absolute"
        The design's standard error at most `value` times that of the mean over texts (which exhaustive search has too:
        at 0.5 the two together are 12 % more); or the interval's half width at most `value` times the effect; or at
        most `value`.
    top : int, optional
        Only the neurons with the `top` largest estimated |effects| of a treatment need it; None: every neuron.
    """

    value: float = 0.5
    of: ToleranceOf = "sampling"
    top: int | None = None

    def __post_init__(self) -> None:
        if self.of not in TOLERANCES:
            raise InputError(f"tolerance_of = {self.of!r} is not one of {', '.join(TOLERANCES)}")
        if not is_number(self.value) or not 0 < self.value < np.inf:
            raise InputError(f"tolerance = {self.value!r}; pass a positive number, such as 0.5")
        if self.top is not None and (not is_whole(self.top) or self.top < 1):
            raise InputError(f"tolerance_top = {self.top!r}; pass a number of neurons, or None for all")

    def target(self, nie: Float, sampling_se: Float, ci: float) -> Float:
        """Largest design standard error allowed, [J, N] from the estimates and their sampling errors."""
        if self.of == "sampling":
            target = self.value * sampling_se
        else:
            allowed = self.value * (np.abs(nie) if self.of == "effect" else np.ones_like(nie))
            target = allowed / stats.norm.ppf(0.5 + ci / 2)
        if self.top is not None and self.top < nie.shape[1]:
            bar = -np.partition(-np.abs(nie), self.top - 1, axis=1)[:, self.top - 1, None]
            target = np.where(np.abs(nie) >= bar, target, np.inf)
        return target
