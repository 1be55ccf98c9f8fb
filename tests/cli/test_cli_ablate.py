"""``pyneuro ablate``: a curve from a search folder, as the Python function gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import pyneuro as pn
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


@pytest.fixture
def ablate(run: Call, search: Call, model: Path, corpus: Path, tmp_path: Path) -> Call:
    assert search("--out", tmp_path / "search").status == 0
    few = ("--counts", 5, 20, "--controls", 2, "--samples", 12)
    return lambda *words: run("ablate", tmp_path / "search", "--data", corpus, "--model", model, *few, *words)


def test_the_curve_of_the_python_function(ablate: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "curve.csv"
    done = ablate("--treatment", "HOL", "--intervention", "weaken", "--strength", 0.5, "--out", out)
    assert done.status == 0, done.err
    clf, roles = pn.load(model), pn.data.split_roles(pn.data.read_pairs(corpus), 0)
    ranking = pn.rank(pn.load_result(tmp_path / "search"), treatment="HOL")
    seen = pd.read_csv(out)
    assert seen["neurons"].tolist() == [0, 5, 20] and "12 pairs of the role test" in done.out
    assert (out.parent / "curve.png").read_bytes().startswith(b"\x89PNG")
    every = ablate("--samples", len(roles.test), "--role", "test", "--treatment", "HOL", "--counts", 5)
    want = pn.evaluation.ablation_curve(clf, ranking, roles.test, [5], controls=2).curve
    assert f"{want['score'].iloc[1]:.4f}" in every.out.splitlines()[-1]


def test_nothing_is_written_where_nothing_is_asked_for(ablate: Call, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*")}
    assert ablate().status == 0
    assert {path for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--counts", 0), "counts hold 0"),
        (("--counts", 10**6), "counts hold 1000000"),
        (("--out", "curve.txt"), "written as .csv"),
        (("--by", "best"), "by = 'best'"),
        (("--seed", 1), "seed differs"),
        (("--intervention", "replace"), "invalid choice: 'replace'"),
        (("--strength", 0.5), "strength"),
    ],
)
def test_bad_options_are_named(ablate: Call, words: tuple[object, ...], message: str) -> None:
    failed = ablate(*words)
    assert failed.status == 2 and message in failed.err
