"""Shallow classifiers as bias models."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.evaluation import predict
from pyneuro.models import Classifier
from pyneuro.reweighting import ShallowModel, cross_fit
from tests.tiny import PAIRS, fingerprint, make_tiny

pytest.importorskip("accelerate")
LABELS = ["entailment", "neutral", "contradiction"] * 3


@pytest.fixture(scope="module")
def start() -> Classifier:
    return make_tiny(layers=1, hidden=24, heads=3, intermediate=40)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """48 pairs; the label is told by the hypothesis."""
    return [Pair(f"{a}-{b}", PAIRS[a].premise, PAIRS[b].hypothesis, LABELS[b]) for a in range(8) for b in range(6)]


def test_it_learns_and_its_start_stays(start: Classifier, pairs: list[Pair]) -> None:
    before = fingerprint(start.model)
    fitted = ShallowModel(start, samples=40, epochs=6, lr=1e-2, batch_size=8).fit(pairs)
    assert fingerprint(start.model) == before
    found = fitted.predict(pairs)
    assert found.classes == tuple(start.label_index)
    gold = [start.label_index[str(pair.label)] for pair in pairs]
    assert (found.probabilities.argmax(1) == gold).mean() > 0.6
    assert len(set(fitted.seen)) == 40 and set(fitted.seen) < {pair.id for pair in pairs}
    np.testing.assert_allclose(found.probabilities, predict(fitted.clf, pairs), atol=1e-12)


def test_a_seed_gives_one_model(start: Classifier, pairs: list[Pair]) -> None:
    found = [ShallowModel(start, samples=16, epochs=1, seed=seed).fit(pairs).predict(pairs) for seed in (0, 0, 1)]
    assert (found[0].probabilities == found[1].probabilities).all()
    assert (found[0].probabilities != found[2].probabilities).any()


def test_it_can_be_cross_fitted(start: Classifier, pairs: list[Pair]) -> None:
    found = cross_fit(ShallowModel(start, samples=None, epochs=1), pairs, folds=2)
    assert found.ids == tuple(pair.id for pair in pairs)


def test_bad_input_is_named(start: Classifier, pairs: list[Pair]) -> None:
    with pytest.raises(InputError, match="samples = 2000 of 48 pairs"):
        ShallowModel(start).fit(pairs)
    with pytest.raises(InputError, match="label 'non-entailment' and the model has entailment, neutral"):
        ShallowModel(start, samples=None).fit([Pair("a", "a", "b", "non-entailment")])
