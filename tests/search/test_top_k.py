"""The k strongest neurons against the exhaustive ranking."""

from __future__ import annotations

import numpy as np
import pytest

import pyneuro as pn
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.search import top_k
from tests.search.oracle import random_values
from tests.tiny import PAIRS, SamplePair, make_tiny

LOOK = {"backend": "reference", "precision": "float64", "sites": ["L0.AO.*", "L0.I.*", "L1.*.*", "L2.AO.*"]}


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0)


@pytest.fixture(scope="module")
def many() -> list[SamplePair]:
    return [SamplePair(f"{a}-{b}", PAIRS[a].premise, PAIRS[(a + b) % 8].hypothesis) for a in range(8) for b in range(2)]


@pytest.fixture(scope="module")
def values(clf: Classifier) -> pn.Values:
    return random_values(clf, "HOL", "LOL")


@pytest.fixture(scope="module")
def exact(clf: Classifier, many: list[SamplePair], values: pn.Values) -> pn.Result:
    return pn.search(clf, many, values, **LOOK)


@pytest.mark.parametrize("treatment", ["HOL", "contrast"])
@pytest.mark.parametrize("order", ["absolute", "signed", "negative"])
@pytest.mark.parametrize("k", [1, 7])
def test_it_finds_them(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result, treatment: str, order: str, k: int
) -> None:
    found = top_k(clf, many, values, k, treatment=treatment, order=order, **LOOK)
    wanted = exact.top(k, treatment=treatment, absolute=order == "absolute", ascending=order == "negative")
    assert set(found.neurons["site"]) == set(wanted["site"])
    assert not len(found.undecided)
    truth = wanted.set_index("site")["nie"].reindex(found.neurons["site"])
    score = truth.abs() if order == "absolute" else truth
    slack = 1e-9 * truth.abs().max()
    assert (found.neurons["low"].to_numpy() <= score + slack).all()
    assert (score <= found.neurons["high"].to_numpy() + slack).all()


def test_a_budget_leaves_some_undecided(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result
) -> None:
    found = top_k(clf, many, values, 5, budget=1, **LOOK)
    assert len(found.neurons) == 0
    wanted = set(exact.top(5, treatment="contrast", absolute=True)["site"])
    assert wanted <= set(found.undecided["site"])


def test_the_default_is_the_contrast_and_seeds_repeat(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result
) -> None:
    first, second = (top_k(clf, many, values, 3, seed=5, **LOOK).neurons for _ in range(2))
    assert first.equals(second)
    assert set(first["site"]) == set(exact.top(3, treatment="contrast", absolute=True)["site"])
    assert np.isfinite(first[["nie", "low", "high"]]).all().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k = 0"),
        ({"k": 10_000}, "below the number of neurons"),
        ({"k": 2.5}, "k = 2.5"),
        ({"delta": 0.0}, "delta"),
        ({"delta": 1.0}, "delta"),
        ({"order": "best"}, "order"),
        ({"treatment": "MID"}, "treatment"),
    ],
)
def test_bad_requests_are_refused(
    clf: Classifier, many: list[SamplePair], values: pn.Values, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        top_k(clf, many, values, **{**LOOK, **options})
