"""Matched random controls: other neurons, as many in every layer and module, to report a set beside.

A set of neurons moves a classifier by being large and by sitting in certain layers and modules. What the choice of its
very neurons adds is seen only beside random sets that are equal in both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from pyneuro.data.draw import check_seed, draw_key
from pyneuro.errors import InputError, is_whole
from pyneuro.results import CONTRAST, Result
from pyneuro.search.ranking import Int, Ranking
from pyneuro.sites import ModelShape, NeuronSet

CONTROLS = 10
_CONTROL = re.compile(r"(.*) control \d+")


@dataclass(frozen=True)
class BesideControls:
    """A number of a set beside the same number of its controls. Made by ``beside_controls``.

    Attributes
    ----------
    value : float
        Of the set.
    controls : tuple of float [n]
    mean, sd : float
        Over the controls; sd with n − 1, NaN for one control.
    low, high : float
        Student's prediction interval, mean ± t sd √(1 + 1/n): one more control would lie inside with the coverage
        asked for. NaN for one control.
    p_value : float
        Two-sided, of the value being one more control: twice the smaller of (1 + #{control ≥ value}) / (n + 1) and
        (1 + #{control ≤ value}) / (n + 1), at most 1 (Phipson & Smyth 2010). It cannot fall below 2 / (n + 1).
    """

    value: float
    controls: tuple[float, ...]
    mean: float
    sd: float
    low: float
    high: float
    p_value: float


def matched_controls(neurons: NeuronSet, n: int = CONTROLS, seed: int = 0) -> tuple[NeuronSet, ...]:
    """Random sets with as many neurons in every (layer, module) as a set has.

    They share no neuron with the set where a module has enough others; else they take all others and fill up from the
    set. Controls may share neurons with each other.

    Parameters
    ----------
    neurons : NeuronSet
    n : int
    seed : int
        The same seed gives the same controls on any machine.

    Raises InputError for an empty set, and for an n that is no whole number from 1.
    """
    return tuple(NeuronSet(neurons.shape, ids) for ids in _drawn(neurons.shape, neurons.ids, n, seed))


def matched_rankings(ranking: Ranking, n: int = CONTROLS, seed: int = 0) -> tuple[Ranking, ...]:
    """Random rankings whose first k neurons, for every k, are spread over (layer, module) as those of a ranking.

    Otherwise as ``matched_controls``.
    """
    drawn = _drawn(ranking.shape, ranking.ids, n, seed)
    return tuple(Ranking(ranking.shape, ids, ranking.convention, ranking.model_digest) for ids in drawn)


def with_controls(sets: Mapping[str, NeuronSet], n: int = CONTROLS, seed: int = 0) -> dict[str, NeuronSet]:
    """Sets for ``pyneuro.search(sites=...)``, each followed by its matched controls, "<name> control 0" and so on.

    ``controls_table`` reads the result. Raises InputError as ``matched_controls``, and for a set named like a control.
    """
    out: dict[str, NeuronSet] = {}
    for name, neurons in sets.items():
        if _CONTROL.fullmatch(name):
            raise InputError(f"set {name!r} is named like a control; rename it")
        out[name] = neurons
        out |= {f"{name} control {i}": control for i, control in enumerate(matched_controls(neurons, n, seed))}
    return out


def controls_table(result: Result, by: str = "nie", ci: float = 0.95) -> pd.DataFrame:
    """Effects of sets beside those of their controls, from a search on ``with_controls(sets)``.

    Parameters
    ----------
    result : Result
    by : str
        Any numeric column of the result.
    ci : float
        Coverage of the prediction interval.

    Returns
    -------
    DataFrame
        A row a set and treatment (and the contrast): ``set, treatment, size``, the column `by`, ``control_mean,
        control_low, control_high, p_value, controls`` (their number). See ``BesideControls``.

    Raises
    ------
    InputError
        For a result of single neurons, an unknown column, and a set without controls.
    """
    sizes = {name: len(members) for name, members in result.sets().items()}
    names = [name for name in sizes if not _CONTROL.fullmatch(name)]
    tables = {t: rows for t, rows in result.frame().groupby("treatment", sort=False)}
    if result.has_contrast:
        tables[CONTRAST] = result.contrast()
    rows = []
    for treatment, table in tables.items():
        if by not in table.columns:
            raise InputError(f"by = {by!r} is not a column of this result; choose one of {', '.join(table.columns)}")
        effects = dict(zip(table["site"].tolist(), table[by].tolist(), strict=True))
        for name in names:
            of = [value for other, value in effects.items() if _is_control(other, name)]
            if not of:
                raise InputError(f"set {name!r} has no controls; search on pyneuro.with_controls(sets)")
            found = beside_controls(effects[name], of, ci)
            row = {"set": name, "treatment": treatment, "size": sizes[name], by: found.value}
            rows.append(row | _columns(found))
    return pd.DataFrame(rows)


def measure_beside_controls(
    measure: Callable[[NeuronSet], float], neurons: NeuronSet, n: int = CONTROLS, seed: int = 0, ci: float = 0.95
) -> BesideControls:
    """Any number of a set, and of its matched controls: ``measure`` is called with the set and with each of them."""
    controls = matched_controls(neurons, n, seed)
    return beside_controls(measure(neurons), [measure(control) for control in controls], ci)


def beside_controls(
    value: float, controls: Sequence[float] | npt.NDArray[np.float64], ci: float = 0.95
) -> BesideControls:
    """Put a number beside those of its controls.

    Parameters
    ----------
    value : float
    controls : float [n]
    ci : float
        Coverage of the prediction interval, in (0, 1).

    Raises InputError for no controls, numbers that are not finite, and a coverage out of range.

    Examples
    --------
    >>> found = beside_controls(0.9, [0.5, 0.6, 0.7])
    >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.p_value
    (0.6, 0.103, 1.097, 0.5)
    """
    table = np.asarray(controls, dtype=np.float64)
    if table.ndim != 1 or not len(table) or not np.isfinite([value, *table]).all():
        raise InputError(f"value {value} and controls {list(controls)}; pass finite numbers, one control or more")
    if not 0 < ci < 1:
        raise InputError(f"ci = {ci!r}; pass a coverage between 0 and 1, such as 0.95")
    n = len(table)
    mean, sd = float(table.mean()), float(table.std(ddof=1)) if n > 1 else math.nan
    half = float(stats.t.ppf(0.5 + ci / 2, n - 1)) * sd * math.sqrt(1 + 1 / n) if n > 1 else math.nan
    tail = min(1 + int((table >= value).sum()), 1 + int((table <= value).sum())) / (n + 1)
    return BesideControls(float(value), tuple(table.tolist()), mean, sd, mean - half, mean + half, min(2 * tail, 1.0))


def _columns(found: BesideControls) -> dict[str, float]:
    return {
        "control_mean": found.mean,
        "control_low": found.low,
        "control_high": found.high,
        "p_value": found.p_value,
        "controls": len(found.controls),
    }


def _is_control(name: str, of: str) -> bool:
    match = _CONTROL.fullmatch(name)
    return match is not None and match[1] == of


def _drawn(shape: ModelShape, ids: Int, n: int, seed: int) -> list[Int]:
    """n times as many ids, each from the (layer, module) of the one in its place."""
    if not is_whole(n) or n < 1:
        raise InputError(f"n = {n!r} controls; pass a whole number from 1")
    if not len(ids):
        raise InputError("no neurons to draw controls for; pass at least one")
    check_seed(seed)
    out = [np.empty_like(ids) for _ in range(n)]
    for layer, module in shape.groups():
        start, width = shape.offset(layer, module), shape.width(module)
        places = np.flatnonzero((ids >= start) & (ids < start + width))
        if not len(places):
            continue
        own = ids[places] - start
        others = np.setdiff1d(np.arange(width), own)
        for number, drawn in enumerate(out):
            shuffled = [
                index
                for pool in (others, own)  # its own neurons only where the others run out
                for _, index in sorted(
                    (draw_key(seed, "controls", str(number), f"L{layer}.{module}.{i}"), i) for i in pool
                )
            ]
            drawn[places] = start + np.array(shuffled[: len(places)])
    return out
