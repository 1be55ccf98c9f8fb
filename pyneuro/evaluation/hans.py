"""HANS (McCoy, Pavlick & Linzen 2019): three heuristics, each with pairs where it is right and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.data import Pair
from pyneuro.data.probabilities import check_probabilities
from pyneuro.errors import InputError

Merge = Literal["argmax", "sum"]
MERGES: tuple[Merge, ...] = get_args(Merge)
HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
GOLD = ("entailment", "non-entailment")
HANS_CELLS: tuple[tuple[str, str], ...] = tuple((heuristic, gold) for gold in GOLD for heuristic in HEURISTICS)

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Hans:
    """Made by ``hans``.

    Attributes
    ----------
    accuracy : float
        Mean over the six cells, which is the share of right pairs where cells are equally large, as in HANS.
    cells : DataFrame
        ``heuristic, label, accuracy, n``: three heuristics by two gold labels.
    subcases : DataFrame
        ``heuristic, label, subcase, accuracy, n``.
    merge : str
        The rule by which three classes became two, or "none".
    """

    accuracy: float
    cells: pd.DataFrame
    subcases: pd.DataFrame
    merge: str


def hans(
    predicted: npt.ArrayLike | Sequence[str],
    pairs: Sequence[Pair],
    *,
    labels: Mapping[str, int] | None = None,
    merge_rule: Merge = "argmax",
) -> Hans:
    """Accuracy by heuristic, gold label and subcase.

    Parameters
    ----------
    predicted : float [n, K], or n labels
        Probabilities (or scores, with the rule "argmax") by class, or labels: "entailment", or anything else for
        non-entailment.
    pairs : sequence of Pair
        Of HANS, in the same order: gold labels "entailment" and "non-entailment", ``meta["heuristic"]`` and
        ``meta["subcase"]``.
    labels : mapping of str to int
        Column of every label, as ``clf.label_index``; for probabilities.
    merge_rule : "argmax" or "sum"
        As for ``merge``.

    Raises
    ------
    InputError
        For another number of predictions than pairs, probabilities without `labels`, pairs that are not of HANS, and a
        cell without pairs.
    """
    values = np.asarray(predicted)
    if len(values) != len(pairs):
        raise InputError(f"{len(values)} predictions for {len(pairs)} pairs; pass one a pair, in the same order")
    if values.ndim == 2:
        if labels is None:
            raise InputError("which column is which label? pass labels=clf.label_index")
        entailed, rule = merge(values, labels, merge_rule), str(merge_rule)
    else:
        entailed, rule = values == "entailment", "none"
    table = pd.DataFrame(
        {
            "heuristic": [_meta(pair, "heuristic") for pair in pairs],
            "subcase": [_meta(pair, "subcase") for pair in pairs],
            "label": [_gold(pair) for pair in pairs],
        }
    )
    table["right"] = entailed == (table["label"] == "entailment").to_numpy()
    if unknown := sorted(set(table["heuristic"]) - set(HEURISTICS)):
        raise InputError(f"heuristic {unknown[0]!r} is not one of HANS's: {', '.join(HEURISTICS)}")
    cells = pd.DataFrame(table.groupby(["heuristic", "label"])["right"].agg(accuracy="mean", n="size"))
    if missing := [cell for cell in HANS_CELLS if cell not in cells.index]:
        raise InputError(f"no pairs of {missing[0][0]} with label {missing[0][1]}; pass all six cells of HANS")
    cells = cells.reindex(pd.MultiIndex.from_tuples(HANS_CELLS, names=["heuristic", "label"])).reset_index()
    subcases = table.groupby(["heuristic", "label", "subcase"])["right"].agg(accuracy="mean", n="size").reset_index()
    return Hans(float(cells["accuracy"].mean()), cells, subcases, rule)


def is_hans(pairs: Sequence[Pair]) -> bool:
    """Whether these are pairs of HANS, and of nothing else."""
    return all(pair.label in GOLD and pair.meta.get("heuristic") in HEURISTICS for pair in pairs)


def merge(values: npt.ArrayLike, labels: Mapping[str, int], rule: Merge = "argmax") -> Bools:
    """Whether entailment is predicted, [n], from three classes or two.

    Parameters
    ----------
    values : float [n, K]
    labels : mapping of str to int
    rule : "argmax" or "sum"
        "argmax": the largest class, neutral and contradiction being non-entailment (McCoy et al. 2019). "sum":
        P(entailment) against the sum of the others (Clark et al. 2019), which predicts non-entailment more often. They
        are one for two classes. "sum" needs probabilities.

    Raises InputError for an unknown rule, a column that is not there, and values that are no probabilities with "sum".
    """
    if rule not in MERGES:
        raise InputError(f"merge rule {rule!r} is not one of {', '.join(MERGES)}")
    table = np.asarray(values, dtype=np.float64) if rule == "argmax" else check_probabilities("predicted", values)
    column = labels.get("entailment")
    if column is None or table.ndim != 2 or not 0 <= column < table.shape[1]:
        raise InputError(f"labels {dict(labels)} do not say which of {table.shape[-1]} columns is entailment")
    if not np.isfinite(table).all():
        raise InputError("predictions hold NaN or infinite values")
    if rule == "argmax":
        return np.asarray(table.argmax(1) == column)
    return np.asarray(table[:, column] > table.sum(1) - table[:, column])


def _meta(pair: Pair, name: str) -> str:
    if name not in pair.meta:
        raise InputError(f"pair {pair.id!r} has no {name}; pass pairs of HANS, read with pn.data.read_pairs")
    return str(pair.meta[name])


def _gold(pair: Pair) -> str:
    if pair.label not in GOLD:
        raise InputError(f"pair {pair.id!r} has label {pair.label!r}; HANS has {' and '.join(GOLD)}")
    return pair.label
