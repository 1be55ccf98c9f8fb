"""Features of bias models, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.reweighting import FEATURE_SETS, overlap_features

PAIRS = [
    Pair("a", "The old dog runs home .", "A dog runs !"),
    Pair("b", "The dog runs.", "The dog runs.", meta={"premise_parse": "(S (NP (DT The) (NN dog)) (VP (VBZ runs)))"}),
    Pair("c", "Cats!", "Dogs and cats."),
]
VECTORS = {"dog": [2.0, 0.0], "dogs": [1.0, 1.0], "cats": [0.0, 3.0], "runs": [-1.0, 0.0], "home": [0.0, 0.0]}


def test_words_in_the_premise() -> None:
    found = overlap_features(PAIRS, "clark2019_words")
    assert found.columns.tolist() == list(FEATURE_SETS["clark2019_words"].columns)
    np.testing.assert_allclose(
        found.to_numpy(), [[0, 0, 2 / 3, math.log(2)], [1, 1, 1, 0], [0, 0, 1 / 3, 0]], atol=1e-15
    )


def test_similarities() -> None:
    found = overlap_features(PAIRS, "clark2019", vectors=VECTORS)
    want = [
        [2 / 3, 1, 1],  # dog and runs find themselves; "a" has no vector and counts in the mean alone
        [2 / 3, 1, 1],
        [(math.sqrt(0.5) + 1) / 3, math.sqrt(0.5), 1],
    ]
    np.testing.assert_allclose(found.iloc[:, 4:].to_numpy(), want)
    assert found.iloc[:, :4].equals(overlap_features(PAIRS, "clark2019_words"))
    one = overlap_features([Pair("d", "Cats sleep.", "Dogs."), Pair("e", "x", "y")], "clark2019", vectors=VECTORS)
    np.testing.assert_allclose(one.iloc[:, 4:].to_numpy(), [[math.sqrt(0.5), math.sqrt(0.5), 0], [0, 0, 0]])


def test_overlap_by_any_scorer() -> None:
    assert overlap_features(PAIRS, "overlap")["overlap"].tolist() == [2 / 3, 1, 0]  # "cats." is not "cats!"
    assert overlap_features(PAIRS, "overlap", scorer="clark")["overlap"].tolist() == [2 / 3, 1, 1 / 3]
    assert overlap_features(PAIRS[1:2], "notes").iloc[0].tolist() == [1, 1, 1]


def test_what_features_need_is_named() -> None:
    with pytest.raises(InputError, match="features = 'guess' is not one of clark2019, clark2019_words, notes, overlap"):
        overlap_features(PAIRS, "guess")
    with pytest.raises(InputError, match="pass vectors"):
        overlap_features(PAIRS, "clark2019")
    with pytest.raises(InputError, match="pair 'a' has no parse"):
        overlap_features(PAIRS, "notes")
