"""``pyneuro study``: locate, weaken, counterfactual inference, training; each beside its control; goes on where it was
stopped."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pyneuro as pn
from pyneuro.cli import main, study
from pyneuro.cli.study_data import WITH_TEST, study_data
from pyneuro.cli.study_table import Method, measure, table, text
from pyneuro.data import Pairs
from pyneuro.evaluation import over_seeds
from pyneuro.search import beside_controls
from tests.cli.conftest import Outcome

pytest.importorskip("sklearn")
pytest.importorskip("accelerate")

Call = Callable[..., Outcome]
SMALL = ("--samples", 9, "--train-pairs", 60, "--eval-pairs", 60, "--controls", 2)
STEPS = (
    *("main", "bias", "weaken-fit", "weaken", "weaken-control-0", "weaken-control-1"),
    *(f"{loss}-{seed}" for loss in study.LOSSES for seed in range(3)),
)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(pairs: Pairs) -> list[dict[str, Any]]:
    return [{"id": p.id, "premise": p.premise, "hypothesis": p.hypothesis, "label": p.label} for p in pairs]


@pytest.fixture(scope="module")
def command(model: Path) -> tuple[str, ...]:
    return ("study", "--model", str(model), "--limit", "300", *map(str, SMALL))


@pytest.fixture(scope="module")
def finished(command: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 300 embedded pairs."""
    folder = tmp_path_factory.mktemp("study") / "done"
    assert main([*command, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "study"))


