"""From the logits of a base run and their change in a patched run to the change of a response, without cancellation.

The effect of one neuron is of order 1e-6 of the response, so no response is ever evaluated twice and subtracted. Every
formula below takes the change ``δz`` itself. It is accurate to a few units in the last place for changes of any size,
and exactly 0 for ``δz = 0``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError

ResponseName = Literal["probability", "odds", "log_odds", "logit_difference", "kl", "flip"]
RESPONSES: tuple[ResponseName, ...] = get_args(ResponseName)

Float = npt.NDArray[np.float64]

# Above HOT, exp(d) dwarfs 1 and is taken together with its weight's logarithm, so that a tiny weight and a huge change
# meet before either leaves the range of float64; CEILING is where exp itself stops.
_HOT = 40.0
_CEILING = 700.0
# Below this |y|, expm1(y) - y loses digits and the series takes over; eleven terms reach 1e-16 there.
_SERIES = 0.25
_SERIES_COEFFICIENTS = tuple(1 / math.factorial(k) for k in range(2, 13))


@dataclass(frozen=True)
class Terms:
    """One sample's contribution to the effects of N neurons.

    Attributes
    ----------
    effect : float64 [N]
        What is averaged into the NIE. ``r'/r - 1`` for the responses on a ratio scale (probability, odds), so that the
        mean over samples is the mean of ratios of Vig et al. (2020) and Lim et al. (2024); ``r' - r`` for all others.
    log_ratio : float64 [N]
        ``log(r'/r)``; nan for responses without a ratio (log-odds, logit difference, KL, flip).
    difference : float64 [N]
        ``r' - r``.
    base : float
        ``r``, the response of the base run.
    """

    effect: Float
    log_ratio: Float
    difference: Float
    base: float

    def __len__(self) -> int:
        return len(self.effect)

    def __getitem__(self, chosen: npt.NDArray[np.int64]) -> Terms:
        """Of some of the neurons."""
        return Terms(self.effect[chosen], self.log_ratio[chosen], self.difference[chosen], self.base)

    def __sub__(self, other: Terms) -> Terms:
        """Paired contrast of two treatments on the same sample: ``terms["HOL"] - terms["LOL"]``."""
        if len(self) != len(other) or self.base != other.base:
            raise InputError(
                f"terms of {len(self)} neurons at base {self.base!r} cannot be paired with {len(other)} neurons "
                f"at base {other.base!r}; a contrast needs the same sample, response and neurons on both sides"
            )
        with np.errstate(invalid="ignore"):
            log_ratio = self.log_ratio - other.log_ratio
            return Terms(self.effect - other.effect, log_ratio, self.difference - other.difference, self.base)


@dataclass(frozen=True)
class Response:
    """A number read off the logits, whose change is the effect.

    ====================  ==================================================  =====================
    name                  r                                                   scale
    ====================  ==================================================  =====================
    ``probability``       p of the target class                               ratio: r'/r - 1
    ``odds``              p / (1 - p) of the target class                     ratio: r'/r - 1
    ``log_odds``          log of the odds                                     difference: r' - r
    ``logit_difference``  target logit minus foil logit                       difference
    ``kl``                KL(base || patched) of the class distribution       difference (base is 0)
    ``flip``              1 where another class becomes strictly the largest  difference (base is 0)
    ====================  ==================================================  =====================

    Parameters
    ----------
    name : str
        One of ``RESPONSES``.
    target : int
        Index of the class in the logits. ``kl`` and ``flip`` look at all classes and ignore it.
    foil : int, optional
        Class the target is compared with, for ``logit_difference`` only. Default: the mean of the other logits.
    """

    name: ResponseName
    target: int
    foil: int | None = None

    def __post_init__(self) -> None:
        if self.name not in RESPONSES:
            raise InputError(f"response {self.name!r} is not known; choose one of {', '.join(RESPONSES)}")
        if self.target < 0:
            raise InputError(f"target {self.target} is not a class index; pass 0 or more")
        if self.foil is None:
            return
        if self.name != "logit_difference":
            raise InputError(
                f"foil {self.foil} has no meaning for {self.name!r}; leave it out or use 'logit_difference'"
            )
        if self.foil < 0 or self.foil == self.target:
            raise InputError(f"foil {self.foil} must be a class index other than the target {self.target}")

    @property
    def is_ratio(self) -> bool:
        """Whether effects are relative changes, ``r'/r - 1``."""
        return self.name in ("probability", "odds")

    def base(self, logits: npt.ArrayLike) -> float:
        """Response of the base run, from its logits [C]."""
        z = self._logits(logits)
        c = self.target
        match self.name:
            case "probability" | "odds":
                return float(np.exp(self.log_base(logits)))
            case "log_odds":
                return _log_odds(z, c)
            case "logit_difference":
                return float(np.mean(z[c] - z[self._foils(len(z))]))
            case _:
                return 0.0

    def log_base(self, logits: npt.ArrayLike) -> float:
        """log r of the base run, for responses on a ratio scale; it does not underflow where r does."""
        z = self._logits(logits)
        if self.name == "probability":
            return float(_log_softmax(z)[self.target])
        return self._representable(_log_odds(z, self.target))

    def weights(self, logits: npt.ArrayLike) -> Float:
        """What the classes of the base run count in ``terms``, by class [C].

        log p for ``probability`` and ``kl``; log p among the classes beside the target, whose own is left at -inf, for
        ``odds`` and ``log_odds``; the share of each foil in their mean for ``logit_difference``; how far each class
        lies below the likeliest for ``flip``.
        """
        z = self._logits(logits)
        match self.name:
            case "probability" | "kl":
                return _log_softmax(z)
            case "flip":
                below: Float = z.max() - z
                return below
        foils = self._foils(len(z))
        out = np.full(len(z), 0.0 if self.name == "logit_difference" else -np.inf)
        out[foils] = 1 / len(foils) if self.name == "logit_difference" else _log_softmax(z[foils])
        return out

    def terms(self, logits: npt.ArrayLike, delta: npt.ArrayLike) -> Terms:
        """Effects of N patched runs of one sample.

        Parameters
        ----------
        logits : float [C]
            Logits of the base run.
        delta : float [N, C]
            Logits of each patched run minus those of the base run, carried as a difference.

        Returns
        -------
        Terms
            float64; exactly 0 where a row of ``delta`` is 0.

        Raises
        ------
        InputError
            Shapes that do not fit, a target or foil outside the classes, values that are not finite.
        """
        z = self._logits(logits)
        change = np.asarray(delta, dtype=np.float64)
        if change.ndim != 2 or change.shape[1] != len(z):
            raise InputError(f"delta has shape {list(change.shape)}; expected [N, {len(z)}], one row a patched run")
        if not np.isfinite(change).all():
            row = int(np.flatnonzero(~np.isfinite(change).all(axis=1))[0])
            raise InputError(
                f"delta row {row} is {change[row].tolist()}, not finite; check that neuron's replacement value and the "
                "dtype of the run"
            )
        match self.name:
            case "probability":
                return self._probability(z, change)
            case "odds":
                return self._odds(z, change)
            case "log_odds":
                return _plain(0.0 - _log_odds_fall(z, change, self.target), self.base(z))
            case "logit_difference":
                foils = self._foils(len(z))
                return _plain((change[:, [self.target]] - change[:, foils]).mean(axis=1), self.base(z))
            case "kl":
                return _plain(_kl(z, change), 0.0)
            case _:
                return _plain(_flip(z, change), 0.0)

    def _probability(self, z: Float, change: Float) -> Terms:
        # log p_c' - log p_c = -log(p_c + Σ_{j≠c} p_j exp(δz_j - δz_c))
        log_p = _log_softmax(z)
        c, rest = self.target, _others(self.target, len(z))
        # (0.0 - x leaves no negative zeros.)
        log_ratio = 0.0 - _log_mean_exp(log_p[rest], change[:, rest] - change[:, [c]], float(log_p[c]))
        return _ratio(log_ratio, float(log_p[c]))

    def _odds(self, z: Float, change: Float) -> Terms:
        return _ratio(0.0 - _log_odds_fall(z, change, self.target), self._representable(_log_odds(z, self.target)))

    @staticmethod
    def _representable(log_odds: float) -> float:
        if log_odds > _CEILING:
            raise InputError(f"the target's odds are exp({log_odds:.0f}), beyond float64; use the response 'log_odds'")
        return log_odds

    def _foils(self, classes: int) -> npt.NDArray[np.intp]:
        return _others(self.target, classes) if self.foil is None else np.array([self.foil])

    def _logits(self, logits: npt.ArrayLike) -> Float:
        z = np.asarray(logits, dtype=np.float64)
        if z.ndim != 1 or len(z) < 2:
            raise InputError(f"logits have shape {list(z.shape)}; expected [C] with at least two classes")
        if not np.isfinite(z).all():
            raise InputError(f"logits {z.tolist()} are not finite; check the model's weights and the dtype of the run")
        for role, index in (("target", self.target), ("foil", self.foil)):
            if index is not None and index >= len(z):
                raise InputError(f"{role} {index} is outside the {len(z)} classes of the model; pass 0..{len(z) - 1}")
        return z


def _others(target: int, classes: int) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.arange(classes) != target)


