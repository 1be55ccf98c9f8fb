"""``pyneuro evaluate``: what it prints is what the Python functions say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pyneuro as pn
from pyneuro.mitigation import Weakening
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


@pytest.fixture
def evaluate(run: Call, model: Path, corpus: Path) -> Call:
    return lambda *words: run("evaluate", "--model", model, "--data", corpus, *words)


@pytest.fixture(scope="module")
def hans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs in the columns of HANS."""
    rows = [
        {
            "pairID": f"ex{i}",
            "sentence1": f"The doctor near the actor saw the lawyer {i}.",
            "sentence2": "The doctor saw the lawyer.",
            "gold_label": label,
            "heuristic": heuristic,
            "subcase": f"{heuristic}_{label}",
        }
        for i, (heuristic, label) in enumerate(2 * list(pn.evaluation.HANS_CELLS))
    ]
    path = tmp_path_factory.mktemp("hans") / "hans.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_accuracy_by_label_and_overlap(evaluate: Call, model: Path, corpus: Path) -> None:
    found = json.loads(evaluate("--format", "json").out)
    clf, pairs = pn.load(model), pn.data.read_pairs(corpus)
    predicted = pn.evaluation.predict(clf, pairs)
    wanted = pn.evaluation.accuracy(clf, predicted, pairs)
    assert (found["accuracy"], found["ci_low"], found["pairs"]) == (wanted.accuracy, wanted.ci_low, 120)
    assert found["by label"] == wanted.classes.to_dict("records")
    cells = pn.evaluation.overlap_accuracy(clf, predicted, pairs, scorer="clark")
    other = json.loads(evaluate("--format", "json", "--scorer", "clark").out)
    assert other["by word overlap (clark) and label"] == cells.to_dict("records")
    text = evaluate().out
    assert f"accuracy {wanted.accuracy:.4f} [{wanted.ci_low:.4f}" in text and "by word overlap (whitespace)" in text


def test_hans_is_known_by_its_columns_and_both_merge_rules_are_shown(run: Call, model: Path, hans: Path) -> None:
    found = json.loads(run("evaluate", "--model", model, "--data", hans, "--format", "json").out)
    clf, pairs = pn.load(model), pn.data.read_pairs(hans)
    predicted = pn.evaluation.predict(clf, pairs)
    for rule in pn.evaluation.MERGES:
        wanted = pn.evaluation.hans(predicted, pairs, labels=clf.label_index, merge_rule=rule)
        assert found[f"accuracy, merge rule '{rule}'"] == wanted.accuracy
        assert [cell[rule] for cell in found["by heuristic and label"]] == wanted.cells["accuracy"].tolist()
    text = run("evaluate", "--model", model, "--data", hans).out
    assert "merge rule 'sum'" in text and "lexical_overlap" in text


def test_weakened_neurons_change_the_predictions_written(
    evaluate: Call, model: Path, corpus: Path, tmp_path: Path
) -> None:
    clf, pairs = pn.load(model), pn.data.read_pairs(corpus)
    weakening = Weakening.of(clf, ["L1.AO.*"], 0.0)
    path = weakening.save(tmp_path / "w.json")
    found = evaluate("--weaken", path, "--predictions", tmp_path / "p.jsonl")
    assert "Weakening(12 neurons by 0, linear)" in found.out
    assert evaluate("--predictions", tmp_path / "plain.jsonl").status == 0
    with weakening.on(clf):
        wanted = pn.evaluation.predict(clf, pairs)
    got, plain = (
        pn.reweighting.BiasPredictions.load(tmp_path / n).for_pairs(pairs) for n in ("p.jsonl", "plain.jsonl")
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    assert np.abs(got - plain).max() > 1e-3


def test_pairs_without_labels_are_predicted_only(evaluate: Call, tmp_path: Path) -> None:
    assert evaluate("--columns", "label=", "--predictions", tmp_path / "p.parquet").status == 0
    assert len(pn.reweighting.BiasPredictions.load(tmp_path / "p.parquet")) == 120
    failed = evaluate("--columns", "label=")
    assert failed.status == 2 and "has no labels to compare with" in failed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weaken", "none.json"), "is missing"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--scorer", "best"), "best"),
        (("--predictions", "p.csv"), "written as .jsonl or .parquet"),
    ],
)
def test_bad_options_are_named(evaluate: Call, words: tuple[str, ...], message: str) -> None:
    failed = evaluate(*words)
    assert failed.status == 2 and message in failed.err


def test_a_weakening_of_another_model_is_refused(run: Call, evaluate: Call, model: Path, tmp_path: Path) -> None:
    path = Weakening.of(pn.load(model), ["L1.AO.3"], 0.5).save(tmp_path / "w.json")
    failed = run("evaluate", "--limit", 9, "--weaken", path)
    assert failed.status == 2 and "belongs to a model with digest" in failed.err
