"""Streaming statistics of effects: one sample at a time, every neuron at once, mergeable across tiles and machines.

Means and squared deviations follow Welford (1962); two halves merge by the pairwise formula of Chan, Golub & LeVeque
(1983) and Pébay (2008). No sum of squares is ever formed, so a large mean with a small variance loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from pyneuro.data.pairs import LABELS
from pyneuro.effects.response import Terms
from pyneuro.errors import InputError

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

_EFFECT, _LOG, _DIFFERENCE = range(3)
_UINT64 = 2**64 - 1


def half_of(sample: int) -> int:
    """Half of the samples, 0 or 1, that a sample number belongs to: the lowest bit of its SplitMix64 hash (Steele, Lea
    & Flood 2014). It depends on the number alone, so that neither order nor tiling nor a resume moves a sample."""
    z = (sample + 0x9E3779B97F4A7C15) & _UINT64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _UINT64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _UINT64
    return (z ^ (z >> 31)) & 1


@dataclass(frozen=True)
class Moments:
    """Statistics of the effects of N neurons over samples. Made by ``Moments.zeros``, updated in place.

    Attributes
    ----------
    classes : tuple of str
        Gold classes, K of them.
    count : int64 [N]
        Samples seen.
    mean, m2 : float64 [3, N]
        Mean and sum of squared deviations of effect, log-ratio and difference, in this order.
    low, high : float64 [N]
        Smallest and largest effect (inf, -inf before the first sample).
    low_sample, high_sample : int64 [N]
        Samples where they occur, the smallest number among equals; -1 before the first sample.
    magnitude : float64 [N]
        Sum of |effect|.
    base : float64 [N]
        Sum of the base response.
    class_count : int64 [K, N]
    class_mean, class_m2 : float64 [K, N]
        Of the effect, by gold class.
    half_count : int64 [2, N]
    half_mean : float64 [2, N]
        Of the effect, by half of the samples (``half_of``).
    """

    classes: tuple[str, ...]
    count: Int
    mean: Float
    m2: Float
    low: Float
    high: Float
    low_sample: Int
    high_sample: Int
    magnitude: Float
    base: Float
    class_count: Int
    class_mean: Float
    class_m2: Float
    half_count: Int
    half_mean: Float

    @classmethod
    def zeros(cls, n: int, classes: Sequence[str] = LABELS) -> Moments:
        """No sample seen yet, for ``n`` neurons."""
        if n < 0:
            raise InputError(f"n = {n} neurons; pass 0 or more")
        if len(set(classes)) != len(classes):
            raise InputError(f"classes {list(classes)} repeat a name; pass each once")
        k = len(classes)
        return cls(
            classes=tuple(classes),
            count=np.zeros(n, dtype=np.int64),
            mean=np.zeros((3, n)),
            m2=np.zeros((3, n)),
            low=np.full(n, np.inf),
            high=np.full(n, -np.inf),
            low_sample=np.full(n, -1, dtype=np.int64),
            high_sample=np.full(n, -1, dtype=np.int64),
            magnitude=np.zeros(n),
            base=np.zeros(n),
            class_count=np.zeros((k, n), dtype=np.int64),
            class_mean=np.zeros((k, n)),
            class_m2=np.zeros((k, n)),
            half_count=np.zeros((2, n), dtype=np.int64),
            half_mean=np.zeros((2, n)),
        )

    def __len__(self) -> int:
        """Number of neurons."""
        return len(self.count)

    def update(self, terms: Terms, label: str | None, sample: int) -> None:
        """Add one sample to every neuron, in place.

        Parameters
        ----------
        terms : Terms
            Of N neurons.
        label : str or None
            Gold class; None counts overall only.
        sample : int
            Number of the sample, kept for the extremes; decides the half it counts in.

        Raises
        ------
        InputError
            Another number of neurons, or a label outside ``classes``.
        """
        if len(terms) != len(self):
            raise InputError(
                f"terms of {len(terms)} neurons cannot be added to moments of {len(self)}; slice the moments first"
            )
        if label is not None and label not in self.classes:
            raise InputError(
                f"label {label!r} is not among the classes {', '.join(self.classes)}; "
                "pass classes to Moments.zeros, or None as the label"
            )
        effect, half = terms.effect, half_of(sample)
        scratch = np.empty((2, len(self)))
        with np.errstate(invalid="ignore", over="ignore"):
            weight = _counted(self.count)
            for row, values in enumerate((effect, terms.log_ratio, terms.difference)):
                _welford(weight, self.mean[row], self.m2[row], values, scratch)
            if label is not None:
                k = self.classes.index(label)
                _welford(_counted(self.class_count[k]), self.class_mean[k], self.class_m2[k], effect, scratch)
            _running_mean(_counted(self.half_count[half]), self.half_mean[half], effect, scratch)
            np.add(self.magnitude, np.abs(effect, out=scratch[0]), out=self.magnitude)
            np.add(self.base, terms.base, out=self.base)
        _extreme(effect, sample, effect <= self.low, self.low, self.low_sample)
        _extreme(effect, sample, effect >= self.high, self.high, self.high_sample)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of samples together, for the same neurons. Associative and commutative to rounding.

        Raises
        ------
        InputError
            Other classes or another number of neurons.
        """
        if self.classes != other.classes or len(self) != len(other):
            raise InputError(
                f"moments of {len(self)} neurons and classes {list(self.classes)} cannot be merged with moments of "
                f"{len(other)} neurons and classes {list(other.classes)}; both must describe the same neurons"
            )
        count, mean, m2 = _pool(self.count, self.mean, self.m2, other.count, other.mean, other.m2)
        class_count, class_mean, class_m2 = _pool(
            self.class_count, self.class_mean, self.class_m2, other.class_count, other.class_mean, other.class_m2
        )
        half_count, half_mean = _pool_means(self.half_count, self.half_mean, other.half_count, other.half_mean)
        filled = other.count > 0
        lower = (other.low < self.low) | (filled & (other.low == self.low) & (other.low_sample < self.low_sample))
        higher = (other.high > self.high) | (
            filled & (other.high == self.high) & (other.high_sample < self.high_sample)
        )
        return Moments(
            classes=self.classes,
            count=count,
            mean=mean,
            m2=m2,
            low=np.where(lower, other.low, self.low),
            high=np.where(higher, other.high, self.high),
            low_sample=np.where(lower, other.low_sample, self.low_sample),
            high_sample=np.where(higher, other.high_sample, self.high_sample),
            magnitude=self.magnitude + other.magnitude,
            base=self.base + other.base,
            class_count=class_count,
            class_mean=class_mean,
            class_m2=class_m2,
            half_count=half_count,
            half_mean=half_mean,
        )

    def slice(self, start: int, stop: int) -> Moments:
        """Neurons ``start:stop`` as a view: an update of the slice is an update of the whole."""
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"slice {start}:{stop} lies outside the {len(self)} neurons")
        return Moments(self.classes, **{name: array[..., start:stop] for name, array in self._arrays().items()})

    @classmethod
    def concat(cls, parts: Sequence[Moments]) -> Moments:
        """Neurons of all parts, in order. Raises InputError for no part or parts of differing classes."""
        if not parts:
            raise InputError("no moments to concatenate; pass at least one part")
        classes = parts[0].classes
        for part in parts:
            if part.classes != classes:
                raise InputError(f"moments with classes {list(part.classes)} cannot join moments with {list(classes)}")
        names = parts[0]._arrays()
        return cls(
            classes, **{name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in names}
        )

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "classes"}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as a flat dict of arrays (no copies), for ``np.savez`` and ``from_arrays``."""
        return {"classes": np.array(self.classes, dtype=np.str_), **self._arrays()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Moments:
        """Inverse of ``to_arrays``; copies, and ignores other keys.

        Raises InputError for a missing array or one of another shape.
        """
        needed = {field.name for field in fields(cls)}
        if missing := sorted(needed - set(arrays)):
            raise InputError(f"moments lack the arrays {', '.join(missing)}; pass what Moments.to_arrays returned")
        out = cls.zeros(np.size(arrays["count"]), [str(name) for name in arrays["classes"]])
        for name, target in out._arrays().items():
            source = np.asarray(arrays[name])
            if source.shape != target.shape:
                raise InputError(f"moments array {name!r} has shape {list(source.shape)}, not {list(target.shape)}")
            target[...] = source
        return out

    def summary(self, ci: float = 0.95) -> dict[str, np.ndarray]:
        """Columns of the result table, one entry a neuron.

        Parameters
        ----------
        ci : float
            Coverage of the interval around the mean, by Student's t with n - 1 degrees of freedom.

        Returns
        -------
        dict of arrays [N]
            ``nie, se, ci_low, ci_high`` of the effect; ``log_nie, log_se`` of the log-ratio; ``diff, diff_se`` of the
            difference; ``ratio_of_means`` = Σ difference / Σ base (nan for responses that are no ratio);
            ``min, max, min_sample, max_sample`` of the effect; ``largest_share`` = max |effect| / Σ |effect|, near 1
            when a single sample makes the mean (nan when all are 0); ``n``; ``nie_half_1, nie_half_2``, the mean effect
            over two halves of the samples (``half_of``), nan for an empty half; and ``nie_<class>, se_<class>,
            n_<class>`` for every class, a hyphen in its name written as an underscore. Standard errors and intervals
            are nan for fewer than two samples, means for none.
        """
        if not 0.0 < ci < 1.0:
            raise InputError(f"ci = {ci} is not a coverage; pass a number between 0 and 1, such as 0.95")
        seen = self.count > 0
        mean = np.where(seen, self.mean, np.nan)
        se = _standard_error(self.count, self.m2)
        half = _student(self.count, ci) * se[_EFFECT]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(np.isnan(mean[_LOG]), np.nan, self.count * self.mean[_DIFFERENCE] / self.base)
            share = np.maximum(np.abs(self.low), np.abs(self.high)) / self.magnitude
        out: dict[str, np.ndarray] = {
            "nie": mean[_EFFECT],
            "se": se[_EFFECT],
            "ci_low": mean[_EFFECT] - half,
            "ci_high": mean[_EFFECT] + half,
            "log_nie": mean[_LOG],
            "log_se": se[_LOG],
            "diff": mean[_DIFFERENCE],
            "diff_se": se[_DIFFERENCE],
            "ratio_of_means": ratio,
            "min": np.where(seen, self.low, np.nan),
            "max": np.where(seen, self.high, np.nan),
            "min_sample": self.low_sample.copy(),
            "max_sample": self.high_sample.copy(),
            "largest_share": np.where(seen & (self.magnitude > 0), share, np.nan),
            "n": self.count.copy(),
            **{f"nie_half_{h + 1}": np.where(self.half_count[h] > 0, self.half_mean[h], np.nan) for h in range(2)},
        }
        class_se = _standard_error(self.class_count, self.class_m2)
        for k, name in enumerate(self.classes):
            column = name.replace("-", "_")
            out[f"nie_{column}"] = np.where(self.class_count[k] > 0, self.class_mean[k], np.nan)
            out[f"se_{column}"] = class_se[k]
            out[f"n_{column}"] = self.class_count[k].copy()
        return out


def _counted(count: Int) -> Float:
    """Count one sample more, in place; returns its weight in the mean."""
    np.add(count, 1, out=count)
    return np.reciprocal(count, dtype=np.float64)


def _running_mean(weight: Float, mean: Float, values: Float, scratch: Float) -> None:
    """Add ``values`` [N] to a mean in place; leaves their deviation and the mean's step in ``scratch`` [2, N]."""
    deviation, step = scratch
    np.subtract(values, mean, out=deviation)
    np.multiply(deviation, weight, out=step)
    np.add(mean, step, out=mean)


