"""One number of a classifier on some pairs: what ablations are drawn in and strengths are chosen by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.evaluation.accuracy import accuracy, overlap_accuracy, predict
from pyneuro.evaluation.hans import hans
from pyneuro.models import Classifier

Metric = Callable[[Classifier, Sequence[Pair]], float]


def plain_accuracy(clf: Classifier, pairs: Sequence[Pair]) -> float:
    """Share of right pairs."""
    return accuracy(clf, predict(clf, pairs), pairs).accuracy


def overlap_balanced_accuracy(clf: Classifier, pairs: Sequence[Pair]) -> float:
    """Mean over the cells of word overlap (five bins) by gold label: the few pairs on which overlap misleads count as
    much as the many on which it helps."""
    return float(overlap_accuracy(clf, predict(clf, pairs), pairs)["accuracy"].mean())


def hans_accuracy(clf: Classifier, pairs: Sequence[Pair]) -> float:
    """Mean over the six cells of HANS, merge rule "argmax"."""
    return hans(predict(clf, pairs), pairs, labels=clf.label_index).accuracy


METRICS: Mapping[str, Metric] = MappingProxyType(
    {"accuracy": plain_accuracy, "overlap_balanced": overlap_balanced_accuracy, "hans": hans_accuracy}
)


def find_metric(metric: str | Metric) -> Metric:
    """A metric of ``METRICS`` by name, or one's own, with what it returns checked.

    Raises InputError for an unknown name; the metric found raises it where its value is not a finite number.
    """
    if isinstance(metric, str) and metric not in METRICS:
        raise InputError(f"metric = {metric!r} is not one of {', '.join(METRICS)}, nor a callable")
    measure = METRICS[metric] if isinstance(metric, str) else metric

    def checked(clf: Classifier, pairs: Sequence[Pair]) -> float:
        value = float(measure(clf, pairs))
        if not math.isfinite(value):
            raise InputError(f"the metric {metric_name(metric)} is {value} on these {len(pairs)} pairs; look at both")
        return value

    return checked


def metric_name(metric: str | Metric) -> str:
    """What reports call it."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", "callable")