def parsed(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    study.add_arguments(parser)
    return parser.parse_args([*map(str, words), "--out", "unused"])


class TestPairs:
    def test_no_pair_is_seen_by_two_steps_that_must_not_share(self) -> None:
        data = study_data(parsed("--limit", 600, "--eval-pairs", 90))
        assert list(data.evaluated) == ["test", "HANS-like"]
        texts = [
            {(pair.premise, pair.hypothesis) for pair in pairs}
            for pairs in (data.train, data.tune, *data.evaluated.values())
        ]
        for number, one in enumerate(texts):
            assert all(not one & other for other in texts[number + 1 :])
        found_on = {*data.samples.ids, *(name for pairs in data.treatment.values() for name in pairs.ids)}
        assert not found_on & {*data.tune.ids, *data.evaluated["test"].ids}
        assert set(data.train.label_counts.values()) == {len(data.train) // 3}

    def test_built_in_pairs_fill_the_six_cells(self) -> None:
        pairs = study_data(parsed("--limit", 300, "--eval-pairs", 60)).evaluated["HANS-like"]
        cells = pn.evaluation.hans(np.tile([1.0, 0, 0], (60, 1)), pairs, labels={"entailment": 0}).cells
        assert cells["n"].tolist() == [10] * 6
        assert set(pn.data.overlap_scores(pairs)) == {1.0}

    @pytest.mark.filterwarnings("ignore:.*score exactly:UserWarning")
    def test_files_are_evaluated_on_and_kept_out_of_the_pool(self, tmp_path: Path) -> None:
        pairs = pn.data.embedded_pairs(500)
        built = study_data(parsed("--limit", 300)).evaluated["HANS-like"]
        meta = [{**row, **p.meta} for row, p in zip(rows_of(built), built, strict=True)]
        files = {
            "--data": write(tmp_path / "pool.jsonl", rows_of(pairs[:420])),
            "--dev": write(tmp_path / "dev.jsonl", rows_of(pairs[400:460])),
            "--dev-mismatched": write(tmp_path / "mm.jsonl", rows_of(pairs[460:])),
            "--hans": write(tmp_path / "hans.jsonl", meta),
        }
        data = study_data(parsed(*(word for pair in files.items() for word in pair), "--eval-pairs", 120))
        assert {name: len(some) for name, some in data.evaluated.items()} == {
            "matched": 60,
            "mismatched": 40,
            "HANS": 120,
        }
        assert len(data.roles.treatment) + len(data.roles.nie) + len(data.roles.tune) == 400  # 20 are in --dev
        assert not data.roles.test


class TestTable:
    KEY = ("test", "accuracy")

    def rows(self, *methods: Method) -> list[dict[Any, Any]]:
        return table(methods).to_dict("records")

    def of(self, *values: float) -> list[MappingProxyType[tuple[str, str], float]]:
        return [MappingProxyType({self.KEY: value}) for value in values]

    def test_seeds_are_summarised_and_differences_taken_seed_by_seed(self) -> None:
        (row,) = self.rows(Method("new", self.of(0.5, 0.7, 0.9), "plain", self.of(0.4, 0.7, 0.7), paired=True))
        seeds, gain = over_seeds([0.5, 0.7, 0.9]), over_seeds([0.1, 0.0, 0.2])
        assert (row["value"], row["sd"], row["ci_low"], row["seeds"]) == (seeds.mean, seeds.sd, seeds.ci_low, 3)
        assert row["difference"] == pytest.approx(gain.mean) and row["difference_low"] == pytest.approx(gain.ci_low)
        assert row["control_mean"] == pytest.approx(0.6) and np.isnan(row["p_value"])

    def test_random_controls_give_a_prediction_interval(self) -> None:
        (row,) = self.rows(Method("weak", self.of(0.9), "random", self.of(0.5, 0.6, 0.7)))
        beside = beside_controls(0.9, [0.5, 0.6, 0.7])
        assert (row["control_low"], row["control_high"], row["p_value"]) == (beside.low, beside.high, beside.p_value)
        assert np.isnan(row["ci_low"]) and pd.isna(row["seeds"])

    def test_the_text_has_a_line_a_method_and_one_a_control(self) -> None:
        paired = Method("new", self.of(0.5, 0.7, 0.9), "plain", self.of(0.4, 0.7, 0.7), paired=True)
        random = Method("weak", self.of(0.9), "random", self.of(0.5, 0.6, 0.7))
        lines = text(table([Method("main model", self.of(0.8)), random, paired])).splitlines()[2:]
        assert [line.split()[0] for line in lines] == ["main", "weak", "3", "new", "less"]
        assert "3 x random" in lines[2] and "0.600 [0.103, 1.097]" in lines[2]
        assert "less plain, same seeds" in lines[4] and "+0.100 [" in lines[4]

    def test_measures_are_those_of_the_evaluation(self, model: Path) -> None:
        clf, pairs = pn.load(model), pn.data.embedded_pairs(90)
        predicted = np.random.default_rng(0).dirichlet([1, 1, 1], 90)
        found = measure(clf, {"dev": pairs}, {"dev": predicted})
        assert found["dev", "accuracy"] == pn.evaluation.accuracy(clf, predicted, pairs).accuracy
        cells = pn.evaluation.overlap_accuracy(clf, predicted, pairs)
        assert found["dev", "overlap_balanced"] == pytest.approx(cells["accuracy"].mean())
        last = cells.iloc[-1]
        assert found["dev", f"overlap 0.8 to 1, {last['label']}"] == last["accuracy"]


class TestStudy:
    def test_every_method_stands_beside_its_control(self, finished: Path) -> None:
        rows = pd.read_csv(finished / "study.csv")
        controls = rows.groupby("method", sort=False)["control"].first().to_dict()
        assert {k: v for k, v in controls.items() if isinstance(v, str)} == {
            "weakened neurons": "random neurons",
            "TIE_A": "shuffled bias",
            "TE_model": "shuffled bias",
            "reweight": "plain fine-tuning",
            "product_of_experts": "plain fine-tuning",
        }
        assert set(controls) - {k for k, v in controls.items() if isinstance(v, str)} == {
            "main model",
            "plain fine-tuning",
        }
        hans = rows[(rows["method"] == "main model") & (rows["set"] == "HANS-like")]
        assert len(hans) == 3 + 6
        assert {path.stem for path in (finished / "parts").iterdir()} == set(STEPS)

    def test_the_main_model_is_evaluated_on_pairs_of_the_role_test(self, finished: Path, model: Path) -> None:
        clf, roles = pn.load(model), pn.data.split_roles(pn.data.embedded_pairs(300), 0, WITH_TEST)
        wanted = pn.evaluation.accuracy(clf, pn.evaluation.predict(clf, roles.test), roles.test).accuracy
        rows = pd.read_csv(finished / "study.csv").set_index(["method", "set", "measure"])["value"]
        assert rows["main model", "test", "accuracy"] == pytest.approx(wanted)

    def test_the_record_says_what_was_run(self, finished: Path, model: Path) -> None:
        record = json.loads((finished / "study.json").read_text())
        assert record["settings"]["model"] == model.name and str(model.parent) not in json.dumps(record)
        assert record["settings"]["pairs"]["train"]["pairs"] == 60
        assert record["versions"]["pyneuro"] == pn.__version__
        assert set(record["counterfactual"]["changed"]) == {"tie_a", "te_model"}
        assert len(record["rows"]) == len(pd.read_csv(finished / "study.csv"))

    def test_weakening_was_fitted_on_tune_alone(self, finished: Path) -> None:
        made = pn.mitigation.Weakening.load(finished / "weakening.json")
        record = json.loads((finished / "study.json").read_text())
        assert made.settings["tune_pairs"]["sha256"] == record["settings"]["pairs"]["tune"]["sha256"]
        assert made.settings["metric"] == "overlap_balanced"


class TestResume:
    def test_only_what_is_missing_is_done_and_the_numbers_are_the_same(
        self, run: Call, command: tuple[str, ...], folder: Path
    ) -> None:
        before = (folder / "study.csv").read_text()
        for name in ("parts/reweight-1.npz", "parts/weaken.npz", "study.csv"):
            (folder / name).unlink()
        done = run(*command, "--out", folder, "--resume")
        assert done.status == 0, done.err
        assert [line.split()[1] for line in done.err.splitlines() if line.startswith("step")] == [
            "weaken",
            "reweight-1",
        ]
        assert (folder / "study.csv").read_text() == before
        assert "changes the prediction of" in done.out

    def test_an_interruption_loses_the_running_step_only(
        self, run: Call, command: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for path in (folder / "parts").glob("*-[12].npz"):
            path.unlink()
        plain, calls = study.masking.fine_tune, []

        def stopped(*words: Any, **options: Any) -> Any:
            calls.append(options["loss"])
            if len(calls) == 2:
                raise KeyboardInterrupt
            return plain(*words, **options)

        monkeypatch.setattr(study.masking, "fine_tune", stopped)
        done = run(*command, "--out", folder, "--resume")
        assert done.status == 130 and f"kept in {folder}" in done.err and "--resume" in done.err
        assert calls == ["plain", "reweight"]
        kept = {path.stem for path in (folder / "parts").glob("*.npz")}
        assert "plain-1" in kept and "reweight-1" not in kept

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "pass --resume to go on"),
            (("--resume", "--epochs", 2), "epochs = 1.0, not 2.0"),
            (("--resume", "--train-pairs", 30), "holds a study with pairs = "),
            (("--resume", "--seed", 1), "holds a study with "),
        ],
    )
    def test_another_study_is_refused(
        self, run: Call, command: tuple[str, ...], folder: Path, words: tuple[object, ...], message: str
    ) -> None:
        failed = run(*command, "--out", folder, *words)
        assert failed.status == 2 and message in failed.err

    def test_a_broken_step_is_named(self, run: Call, command: tuple[str, ...], folder: Path) -> None:
        (folder / "parts/weaken.npz").write_bytes(b"")
        failed = run(*command, "--out", folder, "--resume")
        assert failed.status == 2 and "weaken.npz" in failed.err and "remove it" in failed.err


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--seeds", 2), "--seeds 2 is too few; pass 3"),
            (("--controls", 1), "--controls 1"),
            (("--epochs", 0), "--epochs 0"),
            (("--dev", "none.jsonl"), "none.jsonl"),
            (("--hans", "CORPUS"), "HANS's labels"),
            (("--dev", "UNLABELLED"), "label"),
            (("--data", "UNLABELLED", "--columns", "label="), "40 pairs have no label"),
            (("--data", "CORPUS", "--dev", "CORPUS"), "every pair"),
            (("--limit", 60), "pairs for tune"),
            (("--samples", 3000), "--samples 3000"),
            (("--train-pairs", 4000), "--train-pairs 4000"),
        ],
    )
    def test_is_refused_before_anything_runs(
        self,
        run: Call,
        model: Path,
        corpus: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        words: tuple[object, ...],
        message: str,
    ) -> None:
        bare = [{k: v for k, v in row.items() if k != "label"} for row in rows_of(pn.data.embedded_pairs(40))]
        files = {"CORPUS": corpus, "UNLABELLED": write(tmp_path / "bare.jsonl", bare)}
        monkeypatch.setattr(study, "_Study", None)
        failed = run("study", "--model", model, "--out", tmp_path / "out", *(files.get(w, w) for w in words))
        assert failed.status == 2 and message in failed.err, failed.err
        assert not (tmp_path / "out" / "settings.json").exists()

    @pytest.mark.filterwarnings("ignore:.*score exactly:UserWarning")
    def test_labels_that_the_model_has_not_are_refused(self, run: Call, model: Path, tmp_path: Path) -> None:
        rows = rows_of(pn.data.embedded_pairs(300))
        for row in rows:
            row["label"] = "entailment" if row["label"] == "entailment" else "non-entailment"
        path = write(tmp_path / "two.jsonl", rows)
        failed = run("study", "--model", model, "--data", path, "--out", tmp_path / "out")
        assert failed.status == 2 and "labelled 'non-entailment'" in failed.err

    def test_missing_extras_are_named(self, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(study, "find_spec", lambda name: None if name == "accelerate" else object())
        failed = run("study", "--out", tmp_path / "out")
        assert failed.status == 2 and "pyneuro[train]" in failed.err and not (tmp_path / "out").exists()
