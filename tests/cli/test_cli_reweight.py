"""``pyneuro reweight``: weights of training pairs, in a file that is also one of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyneuro as pn
from pyneuro.reweighting import BiasPredictions, OverlapModel, cross_fit, sample_weights
from tests.cli.conftest import Outcome

pytest.importorskip("sklearn")
Call = Callable[..., Outcome]


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_weights_are_those_of_a_cross_fitted_bias_model(run: Call, corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "w.jsonl"
    done = run("reweight", "--data", corpus, "--bias", "overlap", "--folds", 3, "--seed", 2, "--out", out)
    assert done.status == 0, done.err
    pairs = pn.data.read_pairs(corpus)
    bias = cross_fit(OverlapModel("overlap"), pairs, 3, 2)
    gold = np.array([bias.classes.index(p.label) for p in pairs])
    rows = read(out)
    assert [row["id"] for row in rows] == list(pairs.ids)
    np.testing.assert_allclose([row["weight"] for row in rows], sample_weights(bias.probabilities, gold))
    np.testing.assert_allclose([row["bias"] for row in rows], bias.probabilities[np.arange(len(pairs)), gold])
    np.testing.assert_allclose(BiasPredictions.load(out).for_pairs(pairs, bias.classes), bias.probabilities)
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG" and "equal ones" in done.out


def test_probabilities_may_come_from_a_file_and_two_classes_are_shared_out(
    run: Call, corpus: Path, tmp_path: Path
) -> None:
    pairs = pn.data.read_pairs(corpus)
    p = np.random.default_rng(0).uniform(0.1, 0.9, len(pairs))
    path = BiasPredictions(pairs.ids, ["entailment", "non-entailment"], np.stack([p, 1 - p], 1)).save(
        tmp_path / "b.jsonl"
    )
    options = ("--kind", "inverse_propensity", "--trim", 80, "--out", tmp_path / "w.jsonl")
    assert run("reweight", "--data", corpus, "--probabilities", path, *options).status == 0
    b = np.where([pair.label == "entailment" for pair in pairs], p, (1 - p) / 2)
    wanted = np.minimum(1 / b, np.percentile(1 / b, 80))
    np.testing.assert_allclose([row["weight"] for row in read(tmp_path / "w.jsonl")], wanted / wanted.mean())


@pytest.mark.parametrize("bias", ["clark2019_words", "hypothesis"])
def test_other_bias_models(run: Call, corpus: Path, tmp_path: Path, bias: str) -> None:
    done = run("reweight", "--data", corpus, "--bias", bias, "--direction", "amplify", "--out", tmp_path / "w.jsonl")
    assert done.status == 0, done.err
    assert len(read(tmp_path / "w.jsonl")[0]) == 4 + 3


def test_the_model_of_the_notes_reads_parses(run: Call, tmp_path: Path) -> None:
    rows = [
        {"id": str(i), "premise": p, "hypothesis": h, "label": label, "sentence1_parse": parse}
        for i, (p, parse, h, label) in enumerate(
            4
            * [
                ("a dog ran", "(S (NP (D a) (N dog)) (V ran))", "a dog", "entailment"),
                ("a dog ran", "(S (NP (D a) (N dog)) (V ran))", "it snows", "neutral"),
                ("a dog ran off", "(S (NP (D a) (N dog)) (V ran) (P off))", "dog ran", "contradiction"),
            ]
        )
    ]
    for row, word in zip(rows, "abcdefghijkl", strict=True):
        row["premise"] = f"{row['premise']} {word}"  # different pairs, for the folds
    data = tmp_path / "p.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    options = ("--bias", "notes", "--folds", 2, "--out", tmp_path / "w.jsonl")
    assert run("reweight", "--data", data, *options).status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--bias", "overlap", "--out", "w.csv"), "written as .jsonl"),
        (("--out", "w.jsonl"), "one of the arguments --bias --probabilities is required"),
        (("--probabilities", "none.jsonl", "--out", "w.jsonl"), "no file 'none.jsonl'"),
        (("--bias", "overlap", "--folds", "1", "--out", "w.jsonl"), "folds = 1"),
        (("--bias", "notes", "--out", "w.jsonl"), "parse"),
    ],
)
def test_bad_options_are_named(
    run: Call, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = run("reweight", "--data", corpus, *words)
    assert failed.status == 2 and message in failed.err


def test_labels_that_the_bias_model_has_not_are_named(run: Call, corpus: Path, tmp_path: Path) -> None:
    pairs = pn.data.read_pairs(corpus)
    table = np.full((len(pairs), 2), 0.5)
    path = BiasPredictions(pairs.ids, ["entailment", "neutral"], table).save(tmp_path / "b.jsonl")
    failed = run("reweight", "--data", corpus, "--probabilities", path, "--out", tmp_path / "w.jsonl")
    assert failed.status == 2 and "has label 'contradiction', and the bias model knows" in failed.err
