"""``pyneuro demo``: the whole job in the time it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pyneuro as pn
from pyneuro.cli.demo import Rate, _fitting, _work
from pyneuro.models import Classifier
from pyneuro.sites import NeuronSet
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


def test_it_searches_every_neuron_and_says_what_it_did(run: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    found = run("demo", "--model", model, "--minutes", 0.15, "--limit", 180, "--out", out, "-k", 3)
    assert found.status == 0, found.err
    result = pn.load_result(out)
    assert len(result.frame()) == 2 * result.shape.n_neurons == 2 * 168
    assert result.treatments == ["HOL", "LOL"]
    for text in ("plan     every neuron", "HOL: 3 largest |NIE|", "extrapolated from this run", f"results  {out}"):
        assert text in found.out
    for line in found.out.splitlines():
        if line.startswith("figure"):
            assert Path(line.split()[1]).stat().st_size > 1000
    assert {"roles.json", "treatment.json", "values.npz"} <= {path.name for path in out.iterdir()}
    assert run("demo", "--model", model, "--minutes", 0.05, "--limit", 180, "--out", out).status == 0  # and again


@pytest.mark.filterwarnings("ignore:.*score exactly:UserWarning")
def test_it_takes_data_of_ones_own(run: Call, model: Path, corpus: Path, tmp_path: Path) -> None:
    found = run("demo", "--data", corpus, "--model", model, "--minutes", 0.02, "--out", tmp_path)
    assert found.status == 0, found.err
    assert "more than the 0.02 min asked for" in found.out
    assert f"--data {corpus}" in found.out


def test_the_plan_fills_the_time_with_balanced_samples(bundled: Classifier) -> None:
    pairs = pn.data.embedded_pairs(120)
    neurons = NeuronSet.all(bundled.shape)
    lengths = [len(bundled.encode(pair)) for pair in pairs]
    whole = sum(_work(bundled.shape, tokens, neurons) for tokens in lengths)
    rate = Rate(seconds=100.0, work=whole)  # all pairs under one treatment in 100 s
    for budget in (10.0, 50.0):
        samples, seconds = _fitting(bundled, pairs, rate, budget, 1, seed=0)
        assert len(set(samples.label_counts.values())) == 1
        assert 0.7 * budget < seconds <= budget
        assert len(samples) == pytest.approx(120 * budget / 100, rel=0.3)
    assert len(_fitting(bundled, pairs, rate, 1e9, 1, seed=0)[0]) == 120
    assert len(_fitting(bundled, pairs, rate, -5.0, 1, seed=0)[0]) == 3  # never less than one a label


def test_no_time_at_all_is_refused(run: Call) -> None:
    found = run("demo", "--minutes", 0)
    assert found.status == 2
    assert "leaves no time" in found.err
