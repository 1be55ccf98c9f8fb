"""Whether one model does better than another on the same pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError


@dataclass(frozen=True)
class PairedBootstrap:
    """Made by ``paired_bootstrap``.

    Attributes
    ----------
    difference : float
        Accuracy of the first minus that of the second.
    ci_low, ci_high : float
        Percentile interval over resampled pairs.
    p_value : float
        Two-sided: twice the smaller share of resamples at or beyond 0, at most 1.
    n, resamples : int
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n: int
    resamples: int


def paired_bootstrap(
    first: npt.ArrayLike, second: npt.ArrayLike, *, resamples: int = 10_000, ci: float = 0.95, seed: int = 0
) -> PairedBootstrap:
    """Bootstrap over pairs of the difference in accuracy (Efron & Tibshirani 1993; Koehn 2004).

    Parameters
    ----------
    first, second : bool [n]
        Whether each model is right, pair by pair.

    Raises InputError for arrays of different length or without pairs, and a number of resamples below 100.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise InputError(
            f"first is {list(a.shape)} and second {list(b.shape)}; pass whether each is right, pair by pair"
        )
    if resamples < 100:
        raise InputError(f"resamples = {resamples}; pass 100 or more")
    n = len(a)
    gains, losses = int((a & ~b).sum()), int((b & ~a).sum())
    # Only how often each of three outcomes is drawn matters: a multinomial, whatever n.
    drawn = np.random.default_rng(seed).multinomial(n, [gains / n, losses / n, 1 - (gains + losses) / n], resamples)
    differences = (drawn[:, 0] - drawn[:, 1]) / n
    low, high = np.quantile(differences, [0.5 - ci / 2, 0.5 + ci / 2])
    tail = min((differences <= 0).mean(), (differences >= 0).mean())
    return PairedBootstrap((gains - losses) / n, float(low), float(high), float(min(2 * tail, 1.0)), n, resamples)