def _log_softmax(z: Float) -> Float:
    """log p [C]; the entry of the largest logit keeps its relative accuracy when its p is near 1."""
    top = int(np.argmax(z))
    shifted = z - z[top]
    log_top = -np.log1p(np.exp(shifted[_others(top, len(z))]).sum())
    out: Float = shifted + log_top
    return out


def _log_odds(z: Float, target: int) -> float:
    rest = z[_others(target, len(z))]
    peak = rest.max()
    return float((z[target] - peak) - np.log(np.exp(rest - peak).sum()))


def _log_odds_fall(z: Float, change: Float, target: int) -> Float:
    """Fall of the log-odds [N]: log Σ_{j≠c} w_j exp(δz_j - δz_c), with w_j = p_j / (1 - p_c)."""
    rest = _others(target, len(z))
    return _log_mean_exp(_log_softmax(z[rest]), change[:, rest] - change[:, [target]], -np.inf)


def _log_mean_exp(log_w: Float, d: Float, log_rest: float) -> Float:
    """log(w_rest + Σ_j w_j exp(d_j)) [N] for weights that sum to 1: 0 at d = 0, relatively accurate around it.

    Parameters
    ----------
    log_w : float64 [J]
    d : float64 [N, J]
    log_rest : float
        Logarithm of the weight that does not move; -inf for none.
    """
    excess = _weighted(log_w, d, np.expm1(np.minimum(d, _HOT)))
    with np.errstate(divide="ignore"):
        out = np.log1p(np.maximum(excess, -1.0))
    # 1 + excess cancels when the moving weights vanish, and excess may have been cut at the ceiling. The result is not
    # small there, so logarithms may be added.
    far = (excess < -0.5) | (excess > 1.0)
    if far.any():
        parts = log_w + d[far]
        peak = np.maximum(parts.max(axis=1), log_rest)
        out[far] = peak + np.log(np.exp(parts - peak[:, None]).sum(axis=1) + np.exp(log_rest - peak))
    return out


