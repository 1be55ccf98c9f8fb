"""``pyneuro demo``: the whole job in the time it is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pyneuro as pn
from pyneuro.cli.demo import _fitting
from pyneuro.models import Classifier
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


def test_it_searches_every_neuron_and_says_what_it_did(run: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    found = run("demo", "--model", model, "--minutes", 1, "--limit", 180, "--out", out, "-k", 3)
    assert found.status == 0, found.err
    result = pn.load_result(out)
    assert len(result.frame()) == 2 * result.shape.n_neurons == 2 * 168
    assert result.treatments == ["HOL", "LOL"]
    for text in (
        "plan     every neuron",
        "HOL: 3 largest |NIE|",
        "extrapolated from a trial",
        "within tolerance",
        f"results  {out}",
    ):
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
    assert "by method 'exact'" in found.out  # one sample a label is too few to estimate from
    assert f"--data {corpus}" in found.out


def test_the_plan_takes_balanced_samples_while_they_fit(bundled: Classifier) -> None:
    pairs = pn.data.embedded_pairs(120)
    values = pn.mean_activations(bundled, pn.data.treatment_sets(pairs, 0.0, 1.0, mode="absolute"))

    def fitting(seconds: float) -> pn.data.Pairs:
        return _fitting(bundled, pairs, values, seconds, "linear", seed=0)

    assert len(fitting(1e9)) == 120
    assert len(fitting(-5.0)) == 3  # never less than one a label
    some = fitting(1.0)
    assert len(set(some.label_counts.values())) == 1


def test_no_time_at_all_is_refused(run: Call) -> None:
    found = run("demo", "--minutes", 0)
    assert found.status == 2
    assert "leaves no time" in found.err