def _welford(weight: Float, mean: Float, m2: Float, values: Float, scratch: Float) -> None:
    """``_running_mean`` with the sum of squared deviations."""
    _running_mean(weight, mean, values, scratch)
    deviation, step = scratch
    np.subtract(deviation, step, out=step)
    np.multiply(deviation, step, out=step)
    np.add(m2, step, out=m2)


def _extreme(effect: Float, sample: int, reached: npt.NDArray[np.bool_], extreme: Float, where: Int) -> None:
    """Move extremes that were reached or passed; among equals the smallest sample number stays."""
    index = np.flatnonzero(reached)  # few once some samples have been seen
    tied = effect[index] == extreme[index]
    index = index[~tied | (where[index] < 0) | (sample < where[index])]
    extreme[index] = effect[index]
    where[index] = sample


def _pool_means(n_a: Int, mean_a: Float, n_b: Int, mean_b: Float) -> tuple[Int, Float]:
    n = n_a + n_b
    with np.errstate(invalid="ignore", over="ignore"):
        mean = mean_a + (mean_b - mean_a) * (n_b / np.maximum(n, 1))
    # An empty side holds zeros, which are no estimate: take the other side as it is.
    return n, np.where(n_a == 0, mean_b, np.where(n_b == 0, mean_a, mean))


def _pool(n_a: Int, mean_a: Float, m2_a: Float, n_b: Int, mean_b: Float, m2_b: Float) -> tuple[Int, Float, Float]:
    n, mean = _pool_means(n_a, mean_a, n_b, mean_b)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = mean_b - mean_a
        m2 = m2_a + m2_b + gap * gap * (n_a * (n_b / np.maximum(n, 1)))
        m2 = np.where(n_a == 0, m2_b, np.where(n_b == 0, m2_a, m2))
    return n, mean, m2


def _standard_error(count: Int, m2: Float) -> Float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, np.sqrt(m2 / (count - 1.0) / count), np.nan)


def _student(count: Int, ci: float) -> Float:
    """Two-sided quantile of Student's t with count - 1 degrees of freedom [N]; nan below two samples."""
    distinct, where = np.unique(count, return_inverse=True)
    quantile = np.array([stats.t.ppf(0.5 + ci / 2, n - 1) if n > 1 else np.nan for n in distinct])
    return quantile[where] if len(count) else np.zeros(0)
