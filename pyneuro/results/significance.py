"""Which effects are more than the noise of a finite number of texts, with the number of tests accounted for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from pyneuro.errors import InputError, is_number

Float = npt.NDArray[np.float64]

#: False discovery rate where none is named.
ALPHA = 0.05


def p_values(nie: Float, se: Float, n: npt.NDArray[np.int64]) -> Float:
    """Two-sided p-values [N] of mean effects 0, by Student's t with n - 1 degrees of freedom.

    They agree with the intervals of ``Moments.summary``: p < 0.05 where the 95 % interval is clear of 0. An effect of
    exactly 0 on every sample has p = 1, another effect without any spread p = 0; nan below two samples.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((nie == 0) & (se == 0), 0.0, np.abs(nie) / se)
        p = 2.0 * stats.t.sf(t, n - 1.0)
    return np.where(n > 1, p, np.nan)


def q_values(p: Float) -> Float:
    """Adjusted p-values [N] of Benjamini & Hochberg (1995); nan where p is, and not counted as a test.

    Rejecting where q <= alpha keeps the expected share of false discoveries at alpha or below, for tests that are
    independent or positively dependent (Benjamini & Yekutieli 2001).
    """
    q, known = np.full(len(p), np.nan), ~np.isnan(p)
    if known.any():
        q[known] = stats.false_discovery_control(p[known])
    return q


def significance(table: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """Rows of a result with their p- and q-values; every treatment in the table is a family of tests of its own.

    Parameters
    ----------
    table : DataFrame
        Columns ``site treatment nie se n`` and any others.
    alpha : float
        False discovery rate of the column ``significant``.

    Returns
    -------
    DataFrame
        Columns ``site treatment nie se n p q significant``, in the rows and under the index of ``table``.

    Raises
    ------
    InputError
        ``alpha`` is not between 0 and 1.
    """
    if not is_number(alpha) or not 0 < alpha < 1:
        raise InputError(f"alpha = {alpha!r} is not a false discovery rate; pass a number between 0 and 1, as {ALPHA}")
    out = table[["site", "treatment", "nie", "se", "n"]].copy()
    out["p"] = p_values(*(out[column].to_numpy() for column in ("nie", "se", "n")))
    out["q"] = out.groupby("treatment", sort=False)["p"].transform(lambda p: q_values(p.to_numpy()))
    out["significant"] = out["q"] <= alpha
    return out
