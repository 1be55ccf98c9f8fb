"""``pyneuro sets``: halves, bisect, greedy, top-k, into the same folders as a search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import pyneuro as pn
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]
BOUNDS = ("--low", 0, "--high", 1, "--mode", "absolute")


@pytest.fixture
def sets(run: Call, model: Path, corpus: Path) -> Call:
    """``pyneuro sets WHAT ...`` on three samples of the small corpus and model."""

    def call(what: str, *words: object) -> Outcome:
        return run("sets", what, *words, "--data", corpus, "--model", model, "--samples", 3, *BOUNDS)

    return call


def test_halves_of_every_layer_are_a_result_folder(sets: Call, run: Call, model: Path, corpus: Path, tmp_path: Path):
    done = sets("halves", "--out", tmp_path / "h", "--response", "log_odds")
    assert done.status == 0, done.err
    result = pn.load_result(tmp_path / "h")
    assert result.sets() == pn.halves(pn.load(model).shape) and len(result.sets()) == 24
    assert "L1.I.0-11" in done.out and (tmp_path / "h" / "roles.json").exists()
    values = pn.Values.load(tmp_path / "h" / "values.npz")
    roles = pn.data.split_roles(pn.data.read_pairs(corpus), 0)
    samples = pn.data.balanced_sample(roles.nie, 3, seed=0)
    again = pn.search(pn.load(model), samples, values, sites=result.sets(), response="log_odds")
    pd.testing.assert_frame_equal(again.frame(), result.frame())
    assert sets("halves", "--out", tmp_path / "h").status == 2  # never overwritten
    assert sets("halves", "--out", tmp_path / "h", "--response", "log_odds", "--resume").status == 0
    assert "L1.I.0-11" in run("top", tmp_path / "h", "-k", 48).out


def test_bisect_prints_its_tree_and_keeps_it(sets: Call, tmp_path: Path) -> None:
    done = sets("bisect", "--start", "L1.I.*", "L1.O.*", "--size", 3, "--treatment", "HOL", "--out", tmp_path / "b")
    assert done.status == 0, done.err
    tree = pd.read_csv(tmp_path / "b" / "tree.csv")
    assert tree["size"].iloc[0] == 36 and tree["followed"].sum() == tree["depth"].max() + 1
    assert done.out.splitlines()[0].split() == ["site", "size", "effect", "followed"]
    assert list(pn.load_result(tmp_path / "b").sets()) == tree["site"].tolist()
    assert "  L1.I.0 to L1.I.17" in done.out


def test_greedy_takes_neurons_named_or_the_strongest_of_a_search(sets: Call, search: Call, tmp_path: Path) -> None:
    named = sets("greedy", "--candidates", "L1.O.1,L1.O.2", "L0.V.3", "-k", 2, "--out", tmp_path / "g")
    assert named.status == 0, named.err
    steps = pd.read_csv(tmp_path / "g" / "steps.csv")
    assert steps["step"].tolist() == [1, 2] and set(steps["site"]) <= {"L1.O.1", "L1.O.2", "L0.V.3"}
    assert list(pn.load_result(tmp_path / "g").sets()) == ["step 1", "step 2"]

    assert search("--out", tmp_path / "s").status == 0
    found = sets("greedy", "--search", tmp_path / "s", "--pool", 4, "-k", 2, "--order", "signed")
    strongest = set(map(str, pn.rank(pn.load_result(tmp_path / "s"), order="signed").first(4)))
    assert found.status == 0 and {line.split()[1] for line in found.out.splitlines()[1:3]} <= strongest
    assert f"values: {tmp_path / 's' / 'values.npz'}" in found.err
    failed = sets("greedy", "--search", tmp_path / "s", "--convention", "hook")
    assert failed.status == 2 and "--convention linear" in failed.err


def test_the_strongest_k_are_searched_on_other_pairs_beside_controls(
    sets: Call, search: Call, corpus: Path, tmp_path: Path
) -> None:
    assert search("--out", tmp_path / "s", "--convention", "hook").status == 0
    done = sets("top-k", tmp_path / "s", "-k", 2, 5, "--controls", 3, "--out", tmp_path / "t")
    assert done.status == 0, done.err
    result = pn.load_result(tmp_path / "t")
    ranking = pn.rank(pn.load_result(tmp_path / "s"))
    assert result.sets() == pn.with_controls(pn.top_k_sets(ranking, [2, 5]), 3, 0)
    assert result.manifest["settings"]["convention"] == "hook"
    tune = pn.data.split_roles(pn.data.read_pairs(corpus), 0).tune
    assert set(result.manifest["ids"]) <= set(tune.ids)
    assert "control_mean" in done.out and done.out.count("top 5") == 3

    seen = sets("top-k", tmp_path / "s", "-k", 2, "--role", "nie")
    assert seen.status == 2 and "among those that the ranking was found on" in seen.err
    other = sets("top-k", tmp_path / "s", "-k", 2, "--seed", 1)
    assert other.status == 2 and "seed differs" in other.err


def test_another_model_is_refused(run: Call, search: Call, corpus: Path, tmp_path: Path) -> None:
    assert search("--out", tmp_path / "s", "--intervention", "remove").status == 0
    failed = run("sets", "top-k", tmp_path / "s", "-k", 2, "--data", corpus, "--intervention", "remove")
    assert failed.status == 2 and "of another model" in failed.err


def test_interventions_without_values(sets: Call, search: Call, tmp_path: Path) -> None:
    assert search("--out", tmp_path / "s", "--intervention", "remove").status == 0
    done = sets("top-k", tmp_path / "s", "-k", 1, "--controls", 2, "--intervention", "remove")
    assert done.status == 0, done.err
    assert sets("bisect", "--start", "L1.I.*", "--intervention", "remove").status == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("halves", "--resume"), "--resume needs the folder"),
        (("bisect", "--size", 0), "size = 0"),
        (("bisect", "--start", "L9.I.*"), "L9.I.*"),
        (("bisect", "--bootstrap", 20), "--bootstrap has no meaning"),
        (("greedy",), "one of the arguments --candidates --search is required"),
        (("greedy", "--candidates", "L0.Q.1", "-k", 2), "k = 2"),
        (("top-k", "nowhere", "-k", 2), "is no folder"),
    ],
)
def test_bad_options_are_named(sets: Call, words: tuple[object, ...], message: str) -> None:
    failed = sets(*words)
    assert failed.status == 2 and message in failed.err
