"""What exact effects add to predicted ones: the estimator, its variance, and how much is still to be sampled.

Pair (n, i) enters a round with probability π_ni = min(τ, m_n s_ni / S_n): m_n pairs are expected of neuron n, s_ni is
the size of what the prediction leaves out, S_n its sum over samples, τ the share of samples visited. With exact effects
y, predicted x, and N_s samples, Horvitz & Thompson's (1952) estimator of the mean of y is

    mean(x) + Σ_taken (y − x) / (π N_s),

unbiased whatever the sizes are. Rounds are combined in proportion to m_n. docs/estimate.md derives all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from pyneuro.data.pairs import LABELS
from pyneuro.effects import Terms
from pyneuro.search.evaluator import Float

Int = npt.NDArray[np.int64]
FEWEST = 10  # sampled neurons that make a prior
MOST_DF = 100.0  # a prior is never trusted beyond this many pairs


@dataclass(frozen=True, eq=False)
class Corrections:
    """Sums over the pairs taken so far. N neurons, J treatments (contrast included), K classes. Updated in place.

    Attributes
    ----------
    taken : int64 [N]
        Pairs evaluated exactly.
    weight : [N]
        Σ over rounds of m_n.
    total : [J, 3, N]
        Σ m (y − x) / (π N_s) of effect, log-ratio and difference.
    class_total : [J, K, N]
        The effect's part from each gold class.
    variance : [J, N]
        Σ (1 − π) u², u = m (y − x) / (π N_s): over `weight` squared, the variance of the correction of the effect.
    residual, square : [J, N]
        Σ m (y − x)² / (π N_s), and the same of y² − x².
    """

    taken: Int
    weight: Float
    total: Float
    class_total: Float
    variance: Float
    residual: Float
    square: Float

    @classmethod
    def zeros(cls, neurons: int, treatments: int) -> Corrections:
        """Nothing taken yet."""
        flat = (treatments, neurons)
        return cls(
            taken=np.zeros(neurons, dtype=np.int64),
            weight=np.zeros(neurons),
            total=np.zeros((treatments, 3, neurons)),
            class_total=np.zeros((treatments, len(LABELS), neurons)),
            variance=np.zeros(flat),
            residual=np.zeros(flat),
            square=np.zeros(flat),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Corrections:
        """Inverse of ``to_arrays``; copies."""
        return cls(**{f.name: arrays[f.name].copy() for f in fields(cls)})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """By attribute name; no copies."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def add(
        self,
        picked: Int,
        ratio: Float,
        pi: Float,
        exact: Sequence[Terms],
        predicted: Sequence[Terms],
        label: str | None,
    ) -> None:
        """One sample's pairs: neurons `picked` [p], their m / (π N_s) and π [p], and their terms by treatment [p]."""
        self.taken[picked] += 1
        for j, (y, x) in enumerate(zip(exact, predicted, strict=True)):
            off = y.effect - x.effect
            shares = (off, y.log_ratio - x.log_ratio, y.difference - x.difference)
            self.total[j][:, picked] += ratio * np.stack(shares)
            if label is not None:
                self.class_total[j, LABELS.index(label), picked] += ratio * off
            self.variance[j, picked] += (1 - pi) * np.square(ratio * off)
            self.residual[j, picked] += ratio * np.square(off)
            self.square[j, picked] += ratio * (y.effect + x.effect) * off

    def restart(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Forget what was sampled of some neurons, which are to be evaluated on every sample."""
        for f in fields(self):
            if f.name != "taken":
                getattr(self, f.name)[..., chosen] = 0.0

    def mean(self, sums: Float) -> Float:
        """Sums of an attribute as the estimate of a mean; 0 where nothing was taken."""
        return np.divide(sums, self.weight, out=np.zeros_like(sums), where=self.weight > 0)


@dataclass(frozen=True, eq=False)
class DesignError:
    """How far estimates may be from the exhaustive answer on the same samples. [J, N] each.

    A neuron's own pairs are few, so its variance is moderated (Smyth 2004): `unit`, the variance of one expected pair,
    is a mean of its own estimate and its (layer, module)'s, weighted by pairs and by the prior's degrees of freedom.
    """

    unit: Float
    se: Float
    df: Float
    surprising: npt.NDArray[np.bool_]  # own pairs say far more than the prior allows (p < 1e-4)

    @classmethod
    def of(cls, c: Corrections, scale: Float, groups: Sequence[slice], exact: npt.NDArray[np.bool_]) -> DesignError:
        """From the sums, the predicted scale of u [N] and the neurons of every (layer, module)."""
        unit, df = np.zeros_like(c.variance), np.full_like(c.variance, np.inf)
        surprising = np.zeros(unit.shape, dtype=bool)
        sampled = (scale > 0) & (c.weight > 0) & ~exact
        relative = np.divide(c.variance, np.square(scale), out=np.zeros_like(unit), where=sampled)
        for j in range(len(unit)):
            everywhere = Prior.fit(relative[j, sampled], c.taken[sampled])
            for group in groups:
                own = np.flatnonzero(sampled[group]) + group.start
                if not len(own):
                    continue
                prior = Prior.fit(relative[j, own], c.taken[own]) or everywhere or Prior(0.0, 0.0)
                together = prior.df + c.weight[own]
                unit[j, own] = (prior.df * prior.variance + relative[j, own]) / together * np.square(scale[own])
                df[j, own] = prior.df + c.taken[own]
                surprising[j, own] = prior.surprised(relative[j, own], c.taken[own])
        with np.errstate(divide="ignore", invalid="ignore"):
            se = np.sqrt(unit / c.weight)
        unknown = (scale > 0) & (c.weight == 0)
        se[:, ~sampled] = 0.0
        se[:, unknown] = np.nan
        return cls(unit, se, df, surprising)

    def half_width(self, ci: float) -> Float:
        """Of the interval, by Student's t."""
        with np.errstate(invalid="ignore"):
            quantile = stats.t.ppf(0.5 + ci / 2, np.maximum(self.df, 1.0))
        out: Float = quantile * self.se
        return out


@dataclass(frozen=True)
class Prior:
    """Scaled inverse χ² distribution of the neurons' variances (Smyth 2004, section 6.2)."""

    variance: float
    df: float

    @classmethod
    def fit(cls, squares: Float, taken: Int) -> Prior | None:
        """From Σ u² and the number of pairs behind it; None where too few neurons have any."""
        used = (taken > 0) & (squares > 0)
        if used.sum() < FEWEST:
            return None
        half = taken[used] / 2
        log = np.log(squares[used] / taken[used]) - special.digamma(half) + np.log(half)
        spread = float(log.var(ddof=1) - special.polygamma(1, half).mean())
        df = min(2 * _inverse_trigamma(spread), MOST_DF) if spread > 0 else MOST_DF
        return cls(float(np.exp(log.mean() + special.digamma(df / 2) - np.log(df / 2))), df)

    def surprised(self, squares: Float, taken: Int) -> npt.NDArray[np.bool_]:
        """Where Σ u² is larger than all but 1e-4 of such neurons would show."""
        if not self.df:
            return np.zeros(len(taken), dtype=bool)
        with np.errstate(invalid="ignore"):
            tail = stats.f.sf(squares / np.maximum(taken, 1) / self.variance, np.maximum(taken, 1), self.df)
        out: npt.NDArray[np.bool_] = (taken > 0) & (tail < 1e-4)
        return out


def _inverse_trigamma(y: float) -> float:
    """x with trigamma(x) = y > 0, by Newton's method on 1 / trigamma, which is convex (Smyth 2004, appendix)."""
    if y > 1e7:
        return float(1 / np.sqrt(y))
    if y < 1e-6:
        return 1 / y
    x = 0.5 + 1 / y
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / y) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return float(x)
