"""Several trainings that differ by their seed alone: means, and how far they may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from pyneuro.errors import InputError
from pyneuro.evaluation.hans import Hans

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OverSeeds:
    """Made by ``over_seeds``.

    Attributes
    ----------
    mean, sd : float
        Over seeds; sd with n − 1, NaN for one seed.
    ci_low, ci_high : float
        Student's interval of the mean; NaN for one seed.
    n : int
        Seeds.
    """

    mean: float
    sd: float
    ci_low: float
    ci_high: float
    n: int


@dataclass(frozen=True, eq=False)
class HansOverSeeds:
    """Made by ``hans_over_seeds``.

    Attributes
    ----------
    accuracy : OverSeeds
    cells, subcases : DataFrame
        As of ``Hans``, with ``mean, sd, ci_low, ci_high`` in the place of ``accuracy``; ``n`` counts pairs.
    merge : str
    seeds : int
    """

    accuracy: OverSeeds
    cells: pd.DataFrame
    subcases: pd.DataFrame
    merge: str
    seeds: int


def over_seeds(values: npt.ArrayLike, ci: float = 0.95) -> OverSeeds:
    """Mean over seeds with Student's interval, ``mean ± t_{n−1} sd / √n`` (Student 1908).

    It is the interval of trainings like these, on these test pairs. One seed has none: NaN.

    Parameters
    ----------
    values : float [n]
        One a seed.
    ci : float
        Coverage, in (0, 1).

    Raises InputError for values that are not one-dimensional, empty or not finite, and a coverage out of range.

    Examples
    --------
    >>> found = over_seeds([0.5, 0.6, 0.7])
    >>> round(found.mean, 3), round(found.ci_low, 3), round(found.ci_high, 3)
    (0.6, 0.352, 0.848)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 1 or not len(table):
        raise InputError(f"values are {list(table.shape)}; pass one number a seed")
    if not np.isfinite(table).all():
        raise InputError("values hold NaN or infinite numbers; leave out the seeds that failed, and say so")
    if not 0 < ci < 1:
        raise InputError(f"ci = {ci!r}; pass a coverage between 0 and 1, such as 0.95")
    row = _summary(table[:, None], ci)
    mean, sd, low, high = (float(row[name][0]) for name in ("mean", "sd", "ci_low", "ci_high"))
    return OverSeeds(mean, sd, low, high, len(table))


def hans_over_seeds(runs: Sequence[Hans], ci: float = 0.95) -> HansOverSeeds:
    """HANS of several seeds: mean and interval, all over, by cell and by subcase.

    Accuracies on HANS vary by seed far more than on the data a model was trained on (McCoy, Min & Linzen 2020): pass
    five seeds or more.

    Parameters
    ----------
    runs : sequence of Hans
        One a seed, of the same pairs and the same merge rule.
    ci : float
        Coverage of Student's intervals, as for ``over_seeds``.

    Raises InputError for no runs, and for runs of other pairs or another merge rule.
    """
    if not len(runs):
        raise InputError("no runs; pass what pyneuro.evaluation.hans gives, one a seed")
    first = runs[0]
    for number, run in enumerate(runs):
        if run.merge != first.merge:
            raise InputError(f"run {number} was merged by {run.merge!r} and run 0 by {first.merge!r}; use one rule")
        if not (_keys(run.cells).equals(_keys(first.cells)) and _keys(run.subcases).equals(_keys(first.subcases))):
            raise InputError(f"run {number} is of other pairs than run 0; evaluate every seed on the same pairs")
    return HansOverSeeds(
        over_seeds([run.accuracy for run in runs], ci),
        _table([run.cells for run in runs], ci),
        _table([run.subcases for run in runs], ci),
        first.merge,
        len(runs),
    )


def _keys(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="accuracy")


def _table(tables: Sequence[pd.DataFrame], ci: float) -> pd.DataFrame:
    keys = _keys(tables[0])
    summary = _summary(np.stack([table["accuracy"].to_numpy(dtype=np.float64) for table in tables]), ci)
    return keys.drop(columns="n").assign(**summary, n=keys["n"])


def _summary(values: Float, ci: float) -> dict[str, Float]:
    """Of [seeds, m], each [m]."""
    n = len(values)
    mean = values.mean(0)
    sd = values.std(0, ddof=1) if n > 1 else np.full_like(mean, math.nan)
    half = float(stats.t.ppf(0.5 + ci / 2, n - 1)) * sd / math.sqrt(n) if n > 1 else sd
    return {"mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}
