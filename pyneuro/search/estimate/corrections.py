"""What exact effects add to predicted ones: the estimator, its variance, and how much is still to be sampled.

In a round, pair (n, i) is taken with probability π_ni = min(τ, m_n s_ni / S_n): m_n pairs are expected of neuron n,
s_ni is the size of what the prediction leaves out, S_n its sum over the N_s samples, τ the share of samples visited. A
taken pair, exact effect y and predicted x, gives u = (y − x) S_n / (N_s s_ni), by itself an estimate of mean(y − x):
pairs are draws with probabilities s_ni / S_n, and their mean is unbiased (Hansen & Hurwitz 1943). Where τ caps π, u is
weighted by w = m_n s_ni / (S_n π_ni), else w = 1 (Hájek 1971). docs/estimate.md derives all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from pyneuro.data.pairs import LABELS
from pyneuro.effects import Terms
from pyneuro.search.evaluator import Float

Int = npt.NDArray[np.int64]
FEWEST = 10  # sampled neurons that make a prior
LEAST_DF, MOST_DF = 0.2, 100.0  # a prior counts for as many pairs


@dataclass(frozen=True, eq=False)
class Corrections:
    """Sums over the pairs taken so far. N neurons, J treatments (contrast included), K classes. Updated in place.

    Attributes
    ----------
    taken : int64 [N]
        Pairs evaluated exactly, those of earlier rounds that were forgotten included.
    draws : int64 [N]
        Pairs behind the sums.
    weight : [N]
        Σ w.
    total : [J, 3, N]
        Σ w u of effect, log-ratio and difference.
    class_total : [J, K, N]
        The effect's part from each gold class.
    spread : [J, 3, N]
        Σ w (1 − π) u^k of the effect, k = 0, 1, 2.
    residual, square : [J, N]
        As `total`, with (y − x)² and y² − x² in place of y − x.
    """

    taken: Int
    draws: Int
    weight: Float
    total: Float
    class_total: Float
    spread: Float
    residual: Float
    square: Float

    @classmethod
    def zeros(cls, neurons: int, treatments: int) -> Corrections:
        """Nothing taken yet."""
        return cls(
            taken=np.zeros(neurons, dtype=np.int64),
            draws=np.zeros(neurons, dtype=np.int64),
            weight=np.zeros(neurons),
            total=np.zeros((treatments, 3, neurons)),
            class_total=np.zeros((treatments, len(LABELS), neurons)),
            spread=np.zeros((treatments, 3, neurons)),
            residual=np.zeros((treatments, neurons)),
            square=np.zeros((treatments, neurons)),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Corrections:
        """Inverse of ``to_arrays``; copies."""
        return cls(**{f.name: arrays[f.name].copy() for f in fields(cls)})

    def to_arrays(self) -> dict[str, np.ndarray]:
        """By attribute name; no copies."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def add(self, taken: Taken, exact: Sequence[Terms], predicted: Sequence[Terms], label: str | None) -> None:
        """One sample's pairs, and their terms by treatment."""
        picked, w = taken.neurons, taken.weight
        self.taken[picked] += 1
        self.draws[picked] += 1
        self.weight[picked] += w
        for j, (y, x) in enumerate(zip(exact, predicted, strict=True)):
            off = y.effect - x.effect
            u = taken.factor * np.stack([off, y.log_ratio - x.log_ratio, y.difference - x.difference])
            self.total[j][:, picked] += w * u
            if label is not None:
                self.class_total[j, LABELS.index(label), picked] += w * u[0]
            self.spread[j][:, picked] += w * (1 - taken.pi) * np.stack([np.ones_like(off), u[0], np.square(u[0])])
            self.residual[j, picked] += w * taken.factor * np.square(off)
            self.square[j, picked] += w * taken.factor * (y.effect + x.effect) * off

    def forget(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Start some neurons anew, which are to be evaluated on every sample."""
        for f in fields(self):
            if f.name != "taken":
                getattr(self, f.name)[..., chosen] = 0

    def mean(self, sums: Float) -> Float:
        """Sums of an attribute as the estimate of a mean; 0 where nothing was taken."""
        out: Float = np.divide(sums, self.weight, out=np.zeros_like(sums), where=self.weight > 0)
        return out

    @property
    def deviations(self) -> Float:
        """Σ w (1 − π) (u − mean)² of the effect, [J, N]: on `draws` − 1 degrees of freedom."""
        mean = self.mean(self.total[:, 0])
        zeroth, first, second = np.moveaxis(self.spread, 1, 0)
        out: Float = np.maximum(second - 2 * mean * first + np.square(mean) * zeroth, 0.0)
        return out


@dataclass(frozen=True, eq=False)
class Taken:
    """Pairs of one sample: neurons [p], probabilities π, weights w and factors S_n / (N_s s_ni)."""

    neurons: Int
    pi: Float
    weight: Float
    factor: Float


@dataclass(frozen=True, eq=False)
class DesignError:
    """How far estimates may be from the exhaustive answer on the same samples. [J, N] each; nan where unknown.

    A neuron's own pairs are few, so its variance is moderated (Smyth 2004): `unit`, the variance of u, is a mean of its
    own estimate and its (layer, module)'s, weighted by their degrees of freedom.
    """

    unit: Float
    se: Float
    df: Float
    surprising: npt.NDArray[np.bool_]  # own pairs deviate far more than the prior allows (p < 1e-4)

    @classmethod
    def of(cls, c: Corrections, scale: Float, groups: Sequence[slice], exact: npt.NDArray[np.bool_]) -> DesignError:
        """From the sums, the predicted scale of u [N], the neurons of every (layer, module), and those evaluated on
        every sample. Neurons of scale 0 have nothing left out."""
        unit, df = np.zeros_like(c.residual), np.full_like(c.residual, np.inf)
        surprising = np.zeros(unit.shape, dtype=bool)
        open_ = (scale > 0) & ~exact
        own_df = np.maximum(c.draws - 1, 0)
        relative = np.divide(c.deviations, np.square(scale), out=np.zeros_like(unit), where=open_)
        for j in range(len(unit)):
            everywhere = Prior.fit(relative[j, open_], own_df[open_]) or Prior(0.0, 0.0)
            for group in groups:
                own = np.flatnonzero(open_[group]) + group.start
                prior = Prior.fit(relative[j, own], own_df[own]) or everywhere
                df[j, own] = prior.df + own_df[own]
                moderated = np.full(len(own), np.nan)  # a single draw and no prior: unknown
                np.divide(prior.df * prior.variance + relative[j, own], df[j, own], out=moderated, where=df[j, own] > 0)
                unit[j, own] = moderated * np.square(scale[own])
                surprising[j, own] = prior.surprised(relative[j, own], own_df[own])
        with np.errstate(divide="ignore", invalid="ignore"):
            se = np.where(open_, np.where(c.weight > 0, np.sqrt(unit / c.weight), np.nan), 0.0)
        return cls(unit, se, df, surprising)

    def half_width(self, ci: float) -> Float:
        """Of the interval, by Student's t."""
        quantile = stats.t.ppf(0.5 + ci / 2, np.maximum(self.df, 1.0))
        out: Float = np.where(self.se == 0, 0.0, quantile * self.se)
        return out


@dataclass(frozen=True)
class Prior:
    """Scaled inverse χ² distribution of the neurons' variances (Smyth 2004, section 6.2)."""

    variance: float
    df: float

    @classmethod
    def fit(cls, squares: Float, df: Int) -> Prior | None:
        """From the neurons' sums of squared deviations and their degrees of freedom; None where too few have any."""
        used = (df > 0) & (squares > 0)
        if used.sum() < FEWEST:
            return None
        half = df[used] / 2
        log = np.log(squares[used] / df[used]) - special.digamma(half) + np.log(half)
        spread = float(log.var(ddof=1) - special.polygamma(1, half).mean())
        prior_df = _prior_df(spread)
        return cls(float(np.exp(log.mean() + special.digamma(prior_df / 2) - np.log(prior_df / 2))), prior_df)

    def surprised(self, squares: Float, df: Int) -> npt.NDArray[np.bool_]:
        """Where the deviations are larger than all but 1e-4 of such neurons would show."""
        if not self.df:
            return np.zeros(len(df), dtype=bool)
        some = np.maximum(df, 1)
        out: npt.NDArray[np.bool_] = (df > 0) & (stats.f.sf(squares / some / self.variance, some, self.df) < 1e-4)
        return out


def _prior_df(spread: float) -> float:
    """d with trigamma(d / 2) = spread, within what is believed."""

    def above(d: float) -> float:
        return float(special.polygamma(1, d / 2)) - spread

    if above(MOST_DF) >= 0:
        return MOST_DF
    return LEAST_DF if above(LEAST_DF) <= 0 else float(optimize.brentq(above, LEAST_DF, MOST_DF))
