"""Balanced samples: level classes, shuffled order, and counts in the messages."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyneuro.data.balance import balanced_sample
from pyneuro.data.pairs import Pair, Pairs
from pyneuro.errors import InputError

SIZES = {"entailment": 30, "neutral": 20, "contradiction": 10}
CORPUS = Pairs(
    [Pair(f"{label}{n}", "p", f"h {n}", label) for label, size in SIZES.items() for n in range(size)], "three"
)


@settings(deadline=None)
@given(st.integers(3, 30), st.integers(0, 5))
def test_every_class_gets_the_same_number_once(n: int, seed: int) -> None:
    drawn = balanced_sample(CORPUS, n, seed=seed)
    assert Counter(drawn.labels) == dict.fromkeys(SIZES, n // 3)
    assert len(set(drawn.ids)) == len(drawn) and set(drawn) <= set(CORPUS)


def test_entailment_against_the_rest() -> None:
    drawn = balanced_sample(CORPUS, 40, classes="entailment")
    assert Counter(label == "entailment" for label in drawn.labels) == {True: 20, False: 20}


def test_the_sample_is_not_in_class_order() -> None:
    half = balanced_sample(CORPUS, 30)[:15]
    assert set(half.labels) == set(SIZES)


def test_the_order_of_the_corpus_does_not_matter_and_the_seed_does() -> None:
    assert balanced_sample(CORPUS, 9, seed=1) == balanced_sample(CORPUS[::-1], 9, seed=1)
    assert balanced_sample(CORPUS, 9, seed=1) != balanced_sample(CORPUS, 9, seed=2)


def test_replacement_reaches_beyond_a_small_class_and_scatters_the_copies() -> None:
    drawn = balanced_sample(CORPUS, 90, replacement=True)
    assert Counter(drawn.labels) == dict.fromkeys(SIZES, 30)
    twins = sum(left == right for left, right in pairwise(drawn))
    assert twins < 10, "copies of a pair must not stand side by side"


def test_too_small_a_class_is_named_with_the_counts() -> None:
    with pytest.raises(
        InputError,
        match=r"33 pairs need 11 of each class, but three has 10 of 'contradiction' \(entailment 30, neutral 20, "
        r"contradiction 10\); ask for at most 30, or pass replacement=True",
    ):
        balanced_sample(CORPUS, 33)


@pytest.mark.parametrize("n", [2, 0, -3])
def test_too_small_a_sample_is_refused(n: int) -> None:
    with pytest.raises(InputError, match=rf"n = {n} gives no pair to each of the 3 classes"):
        balanced_sample(CORPUS, n)
