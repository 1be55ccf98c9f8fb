"""Predictions of bias models: what goes in comes out, joined by id and by class name, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.reweighting import BiasPredictions

CLASSES = ("entailment", "neutral", "contradiction")
TABLE = np.array([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]])
BIAS = BiasPredictions(["a", "b", "c"], CLASSES, TABLE)


def pair(name: str) -> Pair:
    return Pair(name, "It rains.", "It pours.")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_keep_every_bit(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    bias = BiasPredictions([f"é {i}" for i in range(50)], CLASSES, rng.dirichlet([1, 1, 1], 50))
    found = BiasPredictions.load(bias.save(tmp_path / f"bias{suffix}"))
    assert (found.ids, found.classes) == (bias.ids, bias.classes)
    assert found.probabilities.dtype == np.float64 and (found.probabilities == bias.probabilities).all()


def test_files_of_others_are_read_by_column_name(tmp_path: Path) -> None:
    rows = [
        {"label": 1, "p_Not_Entailment": 0.25, "id": 7, "p_ENTAILMENT": 0.75},
        {"p_ENTAILMENT": 1, "p_Not_Entailment": 0, "id": 8},
    ]
    path = tmp_path / "bias.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = BiasPredictions.load(path)
    assert (found.ids, found.classes) == (("7", "8"), ("non-entailment", "entailment"))
    assert found.probabilities.tolist() == [[0.25, 0.75], [0, 1]]


def test_pairs_are_found_by_id_and_classes_by_name() -> None:
    some = [pair("c"), pair("a"), pair("c")]
    np.testing.assert_array_equal(BIAS.for_pairs(some), TABLE[[2, 0, 2]])
    order = {"contradiction": 0, "Neutral": 1, "entailment": 2}
    np.testing.assert_array_equal(BIAS.for_pairs(some, order), TABLE[[2, 0, 2]][:, ::-1])


def test_two_classes_become_three() -> None:
    two = BiasPredictions(["a"], ["non_entailment", "entailment"], [[0.6, 0.4]])
    three = two.three_classes()
    assert three.classes == CLASSES and three.probabilities.tolist() == [[0.4, 0.3, 0.3]]
    np.testing.assert_allclose(np.log(three.probabilities[0, 1:]), np.log(0.6) - np.log(2))


def test_predictions_cannot_be_changed_by_accident() -> None:
    table = TABLE.copy()
    bias = BiasPredictions(["a", "b", "c"], CLASSES, table)
    table[0] = 0
    assert (bias.probabilities == TABLE).all()
    with pytest.raises(ValueError, match="read-only"):
        bias.probabilities[0, 0] = 1


@pytest.mark.parametrize(
    ("ids", "classes", "table", "message"),
    [
        (["a", "b", "a"], CLASSES, TABLE, "more than one row or column has id 'a'; give each id once"),
        (["a", "b", "c"], ("entailment", "entailed", "neutral"), TABLE, "class 'entailment'"),
        (["a", "b"], CLASSES, TABLE, r"\[3, 3\] for 2 ids and 3 classes"),
        (["a", "b", "c"], CLASSES, TABLE * [[1], [2], [1]], "'b' is .* no probabilities .they sum to 2"),
        (["a", "b", "c"], CLASSES, np.where(TABLE == 0.7, np.nan, TABLE), r"'a' is \[0.1, 0.2, nan\]"),
        (["a", "b", "c"], CLASSES, TABLE * [[1], [1], [-1]], "'c' is"),
    ],
)
def test_tables_that_are_no_predictions_are_refused(
    ids: list[str], classes: tuple[str, ...], table: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        BiasPredictions(ids, classes, table)


def test_pairs_without_prediction_are_counted_and_named() -> None:
    some = [pair(name) for name in ("a", "w", "x", "y", "z", "z")]
    with pytest.raises(InputError, match="4 of 5 pairs have no prediction: 'w', 'x', 'y' and 1 more"):
        BIAS.for_pairs(some)


def test_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match="of the classes entailment, neutral, contradiction, and entailment, x are"):
        BIAS.for_pairs([pair("a")], ["entailment", "x"])
    two = BiasPredictions(["a"], ["entailment", "non-entailment"], [[0.6, 0.4]])
    with pytest.raises(InputError, match="three_classes"):
        two.for_pairs([pair("a")], CLASSES)
    with pytest.raises(InputError, match="entailment, non-entailment are asked for"):
        BIAS.three_classes()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "p_x": 0.5, "p_y": 0.5}, {"id": "b", "p_x": 1.0}], r"bias.jsonl:2: no field 'p_y'"),
        ([{"p_x": 0.5, "p_y": 0.5}], "bias.jsonl:1: no field 'id'"),
        ([{"id": "a", "p_x": "0.5", "p_y": 0.5}], "bias.jsonl:1: p_x is '0.5', not a number"),
        ([{"id": "a", "p_x": None, "p_y": 0.5}], "p_x is None"),
        ([{"id": "a", "entailment": 1.0}], "holds no class probabilities"),
        ([{"id": "a", "p_x": float("nan"), "p_y": 0.5}], "bias.jsonl: probabilities: 'a' is"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    path = tmp_path / "bias.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=message):
        BiasPredictions.load(path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"written as .jsonl or .parquet"):
        BIAS.save(tmp_path / "bias.csv")
    with pytest.raises(InputError, match="no file"):
        BiasPredictions.load(tmp_path / "bias.parquet")
    with pytest.raises(InputError, match=r"read from .jsonl and .parquet"):
        BiasPredictions.load(tmp_path / "bias.csv")
    pd.DataFrame({"id": ["a"], "p_x": [0.5], "p_y": [0.25]}).to_parquet(tmp_path / "bias.parquet")
    with pytest.raises(InputError, match=r"bias.parquet: probabilities: 'a' is \[0.5, 0.25\]"):
        BiasPredictions.load(tmp_path / "bias.parquet")
