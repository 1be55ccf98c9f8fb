"""``pyneuro top``: rankings of a saved result."""

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
def folder(search: Call, tmp_path: Path) -> Path:
    assert search("--sites", "L1.I.*", "L1.O.*", "--out", tmp_path).status == 0
    return tmp_path


def test_csv_is_the_whole_ranking(run: Call, folder: Path) -> None:
    found = run("top", folder, "-k", 7, "--treatment", "LOL", "--absolute", "--format", "csv")
    expected = pn.load_result(folder).top(7, treatment="LOL", absolute=True)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(found.out)), expected, check_dtype=False)


def test_text_shows_the_main_columns_in_rank_order(run: Call, folder: Path) -> None:
    found = run("top", folder, "-k", 4, "--treatment", "contrast", "--ascending")
    lines = found.out.splitlines()
    assert lines[0].split()[:3] == ["site", "treatment", "nie"]
    expected = pn.load_result(folder).top(4, treatment="contrast", ascending=True)
    assert [line.split()[0] for line in lines[1:]] == list(expected["site"])


def test_the_column_ranked_by_is_shown(run: Call, folder: Path) -> None:
    assert run("top", folder, "--by", "diff_se").out.splitlines()[0].split()[-1] == "diff_se"
    assert run("top", folder, "--by", "layer").status == 0


def test_only_what_is_significant_is_ranked(run: Call, folder: Path) -> None:
    result = pn.load_result(folder)
    q = result.significance("HOL")["q"]
    alpha = float(q.sort_values().iloc[3])
    found = run("top", folder, "--treatment", "HOL", "--significant", repr(alpha), "--format", "csv")
    assert sorted(pd.read_csv(io.StringIO(found.out))["site"]) == sorted(result.frame()["site"][: len(q)][q <= alpha])
    assert run("top", folder, "--significant", 1e-300).out.startswith("nothing is significant")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--by", "beauty"), "by = 'beauty'"),
        (("--treatment", "MOL"), "treatment 'MOL'"),
        (("-k", 0), "k = 0"),
        (("--significant", 5), "alpha = 5.0"),
    ],
)
def test_questions_without_answer_are_refused(run: Call, folder: Path, words: tuple[object, ...], named: str) -> None:
    found = run("top", folder, *words)
    assert found.status == 2
    assert found.err.startswith("pyneuro: error: ")
    assert named in found.err


def test_a_folder_without_result_is_named(run: Call, tmp_path: Path) -> None:
    assert "is no folder" in run("top", tmp_path / "absent").err
    assert "manifest.json" in run("top", tmp_path).err
