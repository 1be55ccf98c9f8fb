"""How well two halves of the texts agree on a ranking: the noise ceiling of anything compared with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from pyneuro.errors import InputError
from pyneuro.sites import MODULES

Float = npt.NDArray[np.float64]

HALVES = ("nie_half_1", "nie_half_2")
#: Shares of the neurons, in per cent, whose recall is measured.
TOP_PERCENT = (0.1, 1, 5)
#: Value of the column ``module`` in the row of all neurons.
ALL = "all"


def reliability(table: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the halves, by treatment and module and over all modules; see ``Result.reliability``.

    Raises InputError where the table has no means of halves.
    """
    if missing := [column for column in HALVES if column not in table.columns]:
        raise InputError(
            f"this result lacks the columns {', '.join(missing)}; it was made before halves of the samples were kept: "
            "run the search again"
        )
    known = table[table[list(HALVES)].notna().all(axis=1)]
    rows = []
    for treatment in table["treatment"].unique():
        for module, group in _by_module(known[known["treatment"] == treatment]):
            first, second = (group[column].to_numpy() for column in HALVES)
            rows.append({"treatment": treatment, "module": module, "rows": len(group), **agreement(first, second)})
    return pd.DataFrame(rows)


def _by_module(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for module in MODULES:
        if len(group := table[(table["module"] == module).fillna(False)]):
            yield module, group
    yield ALL, table


def agreement(first: Float, second: Float) -> dict[str, float]:
    """Correlations and recalls of two estimates [N] of the same effects; see ``Result.reliability``."""
    pearson = correlation(first, second)
    out = {
        "pearson": pearson,
        "spearman": correlation(stats.rankdata(first), stats.rankdata(second)),
        "reliability": spearman_brown(pearson),
    }
    for kind, a, b in (("absolute", np.abs(first), np.abs(second)), ("signed", first, second)):
        for percent in TOP_PERCENT:
            out[f"recall_{kind}_{percent}"] = recall(a, b, percent / 100)
    return out


def correlation(a: Float, b: Float) -> float:
    """Pearson's r of two vectors [N]; nan for fewer than three entries or where either is constant."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan
    return float(np.corrcoef(a, b)[0, 1])


def spearman_brown(r: float) -> float:
    """Reliability of a mean over all samples from the correlation of two halves (Spearman 1910; Brown 1910).

    ``2r / (1 + r)``; 0 or less says that the halves have nothing in common.
    """
    return 2 * r / (1 + r) if r > -1 else -np.inf if r == -1 else np.nan


def recall(a: Float, b: Float, share: float) -> float:
    """Share of the largest entries of ``a`` [N] that are among as many largest of ``b`` [N]; nan for N = 0.

    Ties at the cut count by their expectation under a random order, in either vector independently.
    """
    if not len(a):
        return np.nan
    k = max(1, round(share * len(a)))
    return float(_chosen(a, k) @ _chosen(b, k)) / k


def _chosen(values: Float, k: int) -> Float:
    """Probability [N] of being among the k largest when ties are broken at random."""
    cut = np.partition(values, -k)[-k]
    above, tied = values > cut, values == cut
    chosen: Float = np.where(tied, (k - above.sum()) / tied.sum(), above)
    return chosen
