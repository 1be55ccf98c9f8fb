"""``pyneuro compare``: agreement of two saved results."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import pyneuro as pn
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


@pytest.fixture
def folders(search: Call, tmp_path: Path) -> tuple[Path, Path]:
    """The same effects in two precisions."""
    for precision in ("bf16", "float64"):
        options = ("--backend", "reference", "--precision", precision, "--out", tmp_path / precision)
        assert search("--sites", "L1.I.*", "L1.O.*", *options).status == 0
    return tmp_path / "bf16", tmp_path / "float64"


def test_csv_is_the_table(run: Call, folders: tuple[Path, Path]) -> None:
    found = run("compare", *folders, "--by", "log_nie", "--format", "csv")
    wanted = pn.compare(*map(pn.load_result, folders), by="log_nie").table
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(found.out)), wanted, check_dtype=False)
    assert found.err == ""


def test_text_shows_costs_and_every_treatment(run: Call, folders: tuple[Path, Path]) -> None:
    found = run("compare", *folders)
    assert found.out == pn.compare(*map(pn.load_result, folders)).text()
    lines = found.out.splitlines()
    assert lines[0].split() == ["side", "method", "samples", "seconds", "patched", "runs", "forwards/sample"]
    for treatment in ("HOL", "LOL", "contrast"):
        assert f"{treatment}: nie against the truth" in lines
        assert f"{treatment}: noise ceiling, one half of the truth's samples against the other" in lines


def test_other_samples_are_warned_of(run: Call, search: Call, folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert search("--sites", "L1.I.*", "L1.O.*", "--seed", 7, "--out", tmp_path / "other").status == 0
    found = run("compare", tmp_path / "other", folders[1], "--format", "csv")
    assert found.status == 0
    assert "pyneuro: warning: the samples of the two differ" in found.err
    assert "! the samples of the two differ" in run("compare", tmp_path / "other", folders[1]).out


def test_what_cannot_be_compared_is_refused(
    run: Call, search: Call, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    assert search("--sites", "L1.I.*", "--out", tmp_path / "fewer").status == 0
    found = run("compare", tmp_path / "fewer", folders[1])
    assert (found.status, found.out) == (2, "")
    assert "sites: 24 sites and 36 sites" in found.err
    assert "by = 'beauty'" in run("compare", *folders, "--by", "beauty").err
    assert "is no folder" in run("compare", tmp_path / "absent", folders[1]).err