def _weighted(log_w: Float, d: Float, growth: Float) -> Float:
    """Σ_j w_j growth(d_j) [N], where growth is exp minus lower orders; finite, cut at exp(700), for d of any size."""
    terms = np.exp(log_w) * growth
    hot = d > _HOT
    if hot.any():
        terms = np.where(hot, np.exp(np.minimum(log_w + d, _CEILING)), terms)
    out: Float = terms.sum(axis=1)
    return out


def _ratio(log_ratio: Float, log_base: float) -> Terms:
    """Terms of a response on a ratio scale from log(r'/r) [N] and log r."""
    with np.errstate(over="ignore", invalid="ignore"):
        effect = np.expm1(log_ratio)
        # Well above r nothing cancels, and the logarithms reach a finite r' even from an r that has underflowed.
        base = np.exp(log_base)
        difference = np.where(log_ratio > 1.0, np.exp(log_base + log_ratio) - base, base * np.minimum(effect, 2.0))
    return Terms(effect, log_ratio, difference, float(base))


def _plain(change: Float, base: float) -> Terms:
    return Terms(change, np.full(len(change), np.nan), change, base)


def _kl(z: Float, change: Float) -> Float:
    """KL(base || patched) [N] = log Σ p exp(y), y = δz - E_p δz. As E_p y = 0, it is log1p(Σ p (expm1(y) - y))."""
    log_p = _log_softmax(z)
    # Centring on the likeliest class first keeps its y accurate when its p is near 1.
    d = change - change[:, [int(np.argmax(z))]]
    y = d - d @ np.exp(log_p)[:, None]
    near = np.abs(y) < _SERIES
    capped = np.minimum(y, _HOT)
    tail = np.where(near, _expm1_minus(np.where(near, y, 0.0)), np.expm1(capped) - capped)
    excess = _weighted(log_p, y, tail)
    out: Float = np.log1p(excess)
    far = excess > 1.0
    if far.any():
        parts = log_p + y[far]
        peak = parts.max(axis=1)
        out[far] = peak + np.log(np.exp(parts - peak[:, None]).sum(axis=1))
    return out


def _expm1_minus(y: Float) -> Float:
    """expm1(y) - y = y²/2 + y³/6 + ... by Horner's rule, for |y| < 0.25."""
    out = np.zeros_like(y)
    for coefficient in reversed(_SERIES_COEFFICIENTS):
        out = out * y + coefficient
    return out * y * y


def _flip(z: Float, change: Float) -> Float:
    """1.0 where some class overtakes the base prediction b: δz_j - δz_b > z_b - z_j. A tie is no flip."""
    b = int(np.argmax(z))
    out: Float = ((change - change[:, [b]]) > (z[b] - z)).any(axis=1).astype(np.float64)
    return out
