"""Accuracy of a classifier: all over, by gold class, by word overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats

from pyneuro.data import Pair, overlap_scores
from pyneuro.errors import InputError
from pyneuro.models import Classifier

Float = npt.NDArray[np.float64]
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Made by ``accuracy``.

    Attributes
    ----------
    accuracy, ci_low, ci_high : float
        Share of right pairs, and its Wilson interval.
    classes : DataFrame
        ``label, accuracy, n`` by gold label.
    n : int
    """

    accuracy: float
    ci_low: float
    ci_high: float
    classes: pd.DataFrame
    n: int


def predict(clf: Classifier, pairs: Sequence[Pair], *, batch_size: int = 64) -> Float:
    """Probabilities [n, K] by class, in the order of the model's outputs. Batched by length; pairs are encoded as
    ``clf.encode`` does."""
    encodings = [clf.encode(pair) for pair in pairs]
    order = sorted(range(len(encodings)), key=lambda i: len(encodings[i]))
    out = np.empty((len(encodings), len(clf.label_index)))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        logits = clf.logits([encodings[i] for i in part]).double()
        out[part] = torch.softmax(logits, -1).cpu().numpy()
    return out


def accuracy(clf: Classifier, predicted: npt.ArrayLike, pairs: Sequence[Pair], ci: float = 0.95) -> Accuracy:
    """Share of pairs whose largest class is the gold one.

    Parameters
    ----------
    clf : Classifier
        Whose outputs these are: it says which column is which label.
    predicted : float [n, K]
    pairs : sequence of Pair
        With labels of the model's.

    Raises InputError for another number of predictions than pairs, and for labels that the model has not.
    """
    gold, right = _right(clf, predicted, pairs)
    interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(ci, method="wilson")
    classes = pd.DataFrame({"label": gold, "right": right}).groupby("label", sort=False)["right"]
    return Accuracy(
        float(right.mean()),
        float(interval.low),
        float(interval.high),
        classes.agg(accuracy="mean", n="size").reset_index(),
        len(right),
    )


def overlap_accuracy(
    clf: Classifier,
    predicted: npt.ArrayLike,
    pairs: Sequence[Pair],
    bins: Sequence[float] = BINS,
    scorer: str = "whitespace",
) -> pd.DataFrame:
    """Accuracy by word overlap and gold label: ``low, high, label, accuracy, n``; the last bin includes its end."""
    gold, right = _right(clf, predicted, pairs)
    edges = np.asarray(bins, dtype=float)
    if len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise InputError(f"bins = {list(bins)}; pass edges that rise, such as {list(BINS)}")
    scores = np.asarray(overlap_scores(pairs, scorer))
    number = np.where(scores == edges[-1], len(edges) - 2, np.searchsorted(edges, scores, side="right") - 1)
    inside = (number >= 0) & (number < len(edges) - 1)
    table = pd.DataFrame({"bin": number, "label": gold, "right": right})[inside]
    found = table.groupby(["bin", "label"])["right"].agg(accuracy="mean", n="size").reset_index()
    found.insert(0, "low", edges[found["bin"]])
    found.insert(1, "high", edges[found["bin"] + 1])
    return found.drop(columns="bin")


def _right(clf: Classifier, predicted: npt.ArrayLike, pairs: Sequence[Pair]) -> tuple[list[str], npt.NDArray[np.bool_]]:
    values = np.asarray(predicted, dtype=np.float64)
    if values.shape != (len(pairs), len(clf.label_index)) or not len(pairs):
        raise InputError(
            f"predictions are {list(values.shape)} for {len(pairs)} pairs and {len(clf.label_index)} classes; pass a "
            "row a pair"
        )
    for pair in pairs:
        if pair.label is None or pair.label not in clf.label_index:
            raise InputError(
                f"pair {pair.id!r} has label {pair.label!r} and the model has {', '.join(clf.label_index)}; for HANS "
                "use pyneuro.evaluation.hans"
            )
    gold = [str(pair.label) for pair in pairs]
    return gold, values.argmax(1) == np.array([clf.label_index[label] for label in gold])
