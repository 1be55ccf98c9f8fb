"""``pyneuro mask``: train, report, overlap, effects, export, from files on disk."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyneuro as pn
from tests.cli.conftest import Outcome
from tests.tiny import PAIRS

pytest.importorskip("accelerate")
Call = Callable[..., Outcome]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = ["entailment", "neutral", "contradiction"]
    rows = [
        {"id": f"{a}-{b}", "premise": PAIRS[a].premise, "hypothesis": PAIRS[b].hypothesis, "label": labels[b % 3]}
        for a in range(8)
        for b in range(4)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def train(run: Call, model: Path, pairs: Path) -> Call:
    def call(out: Path, *words: object) -> Outcome:
        options = ("--epochs", 1, "--batch-size", 8, "--lr", 0.01, "--out", out)
        return run("mask", "train", "--model", model, "--data", pairs, "--validation", pairs, *options, *words)

    return call


def test_trained_masks_are_reported_compared_applied_and_exported(
    run: Call, train: Call, model: Path, pairs: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        done = train(tmp_path / str(seed), "--sparsity", 0.2, "--layers", "top:1", "--modules", "Q,I", "--seed", seed)
        assert done.status == 0, done.err
        assert "masked" in done.out and "masks.safetensors" in done.out
    first, second = (tmp_path / str(seed) / "masks.safetensors" for seed in (0, 1))
    masks = pn.masking.Masks.load(first)
    assert {m.module for m in masks.values()} == {"Q", "I"} and 0.1 < masks.sparsity < 0.3

    report = run("mask", "report", first, "--format", "csv", "--figure", tmp_path / "rates.png")
    table = pd.read_csv(io.StringIO(report.out))
    assert list(table.columns) == ["layer", "Q", "I"] and (tmp_path / "rates.png").exists()
    assert "layers from 0" in run("mask", "report", first).out
    assert "published" in run("mask", "report", first, "--published").out
    overlap = pd.read_csv(io.StringIO(run("mask", "overlap", first, second, "--format", "csv").out))
    assert len(overlap) == 2 and (overlap["jaccard"] < 0.5).all()
    effects = run("mask", "effects", first, "--model", model, "--data", pairs, "--format", "csv")
    assert pd.read_csv(io.StringIO(effects.out))["layer"].iloc[0] == "all"

    assert run("mask", "export", first, "--model", model, "--out", tmp_path / "model").status == 0
    masked = pn.load(model)
    masks.put_on(masked)
    encodings = [masked.encode(p) for p in pn.data.read_pairs(pairs)[:3]]
    torch.testing.assert_close(pn.load(tmp_path / "model").logits(encodings), masked.logits(encodings))


def test_a_fresh_head_is_kept_beside_its_masks(run: Call, train: Call, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--new-head", "--rule", "sigmoid", "--tau", 0, "--tau-last", 0.1).status == 0
    files = tmp_path / "run" / "masks.safetensors", tmp_path / "run" / "base"
    assert run("mask", "export", files[0], "--model", files[1], "--out", tmp_path / "model").status == 0
    assert json.loads((tmp_path / "model" / "config.json").read_text())["id2label"]["0"] == "entailment"


def test_all_weights_train_to_compare_with(train: Call, pairs: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "tuned", "--fine-tune")
    assert done.status == 0 and "accuracy" in done.out
    tuned = pn.load(tmp_path / "tuned" / "model")
    assert f"{pn.masking.accuracy(tuned, pn.data.read_pairs(pairs)):.4f}" in done.out


def test_a_debiasing_loss_reads_what_it_wants_to_know(train: Call, tmp_path: Path) -> None:
    np.savez(tmp_path / "known.npz", bias=np.full((32, 3), 1 / 3))
    assert train(tmp_path / "a", "--loss", "reweight", "--known", tmp_path / "known.npz").status == 0
    lacking = train(tmp_path / "b", "--loss", "reweight")
    assert lacking.status == 2 and "bias model" in lacking.err


@pytest.mark.parametrize("loss", ["weighted", "product_of_experts"])
def test_weights_and_bias_may_come_from_reweight(
    run: Call, train: Call, pairs: Path, tmp_path: Path, loss: str
) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "w.jsonl"
    assert run("reweight", "--data", pairs, "--bias", "overlap", "--folds", 2, "--out", out).status == 0
    done = train(tmp_path / "a", "--loss", loss, "--known", out)
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--modules", "X"), "module 'X' is not one of"),
        (("--layers", "9"), "layer 9 does not exist"),
        (("--layers", "a"), "neither layers"),
        (("--sparsity", "1.5"), "sparsity = 1.5"),
        (("--known", "nowhere.npz"), "cannot read nowhere.npz"),
        (("--data", "nofile.jsonl"), "there is no file nofile.jsonl"),
        (("--limit", "-1"), "limit"),
        (("--batch-size", "0"), "batch_size = 0"),
        (("--tau", "2", "--rule", "topk"), "tau = 2.0"),
        (("--fine-tune", "--sparsity", "0.1"), "--sparsity has no meaning with --fine-tune"),
    ],
)
def test_bad_options_are_named(train: Call, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    failed = train(tmp_path / "out", *words)
    assert failed.status == 2 and message in failed.err


def test_a_finished_folder_is_not_overwritten(train: Call, tmp_path: Path) -> None:
    assert train(tmp_path / "run").status == 0
    again = train(tmp_path / "run")
    assert again.status == 2 and "resume" in again.err


def test_a_refused_run_leaves_the_head_that_masks_belong_to(run: Call, train: Call, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--new-head").status == 0
    refused = train(tmp_path / "run", "--new-head", "--seed", 5)
    assert refused.status == 2 and "--resume" in refused.err
    files = tmp_path / "run" / "masks.safetensors", tmp_path / "run" / "base"
    assert run("mask", "export", files[0], "--model", files[1], "--out", tmp_path / "model").status == 0


def test_a_stopped_training_says_how_to_go_on(train: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pn.masking, "train", stopping)
    stopped = train(tmp_path / "run")
    assert stopped.status == 130 and "--resume" in stopped.err


def test_masks_of_another_model_are_refused(run: Call, train: Call, tmp_path: Path) -> None:
    assert train(tmp_path / "run", "--modules", "Q").status == 0
    failed = run("mask", "export", tmp_path / "run" / "masks.safetensors", "--out", tmp_path / "model")
    assert failed.status == 2 and "belong to a model with digest" in failed.err
