"""HANS by cell and subcase, both ways of making two classes of three; published predictions where the corpus is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pyneuro.data import Pair, read_pairs
from pyneuro.errors import InputError
from pyneuro.evaluation import HANS_CELLS, hans, merge

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hans_eval.jsonl.gz"
LABELS = {"entailment": 0, "neutral": 1, "contradiction": 2}


def pairs(each: int = 2) -> list[Pair]:
    return [
        Pair(f"{h}-{g}-{i}", "The judge ran.", "A judge ran.", g, {"heuristic": h, "subcase": f"{h[0]}{g[0]}{i % 2}"})
        for h, g in HANS_CELLS
        for i in range(each)
    ]


def test_cells_are_counted_one_by_one() -> None:
    some = pairs(4)
    predicted = np.array(["entailment"] * len(some), dtype=object)
    predicted[-1] = "contradiction"  # constituent, non-entailment: 1 of 4 right
    found = hans(predicted, some)
    assert found.cells["accuracy"].tolist() == [1, 1, 1, 0, 0, 0.25]
    assert list(zip(found.cells["heuristic"], found.cells["label"], strict=True)) == list(HANS_CELLS)
    assert found.accuracy == pytest.approx(3.25 / 6) and found.merge == "none"
    assert found.subcases["n"].sum() == len(some) and len(found.subcases) == 12


def test_the_two_ways_of_merging_differ_where_entailment_leads_without_a_majority() -> None:
    values = [[0.4, 0.35, 0.25], [0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]
    assert merge(values, LABELS, "argmax").tolist() == [True, True, False]
    assert merge(values, LABELS, "sum").tolist() == [False, True, False]
    two = [[0.4, 0.6], [0.7, 0.3]]
    for rule in ("argmax", "sum"):
        assert merge(two, {"entailment": 1, "non-entailment": 0}, rule).tolist() == [True, False]


def test_columns_are_found_by_name() -> None:
    some = pairs(1)
    values = np.tile([0.1, 0.2, 0.7], (6, 1))
    found = hans(values, some, labels={"contradiction": 0, "neutral": 1, "entailment": 2})
    assert found.cells["accuracy"].tolist() == [1, 1, 1, 0, 0, 0] and found.merge == "argmax"


@pytest.mark.skipif(not CORPUS.exists(), reason="the HANS corpus is not beside the project")
def test_published_predictions_give_the_published_cells() -> None:
    with gzip.open(CORPUS, "rt") as file:
        predicted = [json.loads(line)["pred_bert"] for line in file]
    found = hans(predicted, read_pairs(CORPUS))
    want = [0.9464, 0.9932, 0.9844, 0.1640, 0.0386, 0.1612]
    np.testing.assert_allclose(found.cells["accuracy"], want, atol=1e-4)
    assert found.accuracy == pytest.approx(0.54797, abs=1e-5)
    assert len(found.subcases) == 30 and (found.subcases["n"] == 1000).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], "6 predictions for 5 pairs"),
        (lambda p: [Pair("odd", "a b", "a", "entailment"), *p[1:]], "pair 'odd' has no heuristic"),
        (lambda p: [Pair("odd", "a", "a", "neutral", dict(p[0].meta)), *p[1:]], "pair 'odd' has label 'neutral'"),
        (lambda p: [Pair("o", "a", "a", "entailment", {"heuristic": "x", "subcase": "y"}), *p[1:]], "heuristic 'x'"),
        (lambda p: [p[1], *p[1:]], "no pairs of lexical_overlap with label entailment"),
    ],
)
def test_pairs_that_are_not_of_hans_are_refused(change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hans(["entailment"] * 6, change(pairs(1)))


def test_bad_predictions_are_refused() -> None:
    some = pairs(1)
    with pytest.raises(InputError, match="which column is which label"):
        hans(np.full((6, 3), 1 / 3), some)
    with pytest.raises(InputError, match="do not say which"):
        hans(np.full((6, 3), 1 / 3), some, labels={"neutral": 0})
    with pytest.raises(InputError, match="merge rule 'guess'"):
        hans(np.full((6, 3), 1 / 3), some, labels=LABELS, merge_rule="guess")
    with pytest.raises(InputError, match="no probabilities"):
        hans(np.full((6, 3), 2.0), some, labels=LABELS, merge_rule="sum")
    with pytest.raises(InputError, match="NaN"):
        hans(np.full((6, 3), np.nan), some, labels=LABELS)
