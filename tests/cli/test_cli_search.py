"""``pyneuro search``: what it computes, writes and refuses, and how it goes on after a stop."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pyneuro as pn
from pyneuro.search.driver import Sweep
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


def test_it_computes_what_the_python_functions_compute(search: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    found = search("--sites", "L0.I.*,L1.AO.3", "--response", "log_odds", "--out", tmp_path, "--seed", 3)
    assert found.status == 0, found.err
    clf = pn.load(model)
    roles = pn.data.split_roles(pn.data.read_pairs(corpus), seed=3)
    sets = pn.data.treatment_sets(roles.treatment, 0, 1, mode="absolute", seed=3)
    samples = pn.data.balanced_sample(roles.nie, 6, seed=3)
    values = pn.mean_activations(clf, sets)
    expected = pn.search(clf, samples, values, sites=["L0.I.*", "L1.AO.3"], response="log_odds")
    pd.testing.assert_frame_equal(pn.load_result(tmp_path).frame(), expected.frame())
    assert pn.summary_text(expected) in found.out


def test_the_folder_holds_everything_needed_to_check_or_repeat_it(search: Call, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "first"
    assert search("--sites", "L*.Q.*", "--out", out).status == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "contrast.parquet",
        "figures",
        "manifest.json",
        "neurons.parquet",
        "roles.json",
        "treatment.json",
        "values.npz",
    ]
    assert len(list((out / "figures").glob("*.png"))) == 4
    roles = json.loads((out / "roles.json").read_text())["roles"]
    treatment = json.loads((out / "treatment.json").read_text())["sets"]
    searched = json.loads((out / "manifest.json").read_text())["ids"]
    assert set(searched) <= set(roles["nie"]["ids"])
    assert set(treatment["HOL"]["ids"]) | set(treatment["LOL"]["ids"]) <= set(roles["treatment"]["ids"])
    assert pn.Values.load(out / "values.npz").counts == {name: s["n"] for name, s in treatment.items()}


def test_without_out_it_prints_and_leaves_nothing(
    search: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = search("--sites", "L1.O.*", "-k", 3)
    assert found.status == 0
    assert "HOL - LOL: 3 largest |contrast|" in found.out
    assert not any(tmp_path.iterdir())


def test_values_may_come_from_a_file(run: Call, search: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    file = tmp_path / "values.npz"
    bounds = ("--low", 0, "--high", 1, "--mode", "absolute")
    assert run("means", "--data", corpus, "--model", model, *bounds, "--out", file).status == 0
    assert search("--sites", "L1.I.*", "--out", tmp_path / "a").status == 0
    assert search("--sites", "L1.I.*", "--out", tmp_path / "b", "--values", file).status == 0
    a, b = (pn.load_result(tmp_path / name).frame() for name in "ab")
    pd.testing.assert_frame_equal(a, b)
    kept = json.loads((tmp_path / "b" / "treatment.json").read_text())
    assert kept == json.loads((tmp_path / "values.treatment.json").read_text())

    (tmp_path / "values.treatment.json").unlink()
    assert search("--sites", "L1.I.0", "--out", tmp_path / "c", "--values", file).status == 0
    assert not (tmp_path / "c" / "treatment.json").exists()


def test_an_intervention_without_values_needs_no_treatment_sets(search: Call, tmp_path: Path) -> None:
    found = search("--intervention", "weaken", "--strength", 0.5, "--sites", "L0.V.*", "--out", tmp_path)
    assert found.status == 0, found.err
    assert pn.load_result(tmp_path).treatments == ["weaken"]
    assert not (tmp_path / "values.npz").exists()


def test_embedded_pairs_and_the_bundled_model_are_the_defaults(run: Call, tmp_path: Path) -> None:
    found = run("search", "--samples", 3, "--limit", 180, "--sites", "L5.O.99", "L5.I.1", "--out", tmp_path)
    assert found.status == 0, found.err
    assert "overlap >= 1" in found.err
    manifest = pn.load_result(tmp_path).manifest
    assert manifest["settings"]["model"]["name"] == "nli-minilm-l6"
    assert json.loads((tmp_path / "roles.json").read_text())["source"] == "embedded_pairs(n=180, seed=0)"


def test_dropped_pairs_are_counted_aloud(run: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    rows[0]["label"] = "-"
    file = tmp_path / "pairs.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    bounds = ("--low", 0, "--high", 1, "--mode", "absolute")
    found = run("search", "--data", file, "--model", model, "--samples", 3, *bounds, "--sites", "L0.O.1")
    assert "119 pairs; dropped 1 (label '-')" in found.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--sites", "L9.I.3"), "layers 0..1"),
        (("--sites", "nonsense"), "site 'nonsense' is not understood"),
        (("--target", "maybe"), "no label 'maybe'"),
        (("--response", "vibes"), "response 'vibes'"),
        (("--backend", "cuda:99"), "CUDA"),
        (("--precision", "int8"), "precision 'int8'"),
        (("--convention", "residual"), "convention 'residual'"),
        (("--method", "guess"), "method 'guess'"),
        (("--intervention", "weaken"), "needs its factor"),
        (("--scorer", "eyes"), "overlap scorer 'eyes'"),
        (("--preset", "acl2023", "--low", 20, "--high", 80), "preset 'acl2023'"),
        (("--memory", "1KB"), "memory budget"),
        (("--samples", 600), "ask for at most"),
        (("--samples", 0), "pass 1 or more"),
        (("--resume",), "pass --out"),
        (("-k", 0), "pass 1 or more"),
        (("--values", "nowhere.npz"), "does not exist"),
        (("--labels", "entailment=7"), "entailment"),
        (("--limit", 3), "pairs"),
        (("--token", 999), "token 999"),
        (("--max-length", 1), "max_length=1"),
    ],
)
def test_input_that_cannot_be_used_is_named_in_one_line(search: Call, words: tuple[object, ...], named: str) -> None:
    found = search(*words)
    assert found.status == 2
    last = found.err.splitlines()[-1]
    assert last.startswith("pyneuro: error: ")
    assert named in last
    assert found.out == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--ci", 2), "ci = 2.0"),
        (("--probability-floor", 3), "probability_floor = 3.0"),
        (("--foil", "neutral"), "foil 'neutral'"),
        (("--target", "maybe"), "no label 'maybe'"),
    ],
)
def test_the_response_is_checked_before_the_means_are_taken(
    search: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], named: str
) -> None:
    monkeypatch.setattr("pyneuro.cli.search.mean_activations", lambda *_, **__: pytest.fail("the means were taken"))
    found = search(*words)
    assert found.status == 2
    assert named in found.err


@pytest.mark.parametrize("content", [None, "no values"])
def test_a_values_file_is_read_before_anything_else(
    search: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    monkeypatch.setattr("pyneuro.cli.search.read_corpus", lambda _: pytest.fail("the corpus was read"))
    file = tmp_path / "values.npz"
    if content is not None:
        file.write_text(content)
    found = search("--values", file, "--out", tmp_path / "out")
    assert found.status == 2
    assert str(file) in found.err
    assert not (tmp_path / "out").exists()


def test_data_and_folders_that_cannot_be_used_are_named(run: Call, model: Path, tmp_path: Path) -> None:
    def error(*words: object) -> str:
        found = run("search", *words)
        assert found.status == 2
        assert "Traceback" not in found.err
        return found.err.splitlines()[-1]

    assert "no file" in error("--data", tmp_path / "absent.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "premise": "p", "hypothesis": "h", "label": "neutral"}\n{"id": "b", \n')
    assert "broken.jsonl:2" in error("--data", broken)
    assert "config.json" in error("--model", tmp_path, "--limit", 90)
    assert "cannot be written" in error("--out", broken / "results")
    assert "--split has no meaning" in error("--split", "train")


def test_a_stopped_search_goes_on_to_the_same_numbers(
    search: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--sites", "L0.I.*", "L1.Q.*")
    assert search(*words, "--out", tmp_path / "whole").status == 0

    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        stop_after(patch, samples=2)
        stopped = search(*words, "--out", out)
    assert stopped.status == 130
    assert "--resume" in stopped.err.splitlines()[-1]
    assert str(out) in stopped.err.splitlines()[-1]

    again = search(*words, "--out", out)
    assert again.status == 2
    assert "pass --resume" in again.err
    done = search(*words, "--out", out, "--resume")
    assert done.status == 0, done.err
    a, b = (pn.load_result(folder).frame() for folder in (tmp_path / "whole", out))
    pd.testing.assert_frame_equal(a, b)


def test_resume_refuses_other_settings_and_names_them(
    search: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--sites", "L0.I.*", "--out", tmp_path)
    with monkeypatch.context() as patch:
        stop_after(patch, samples=2)
        assert search(*words).status == 130
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    for change, named in (
        (("--response", "odds"), 'response.name: "probability" in the folder, "odds" now'),
        (("--low", 0.1, "--high", 1, "--mode", "absolute"), "bounds differs"),
        (("--seed", 5), "seed differs (0 in the folder, 5 now)"),
        (("--convention", "hook"), "the values are of the 'linear' convention"),
        (("--samples", 9), "data.pairs: 6 in the folder, 9 now"),
    ):
        found = search(*words, "--resume", *change)
        assert found.status == 2
        assert named in found.err.splitlines()[-1]
    assert kept == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_resume_where_nothing_began_just_begins(search: Call, tmp_path: Path) -> None:
    assert search("--sites", "L0.K.*", "--out", tmp_path, "--resume").status == 0
    assert (tmp_path / "values.npz").exists()


def test_a_stop_without_out_says_that_nothing_was_kept(search: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(monkeypatch, samples=1)
    found = search("--sites", "L0.I.*")
    assert found.status == 130
    assert "nothing was kept, as --out was not given" in found.err


def stop_after(patch: pytest.MonkeyPatch, samples: int) -> None:
    """Ctrl-C after some samples."""
    count = Sweep._count

    def stopping(self: Sweep, tile: Any, dirty: Any) -> None:
        if tile.block.samples.start >= samples:
            raise KeyboardInterrupt
        count(self, tile, dirty)

    patch.setattr(Sweep, "_count", stopping)


@pytest.mark.parametrize(
    ("option", "value"), [("--tolerance", 0), ("--tolerance-of", "guess"), ("--budget", 0), ("--seconds", 0)]
)
def test_limits_of_an_estimate_are_checked_before_any_work(
    run: Call, model: Path, option: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyneuro.cli.search.mean_activations", None)
    found = run("search", "--model", model, "--limit", 120, option, value)
    assert found.status == 2
    assert option.strip("-").replace("-", "_") in found.err


def test_the_default_is_an_estimate_where_there_can_be_one(run: Call, model: Path, tmp_path: Path) -> None:
    found = run("search", "--model", model, "--limit", 120, "--sites", "L1.I.*", "--out", tmp_path / "a")
    assert found.status == 0, found.err
    assert "within tolerance" in found.out
    few = run("search", "--model", model, "--limit", 120, "--sites", "L1.I.*", "--samples", 3, "--out", tmp_path / "b")
    assert few.status == 0, few.err
    assert "method: exact" in few.err
    assert pn.load_result(tmp_path / "b").manifest["settings"]["method"] == "exact"
    compared = run("compare", tmp_path / "a", tmp_path / "b")
    assert compared.status == 0, compared.err
