"""``pyneuro means``: a values file, and beside it which pairs it is made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import pyneuro as pn
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


def test_it_writes_values_and_both_manifests(run: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "mnli.npz"
    found = run(
        *("means", "--data", corpus, "--model", model, "--low", 0, "--high", 1, "--mode", "absolute"),
        *("--convention", "hook", "--out", file),
    )
    assert found.status == 0, found.err
    written = [file, file.with_name("mnli.treatment.json"), file.with_name("mnli.roles.json")]
    assert found.out.splitlines() == [str(path) for path in written]
    values = pn.Values.load(file)
    values.check(pn.load(model), "hook")
    assert json.loads(written[1].read_text())["thresholds"] == {"HOL": 1.0, "LOL": 0.0}
    assert json.loads(written[2].read_text())["kind"] == "roles"


def test_percentiles_are_the_default_and_ties_are_warned_of(
    run: Call, model: Path, corpus: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="score exactly"):
        found = run("means", "--data", corpus, "--model", model, "--out", tmp_path / "values.npz")
    assert found.status == 0
    manifest = json.loads((tmp_path / "values.treatment.json").read_text())
    assert manifest["mode"] == "percentile"
    assert manifest["bounds"] == {"HOL": 80.0, "LOL": 20.0}


def test_a_place_that_cannot_be_written_is_told_before_any_work(run: Call, corpus: Path) -> None:
    found = run("means", "--data", "absent.jsonl", "--out", corpus / "values.npz")
    assert found.status == 2
    assert "cannot be written" in found.err


def test_out_is_needed(run: Call) -> None:
    assert run("means").status == 2
