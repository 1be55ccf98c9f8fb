"""Overlap scores against values counted by hand."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyneuro.data.overlap import OVERLAP_SCORERS, overlap, overlap_scores, register_scorer
from pyneuro.data.pairs import Pair
from pyneuro.errors import InputError

words = st.lists(st.sampled_from(["a", "b", "B", "c.", ".", "?", "don't", "é", "x!"]), max_size=7).map(" ".join)


@pytest.mark.parametrize(
    ("scorer", "premise", "hypothesis", "score"),
    [
        # Lone . ? ! are no words; attached punctuation stays and makes another word.
        ("whitespace", "The dog sleeps .", "the Cat sleeps !", 2 / 3),
        ("whitespace", "A dog sleeps.", "A dog sleeps", 2 / 3),
        ("whitespace", "a b", "a a c", 2 / 3),  # every occurrence counts
        ("whitespace", "a", " . ? ! ", 0.0),
        ("whitespace", "a", "", 0.0),
        ("whitespace", "", "a", 0.0),
        ("whitespace", "a\tb\n c", "c , b", 2 / 3),  # a lone comma is a word
        ("clark", "A dog sleeps.", "A dog, sleeps!", 1.0),
        ("clark", "he isn't here", "He isn't", 1.0),
        ("clark", "he isn't here", "is he", 1 / 2),
        ("clark", "a b", "a a c", 2 / 3),
        ("clark", "a", "...", 0.0),
        ("jaccard", "a b c", "b c d", 2 / 4),
        ("jaccard", "a a a", "a", 1.0),
        ("jaccard", "!", "?", 0.0),
        ("full", "the doctor near the actor danced", "The actor danced.", 1.0),
        ("full", "the doctor danced", "The actor danced.", 0.0),
        ("full", "a", "", 0.0),
        ("qqp", "a b c d", "a e", 1 / 2),
        ("qqp", "a b c", "a b", 1.0),
        ("qqp", "a b", "B A a", 2.0),
        ("qqp", "a", "", 0.0),
        ("matches", "a a b c", "a b", 3 / 4),
        ("matches", "a a", "a a", 2.0),
        ("matches", "", "", 0.0),
    ],
)  # fmt: skip
def test_score(scorer: str, premise: str, hypothesis: str, score: float) -> None:
    assert overlap((premise, hypothesis), scorer) == pytest.approx(score, abs=1e-15)


def test_whitespace_is_the_default_and_pairs_are_taken_too() -> None:
    assert overlap(Pair("a", "A dog sleeps.", "A dog sleeps")) == pytest.approx(2 / 3)


def test_the_directed_scores_are_not_symmetric_and_jaccard_is() -> None:
    premise, hypothesis = "a b c d", "a e"
    assert overlap((premise, hypothesis), "clark") != overlap((hypothesis, premise), "clark")
    assert overlap((premise, hypothesis), "jaccard") == overlap((hypothesis, premise), "jaccard")


@settings(deadline=None)
@given(words, words)
def test_bounded_scores_stay_in_their_bounds(premise: str, hypothesis: str) -> None:
    for scorer, top in {"whitespace": 1, "clark": 1, "jaccard": 1, "full": 1, "qqp": 2}.items():
        assert 0 <= overlap((premise, hypothesis), scorer) <= top


@settings(deadline=None)
@given(words)
def test_a_copy_of_the_premise_has_full_overlap(premise: str) -> None:
    scores = {scorer: overlap((premise, premise), scorer) for scorer in OVERLAP_SCORERS}
    if scores["clark"]:
        assert (scores["clark"], scores["jaccard"], scores["full"], scores["qqp"]) == (1, 1, 1, 2)
        assert scores["whitespace"] == 1


@settings(deadline=None)
@given(words, words)
def test_full_is_a_clark_score_of_one(premise: str, hypothesis: str) -> None:
    assert overlap((premise, hypothesis), "full") == (overlap((premise, hypothesis), "clark") == 1)


def test_scores_of_many_pairs_are_float64_in_order() -> None:
    scores = overlap_scores([("a b", "a"), Pair("x", "a b", "c"), ("a b", "a c")])
    assert scores.dtype == np.float64 and scores.tolist() == [1.0, 0.0, 0.5]
    assert overlap_scores([]).shape == (0,)


def test_an_own_function_is_a_scorer() -> None:
    assert overlap(("abc", "ab"), lambda premise, hypothesis: len(hypothesis) / len(premise)) == pytest.approx(2 / 3)


def test_an_unknown_scorer_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'nltk' is not known; use one of whitespace, clark, jaccard, full"):
        overlap(("a", "b"), "nltk")
    with pytest.raises(InputError, match="a name or a function"):
        overlap(("a", "b"), 3)  # type: ignore[arg-type]


def test_what_is_not_a_pair_is_refused_with_its_position() -> None:
    for wrong in ("a b", ("a",), ("a", 1), None):
        with pytest.raises(InputError, match="element 1 is neither"):
            overlap_scores([("a", "b"), wrong])  # type: ignore[list-item]


def test_a_score_that_is_not_finite_is_refused_with_its_texts() -> None:
    with pytest.raises(InputError, match=r"gave nan for premise 'some' and hypothesis 'text'"):
        overlap(("some", "text"), lambda premise, hypothesis: math.nan)


def test_registering_makes_a_name_and_never_replaces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("pyneuro.data.overlap")  # the package's own ``overlap`` is the function
    monkeypatch.setattr(module, "_SCORERS", dict(module._SCORERS))
    register_scorer("length")(lambda premise, hypothesis: float(len(hypothesis)))
    assert overlap(("a", "abc"), "length") == 3
    with pytest.raises(InputError, match="'whitespace' exists already"):
        register_scorer("whitespace")(lambda premise, hypothesis: 0.0)


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        OVERLAP_SCORERS["whitespace"] = lambda premise, hypothesis: 0.0  # type: ignore[index]
