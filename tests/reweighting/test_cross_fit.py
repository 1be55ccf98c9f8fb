"""Cross-fitting: no pair is predicted by a model that saw it, whatever the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from pyneuro.data import Pair, embedded_pairs
from pyneuro.errors import InputError
from pyneuro.reweighting import BiasPredictions, HypothesisModel, OverlapModel, cross_fit
from pyneuro.reweighting.cross_fit import assign_folds

pytest.importorskip("sklearn")


@dataclass
class Memory:
    """A model that is sure of what it saw, and keeps what happened."""

    calls: list[tuple[set[str], set[str]]] = field(default_factory=list)

    def fit(self, pairs: Sequence[Pair]) -> Remembered:
        return Remembered({(p.premise, p.hypothesis) for p in pairs}, {p.id for p in pairs}, self.calls)


@dataclass
class Remembered:
    texts: set[tuple[str, str]]
    ids: set[str]
    calls: list[tuple[set[str], set[str]]]

    def predict(self, pairs: Sequence[Pair]) -> BiasPredictions:
        self.calls.append((self.ids, {p.id for p in pairs}))
        p = [0.99 if (q.premise, q.hypothesis) in self.texts else 0.5 for q in pairs]
        return BiasPredictions([q.id for q in pairs], ["entailment", "non-entailment"], np.c_[p, np.subtract(1, p)])


def test_no_pair_is_predicted_by_a_model_that_saw_it() -> None:
    pairs = list(embedded_pairs(90))
    twins = [Pair(f"twin-{p.id}", f" {p.premise} ", p.hypothesis, p.label) for p in pairs[:20]]
    memory = Memory()
    found = cross_fit(memory, pairs + twins, folds=4)
    assert found.ids == tuple(p.id for p in pairs + twins)
    assert (found.probabilities == 0.5).all()
    assert len(memory.calls) == 4 and not any(seen & predicted for seen, predicted in memory.calls)
    assert set.union(*(predicted for _, predicted in memory.calls)) == set(found.ids)
    assert all(len(seen) + len(predicted) == 110 for seen, predicted in memory.calls)


def test_folds_are_balanced_and_do_not_depend_on_the_order() -> None:
    pairs = list(embedded_pairs(300))
    fold = assign_folds(pairs, 5, seed=0)
    counts = Counter(zip(fold.tolist(), [p.label for p in pairs], strict=True))
    assert len(counts) == 15 and set(counts.values()) == {20}
    back = assign_folds(pairs[::-1], 5, seed=0)
    assert (back[::-1] == fold).all()
    assert (assign_folds(pairs, 5, seed=1) != fold).any()


def test_cross_fitting_is_fitting_on_the_other_folds() -> None:
    pairs = list(embedded_pairs(150))
    found = cross_fit(OverlapModel("overlap"), pairs, folds=3, seed=7)
    fold = assign_folds(pairs, 3, seed=7)
    for number in range(3):
        fitted = OverlapModel("overlap").fit([p for p, f in zip(pairs, fold, strict=True) if f != number])
        inside = [p for p, f in zip(pairs, fold, strict=True) if f == number]
        np.testing.assert_array_equal(found.for_pairs(inside), fitted.predict(inside).probabilities)


def test_what_a_model_learnt_by_heart_is_not_taken_for_a_shortcut() -> None:
    """Random words and random labels: there is nothing to know."""
    rng = np.random.default_rng(0)
    labels = ("entailment", "neutral", "contradiction")
    pairs = [
        Pair(str(i), "x", " ".join(f"w{j}" for j in rng.integers(0, 40, 6)), labels[int(rng.integers(3))])
        for i in range(300)
    ]
    gold = np.array([labels.index(str(p.label)) for p in pairs])
    model = HypothesisModel(c=10.0)

    def accuracy(bias: BiasPredictions) -> float:
        return float((bias.for_pairs(pairs, labels).argmax(1) == gold).mean())

    assert accuracy(model.fit(pairs).predict(pairs)) > 0.9
    assert abs(accuracy(cross_fit(model, pairs)) - 1 / 3) < 0.09


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda p: p, {"folds": 1}, "folds = 1"),
        (lambda p: [*p, p[0]], {}, "same id"),
        (lambda p: p[:3], {"folds": 4}, "3 different pairs for 4 folds"),
        (lambda p: p, {"seed": 0.5}, "seed"),
        (
            lambda p: [q for q in p if q.label != "neutral"] + [q for q in p if q.label == "neutral"][:1],
            {},
            "without fold . the classes are entailment,.*, without fold 0 ",
        ),
    ],
)
def test_bad_input_is_named(change: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cross_fit(OverlapModel("overlap"), change(list(embedded_pairs(90))), **options)
