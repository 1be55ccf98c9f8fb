"""``pyneuro mitigate``: counterfactual inference from files; weakened neurons from a search."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pyneuro as pn
from pyneuro.mitigation import Weakening, counterfactual, fit_sharpness
from pyneuro.reweighting import BiasPredictions
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]
CLASSES = ["entailment", "neutral", "contradiction"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> dict[str, Path]:
    """Probabilities of a main and a bias model: of the corpus, and of other pairs to fit on; the bias model's rows
    stand the other way round."""
    folder, rng = tmp_path_factory.mktemp("probabilities"), np.random.default_rng(0)
    ids = pn.data.read_pairs(corpus).ids
    out = {}
    for name, of in (("", list(ids)), ("fit_", [f"fit-{i}" for i in range(80)])):
        main = BiasPredictions(of, CLASSES, rng.dirichlet([1, 1, 1], len(of)))
        bias = BiasPredictions(of[::-1], CLASSES[::-1], rng.dirichlet([2, 2, 3], len(of)))
        out[f"{name}main"] = main.save(folder / f"{name}main.jsonl")
        out[f"{name}bias"] = bias.save(folder / f"{name}bias.jsonl")
    return out


class TestCounterfactual:
    def test_fits_on_one_file_and_applies_to_another(
        self, run: Call, files: dict[str, Path], corpus: Path, tmp_path: Path
    ):
        names = ("main", "bias", "fit_main", "fit_bias")
        options = [word for name in names for word in (f"--{name.replace('_', '-')}", files[name])]
        done = run("mitigate", "counterfactual", *options, "--out", tmp_path / "f.jsonl", "--data", corpus)
        assert done.status == 0, done.err
        main, fit_main = (BiasPredictions.load(files[n]) for n in ("main", "fit_main"))
        bias = BiasPredictions.load(files["bias"]).for_ids(main.ids, CLASSES)
        fit_bias = BiasPredictions.load(files["fit_bias"]).for_ids(fit_main.ids, CLASSES)
        c, c_te = (fit_sharpness(fit_main.probabilities, fit_bias, of=of).c for of in ("tie_a", "te_model"))
        wanted = counterfactual(main.probabilities, bias, c, c_te)
        rows = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == list(main.ids)
        for name in ("te", "tie_a", "te_model", "int_med", "main"):
            scores = getattr(wanted, name)
            np.testing.assert_allclose([[row[f"{name}_{k}"] for k in CLASSES] for row in rows], scores)
            assert [row[name] for row in rows] == [CLASSES[i] for i in scores.argmax(1)]
        assert f"c of te_model: {c_te:.6g} on 80 pairs" in done.out
        line = next(line for line in done.out.splitlines() if line.split()[:1] == ["te_model"])
        gold = [CLASSES.index(p.label) for p in pn.data.read_pairs(corpus)]
        right = (wanted.te_model.argmax(1) == gold).mean()
        assert line.split()[1:] == [
            str(wanted.changed["te_model"]),
            f"{wanted.changed['te_model'] / 120:.4f}",
            f"{right:.4f}",
        ]

    def test_without_fitting_the_constants_are_the_uncorrected_ones(self, run: Call, files: dict[str, Path]) -> None:
        done = run("mitigate", "counterfactual", "--main", files["main"], "--bias", files["bias"], "--fusion", "add")
        main = BiasPredictions.load(files["main"])
        bias = BiasPredictions.load(files["bias"]).for_ids(main.ids, CLASSES)
        wanted = counterfactual(main.probabilities, bias, fusion="add")
        assert done.status == 0 and "c of" not in done.out
        assert done.out.split("te_model")[1].split()[0] == str(wanted.changed["te_model"])

    def test_fitting_on_the_pairs_themselves_is_said(self, run: Call, files: dict[str, Path]) -> None:
        both = (
            "--main",
            files["main"],
            "--bias",
            files["bias"],
            "--fit-main",
            files["main"],
            "--fit-bias",
            files["bias"],
        )
        done = run("mitigate", "counterfactual", *both, "--solver", "grid", "--objective", "released")
        assert done.status == 0 and "fitted on pairs that it is applied to" in done.err

    def test_two_classes_of_a_bias_model_are_shared_out(
        self, run: Call, files: dict[str, Path], tmp_path: Path
    ) -> None:
        ids = BiasPredictions.load(files["main"]).ids
        table = np.full((len(ids), 2), 0.5)
        path = BiasPredictions(ids, ["entailment", "non-entailment"], table).save(tmp_path / "b.jsonl")
        assert run("mitigate", "counterfactual", "--main", files["main"], "--bias", path).status == 0

    def test_bad_input_is_named(self, run: Call, files: dict[str, Path], tmp_path: Path) -> None:
        both = ("mitigate", "counterfactual", "--main", files["main"], "--bias", files["bias"])
        for words, message in (
            (("--fit-main", files["fit_main"]), "--fit-main and --fit-bias belong together"),
            (("--out", tmp_path / "f.csv"), "written as .jsonl"),
            (("--bias", files["fit_bias"]), "120 of 120 pairs have no prediction"),
            (("--data", "none.jsonl"), "none.jsonl"),
        ):
            failed = run(*both, *words)
            assert failed.status == 2 and message in failed.err


class TestWeaken:
    @pytest.fixture
    def weaken(self, run: Call, search: Call, model: Path, corpus: Path, tmp_path: Path) -> Call:
        assert search("--out", tmp_path / "search").status == 0
        fast = ("--strengths", 0, 0.5, "--shares", 0.05, 0.1, "--controls", 3)

        def call(*words: object) -> Outcome:
            out = () if "--out" in words else ("--out", tmp_path / "w.json")
            return run(
                "mitigate", "weaken", tmp_path / "search", "--data", corpus, "--model", model, *fast, *out, *words
            )

        return call

    def test_is_fitted_on_tune_and_reported_on_test_beside_controls(
        self, weaken: Call, run: Call, model: Path, corpus: Path, tmp_path: Path
    ) -> None:
        done = weaken("--treatment", "HOL", "--order", "signed", "--metric", "overlap_balanced")
        assert done.status == 0, done.err
        clf, roles = pn.load(model), pn.data.split_roles(pn.data.read_pairs(corpus), 0)
        ranking = pn.rank(pn.load_result(tmp_path / "search"), treatment="HOL", order="signed")
        fit = pn.mitigation.fit_weakening(clf, ranking, roles.tune, [0, 0.5], [0.05, 0.1], metric="overlap_balanced")
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "w.csv"), fit.table)
        made = Weakening.load(tmp_path / "w.json")
        assert (made.neurons, made.strength) == (fit.chosen.neurons, fit.chosen.strength)
        test = made.settings["test"]
        with made.on(clf):
            assert test["score"] == pn.evaluation.METRICS["overlap_balanced"](clf, roles.test)
        assert test["n"] == len(roles.test) and len(test["controls"]) == 3
        assert "3 random sets" in done.out and "p = " in done.out
        assert run("evaluate", "--model", model, "--data", corpus, "--weaken", tmp_path / "w.json").status == 0

    def test_other_pairs_than_those_of_the_search_are_refused(self, weaken: Call) -> None:
        for words, message in ((("--seed", 1), "seed differs"), (("--limit", 100), "source_sha256 differs")):
            failed = weaken(*words)
            assert failed.status == 2 and message in failed.err

    def test_a_strength_of_1_is_said_to_change_nothing(self, weaken: Call) -> None:
        assert "leaving the model as it is" in weaken("--strengths", 1).out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--strengths", 1.5), "strength = 1.5"),
            (("--shares", 0), "share = 0"),
            (("--by", "best"), "by = 'best'"),
            (("--out", "w.txt"), "written as .json"),
            (("--controls", 0), "n = 0 controls"),
        ],
    )
    def test_bad_options_are_named(self, weaken: Call, words: tuple[object, ...], message: str) -> None:
        failed = weaken(*words)
        assert failed.status == 2 and message in failed.err
