"""A saved classifier of a few hundred neurons, a small corpus, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pyneuro.cli import main
from pyneuro.data import embedded_pairs
from tests.tiny import make_tiny


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT, 2 layers x 12 x 2 heads, 168 neurons."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    clf = make_tiny(layers=2, hidden=12, heads=2, intermediate=24, max_positions=256)
    clf.model.save_pretrained(folder)
    clf.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 labelled pairs as JSON lines."""
    path = tmp_path_factory.mktemp("corpus") / "pairs.jsonl"
    rows = [
        {"id": p.id, "premise": p.premise, "hypothesis": p.hypothesis, "label": p.label} for p in embedded_pairs(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``run("search", "--data", path, ...)`` in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture
def search(run: Callable[..., Outcome], model: Path, corpus: Path) -> Callable[..., Outcome]:
    """``pyneuro search`` of the small corpus and model on 6 samples."""

    def call(*words: object) -> Outcome:
        bounds = () if {"--low", "--values", "--intervention"} & set(words) else ("--low", 0, "--high", 1)
        mode = ("--mode", "absolute") if bounds else ()
        return run("search", "--data", corpus, "--model", model, "--samples", 6, *bounds, *mode, *words)

    return call
