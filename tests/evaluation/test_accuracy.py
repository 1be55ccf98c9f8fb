"""Accuracy by class and by word overlap; intervals; paired comparison."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.evaluation import accuracy, overlap_accuracy, paired_bootstrap, predict
from pyneuro.models import Classifier
from tests.tiny import PAIRS, make_tiny


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


PLAIN = [Pair(p.id, p.premise, p.hypothesis, "neutral") for p in PAIRS]


def test_predictions_are_the_models(clf: Classifier) -> None:
    got = predict(clf, PLAIN, batch_size=3)
    for row, pair in zip(got, PLAIN, strict=True):
        np.testing.assert_allclose(row, clf.logits([clf.encode(pair)])[0].double().softmax(-1), rtol=1e-5)


def test_accuracy_by_class(clf: Classifier) -> None:
    labels = ["entailment", "neutral", "contradiction", "neutral"]
    pairs = [Pair(str(i), "a b", "a", label) for i, label in enumerate(labels)]
    predicted = np.eye(3)[[0, 1, 0, 2]]
    found = accuracy(clf, predicted, pairs)
    assert found.accuracy == 0.5 and found.n == 4
    assert dict(zip(found.classes["label"], found.classes["accuracy"], strict=True)) == {
        "entailment": 1.0,
        "neutral": 0.5,
        "contradiction": 0.0,
    }
    assert (found.ci_low, found.ci_high) == pytest.approx((0.150036, 0.849964), abs=1e-5)


def test_accuracy_by_overlap(clf: Classifier) -> None:
    texts = [("a b c d", "a b", 1.0), ("a b c d", "a z", 0.5), ("a b c d", "x y", 0.0), ("a b c d", "a b c y", 0.75)]
    pairs = [Pair(str(i), p, h, "neutral") for i, (p, h, _) in enumerate(texts)]
    found = overlap_accuracy(clf, np.eye(3)[[1, 1, 0, 0]], pairs)
    assert found[["low", "high", "accuracy", "n"]].to_numpy().tolist() == [
        [0.0, 0.2, 0.0, 1],
        [0.4, 0.6, 1.0, 1],
        [0.6, 0.8, 0.0, 1],
        [0.8, 1.0, 1.0, 1],
    ]
    with pytest.raises(InputError, match="bins"):
        overlap_accuracy(clf, np.eye(3)[[1, 1, 0, 0]], pairs, bins=[0.5, 0.5])


def test_bad_input_is_named(clf: Classifier) -> None:
    with pytest.raises(InputError, match=r"predictions are \[2, 3\] for 8 pairs"):
        accuracy(clf, np.eye(3)[:2], PLAIN)
    with pytest.raises(InputError, match="has label 'non-entailment'"):
        accuracy(clf, np.eye(3)[:1], [Pair("a", "b", "c", "non-entailment")])


class TestPairedBootstrap:
    def test_agrees_with_resampling_pair_by_pair(self) -> None:
        rng = np.random.default_rng(0)
        first, second = rng.random(300) < 0.7, rng.random(300) < 0.6
        found = paired_bootstrap(first, second, seed=1)
        index = rng.integers(300, size=(4000, 300))
        plain = first[index].mean(1) - second[index].mean(1)
        assert found.difference == pytest.approx(first.mean() - second.mean())
        assert (found.ci_low, found.ci_high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.012)
        assert found.p_value == pytest.approx(2 * min((plain <= 0).mean(), (plain >= 0).mean()), abs=0.03)

    def test_equal_models_do_not_differ(self) -> None:
        right = np.array([True, False] * 20)
        found = paired_bootstrap(right, right)
        assert (found.difference, found.ci_low, found.ci_high, found.p_value) == (0, 0, 0, 1)

    def test_bad_input_is_named(self) -> None:
        with pytest.raises(InputError, match=r"first is \[2\] and second \[3\]"):
            paired_bootstrap([True, False], [True, False, True])
        with pytest.raises(InputError, match="resamples = 5"):
            paired_bootstrap([True], [True], resamples=5)
