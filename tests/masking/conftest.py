"""A small classifier, and labelled pairs it can learn."""

from __future__ import annotations

import pytest

from pyneuro.data import Pair
from pyneuro.models import Classifier
from tests.tiny import PAIRS, make_tiny


@pytest.fixture
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """48 pairs; the label is told by the hypothesis."""
    texts = {
        p.hypothesis: label for p, label in zip(PAIRS, ["entailment", "neutral", "contradiction"] * 3, strict=False)
    }
    return [
        Pair(f"{a}-{b}", PAIRS[a].premise, PAIRS[b].hypothesis, texts[PAIRS[b].hypothesis])
        for a in range(8)
        for b in range(6)
    ]
