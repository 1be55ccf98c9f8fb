"""Streaming bootstrap of mean effects over samples, beside the intervals by Student's t.

Each replicate counts each sample a Poisson(1) number of times instead of redrawing all of them, so that samples need
not be kept nor their number known (Hanley & MacGibbon 2006; Chamandy et al. 2012, "Estimating Uncertainty for Massive
Data Streams").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pyneuro.errors import InputError, is_whole

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

#: Replicates below which an error or a percentile says little.
FEWEST_REPLICATES = 20
# Up to 17, beyond which 1 - CDF is below the resolution of the uniform draws.
_POISSON_CDF = stats.poisson.cdf(np.arange(18), 1.0)


def poisson_weights(replicates: int, seed: int, sample: int) -> Int:
    """Times that each replicate counts a sample, int64 [B]: Poisson(1), by inverting the CDF.

    The uniform draws come from Philox (Salmon et al. 2011) under the key (seed, sample number), a stream of its own for
    every sample: neither order nor chunking nor a resume changes a weight, and all neurons and treatments share it.
    """
    bits = np.random.Philox(key=np.array([seed, sample], dtype=np.uint64)).random_raw(replicates)
    uniform = (bits >> np.uint64(11)) * 2.0**-53
    return np.searchsorted(_POISSON_CDF, uniform, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Replicated means of the effects of N neurons. Made by ``Bootstrap.zeros``, updated in place; 8 B bytes a neuron.

    Attributes
    ----------
    seed : int64 []
        Of the weights.
    count : int64 []
        Samples seen.
    weight : int64 [B]
        Sum of the weights of every replicate.
    total : float64 [B, N]
        Weighted sum of the effects.
    """

    seed: Int
    count: Int
    weight: Int
    total: Float

    @classmethod
    def zeros(cls, replicates: int, n: int, seed: int = 0) -> Bootstrap:
        """No sample seen yet, for ``n`` neurons."""
        if n < 0:
            raise InputError(f"n = {n} neurons; pass 0 or more")
        if not 0 <= seed < 2**63:
            raise InputError(f"seed = {seed}; pass a whole number from 0")
        check_replicates(replicates)
        return cls(
            np.array(seed, dtype=np.int64),
            np.array(0, dtype=np.int64),
            np.zeros(replicates, dtype=np.int64),
            np.zeros((replicates, n)),
        )

    def __len__(self) -> int:
        """Number of neurons."""
        return int(self.total.shape[1])

    def update(self, effect: Float, sample: int) -> None:
        """Add one sample's effects [N], in place. ``sample`` is its number, which decides its weights."""
        if effect.shape != (len(self),):
            raise InputError(f"effects of shape {list(effect.shape)} cannot be added to those of {len(self)} neurons")
        weight = poisson_weights(len(self.weight), int(self.seed), sample)
        np.add(self.count, 1, out=self.count)
        np.add(self.weight, weight, out=self.weight)
        counted = weight > 0  # a sample left out adds nothing, even where its effect is infinite
        self.total[counted] += np.multiply.outer(weight[counted], effect)

    def merge(self, other: Bootstrap) -> Bootstrap:
        """Of both sets of samples together, for the same neurons. Raises InputError for others, or another seed."""
        if self.total.shape != other.total.shape or self.seed != other.seed:
            raise InputError(
                f"a bootstrap of shape {list(self.total.shape)} and seed {self.seed} cannot be merged with one of "
                f"shape {list(other.total.shape)} and seed {other.seed}; neurons, replicates and seed must be the same"
            )
        return Bootstrap(
            self.seed.copy(), self.count + other.count, self.weight + other.weight, self.total + other.total
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as a flat dict of arrays (no copies), for ``np.savez`` and ``from_arrays``."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Bootstrap:
        """Inverse of ``to_arrays``; copies, and ignores other keys. Raises InputError for what does not fit."""
        if missing := sorted({field.name for field in fields(cls)} - set(arrays)):
            raise InputError(f"the bootstrap lacks the arrays {', '.join(missing)}; pass what to_arrays returned")
        total = np.asarray(arrays["total"])
        if total.ndim != 2 or np.shape(arrays["weight"]) != total.shape[:1]:
            raise InputError(
                f"bootstrap arrays 'weight' {list(np.shape(arrays['weight']))} and 'total' {list(total.shape)} do not "
                "fit; pass what to_arrays returned"
            )
        replicates, n = total.shape
        out = cls.zeros(replicates, n, int(arrays["seed"]))
        for name, target in out.to_arrays().items():
            target[...] = arrays[name]
        return out

    def columns(self, ci: float = 0.95) -> dict[str, np.ndarray]:
        """Columns of the result table, one entry a neuron.

        Parameters
        ----------
        ci : float
            Coverage of the interval.

        Returns
        -------
        dict of float64 [N]
            ``boot_se``, the standard deviation of the replicated means; ``boot_low, boot_high``, their percentiles
            (1 - ci) / 2 and (1 + ci) / 2. Replicates that counted no sample are left out; nan for fewer than two
            samples.
        """
        if not 0.0 < ci < 1.0:
            raise InputError(f"ci = {ci} is not a coverage; pass a number between 0 and 1, such as 0.95")
        filled = self.weight > 0
        if self.count < 2 or filled.sum() < 2:
            return {name: np.full(len(self), np.nan) for name in ("boot_se", "boot_low", "boot_high")}
        with np.errstate(invalid="ignore", over="ignore"):
            mean = self.total[filled] / self.weight[filled, None]
            low, high = np.quantile(mean, [0.5 - ci / 2, 0.5 + ci / 2], axis=0)
            return {"boot_se": mean.std(axis=0, ddof=1), "boot_low": low, "boot_high": high}


def check_replicates(replicates: Any) -> None:
    """Raise InputError for what is no number of replicates."""
    if not is_whole(replicates) or replicates < FEWEST_REPLICATES:
        raise InputError(
            f"bootstrap = {replicates!r} replicates; pass a whole number from {FEWEST_REPLICATES}, such as 1000, or 0 "
            "for none"
        )
