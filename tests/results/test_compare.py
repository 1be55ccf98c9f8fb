"""Agreement of two results: against numbers worked out by hand, and refusals that name what differs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pyneuro as pn
from pyneuro.errors import InputError
from pyneuro.results import CONTRAST, Result
from pyneuro.results.result import REQUIRED
from pyneuro.sites import ModelShape, NeuronSet
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, make_tiny

SHAPE = ModelShape(layers=2, hidden=40, heads=2, intermediate=200)
SETTINGS = {
    "model": {"digest": "abc"},
    "data": {"digest": "pairs"},
    "values": {"digest": "means"},
    "response": {"name": "probability", "target": "entailment", "foil": None},
    "convention": "linear",
    "intervention": {"kind": "replace", "strength": None},
    "token": 0,
    "probability_floor": None,
}
RNG = np.random.default_rng(0)
TRUTH = {name: RNG.normal(size=SHAPE.n_neurons) for name in ("HOL", "LOL", CONTRAST)}
NOISE = {name: 0.5 * RNG.normal(size=SHAPE.n_neurons) for name in TRUTH}


def make(columns: dict[str, dict[str, np.ndarray]], sites: object = None, **manifest: Any) -> Result:
    unknown = np.full(len(columns["HOL"]["nie"]), np.nan)
    columns = {name: {**dict.fromkeys(REQUIRED, unknown), **known} for name, known in columns.items()}
    paired = columns.pop(CONTRAST, None)
    neurons = NeuronSet.all(SHAPE) if sites is None else sites
    return Result.from_columns(neurons, columns, paired, {"settings": SETTINGS, **manifest})


def nie(values: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    return {name: {"nie": v} for name, v in values.items()}


@pytest.fixture(scope="module")
def truth() -> Result:
    return make(nie(TRUTH), run={"seconds": 90.0, "patched_runs": 1600}, ids=["a", "b"])


@pytest.fixture(scope="module")
def noisy() -> Result:
    return make(nie({name: TRUTH[name] + NOISE[name] for name in TRUTH}), run={"seconds": 2.0})


def row(found: pn.Comparison, treatment: str, module: str) -> pd.Series:
    (only,) = found.table[(found.table["treatment"] == treatment) & (found.table["module"] == module)].iloc
    return only


def test_a_result_agrees_with_itself(truth: Result):
    found = pn.compare(truth, truth)
    assert (found.table[["pearson", "spearman"]] > 1 - 1e-12).all(axis=None)
    assert (found.table["l2_error"] == 0).all()
    assert (found.table.filter(like="recall").dropna(axis=1) == 1).all(axis=None)
    assert found.warnings == ()


def test_there_is_a_row_a_treatment_and_module_and_one_over_all(noisy: Result, truth: Result):
    table = pn.compare(noisy, truth).table
    assert list(dict.fromkeys(table["treatment"])) == ["HOL", "LOL", "contrast"]
    assert table["module"].tolist() == ["Q", "K", "V", "AO", "I", "O", "all"] * 3
    assert table["rows"].tolist() == [80, 80, 80, 80, 400, 80, 800] * 3


@pytest.mark.parametrize("treatment", TRUTH)
@pytest.mark.parametrize("module", ["I", "all"])
def test_measures_are_those_worked_out_by_hand(noisy: Result, truth: Result, treatment: str, module: str):
    modules = truth.frame().query("treatment == 'HOL'")["module"].to_numpy()
    chosen = np.full(len(modules), True) if module == "all" else modules == module
    wanted = TRUTH[treatment][chosen]
    found = wanted + NOISE[treatment][chosen]
    agreed = row(pn.compare(noisy, truth), treatment, module)
    assert agreed["pearson"] == pytest.approx(stats.pearsonr(found, wanted)[0])
    assert agreed["spearman"] == pytest.approx(stats.spearmanr(found, wanted)[0])
    assert agreed["l2_error"] == pytest.approx(np.sqrt(((found - wanted) ** 2).sum() / (wanted**2).sum()))
    for percent in (0.1, 1, 5):
        k = max(1, round(percent / 100 * len(wanted)))
        for kind, f in (("absolute", np.abs), ("signed", np.asarray)):
            shared = set(np.argsort(-f(found))[:k]) & set(np.argsort(-f(wanted))[:k])
            assert agreed[f"recall_{kind}_{percent}"] == pytest.approx(len(shared) / k)


def test_the_noise_ceiling_is_the_agreement_of_the_halves_of_the_truth(noisy: Result, truth: Result):
    assert pn.compare(noisy, truth).table.filter(like="ceiling").isna().all(axis=None)
    halves = [TRUTH["HOL"] + sign * NOISE["LOL"] for sign in (1, -1)]
    halved = make({"HOL": {"nie": TRUTH["HOL"], "nie_half_1": halves[0], "nie_half_2": halves[1]}})
    found = pn.compare(make(nie({"HOL": TRUTH["HOL"] + NOISE["HOL"]})), halved)
    agreed = row(found, "HOL", "all")
    assert agreed["ceiling_spearman"] == pytest.approx(stats.spearmanr(*halves)[0])
    assert agreed["ceiling_recall_absolute_5"] == row_of_halves(*map(np.abs, halves))
    assert "noise ceiling" in found.text()
    assert "noise ceiling" not in pn.compare(noisy, truth).text()


def row_of_halves(first: np.ndarray, second: np.ndarray) -> float:
    return pytest.approx(len(set(np.argsort(-first)[:40]) & set(np.argsort(-second)[:40])) / 40)


def test_sites_are_matched_by_name_and_missing_values_left_out(truth: Result):
    gap = TRUTH["HOL"].copy()
    gap[[3, 700]] = np.nan
    table = pn.compare(make(nie({**TRUTH, "HOL": gap})), truth).table
    assert table["rows"].tolist()[:7] == [79, 80, 80, 80, 399, 80, 798]
    names = [str(site) for site in truth.frame()["site"][:800]]
    sets = {name: NeuronSet.parse(name, SHAPE) for name in names[:10]}
    forward, backward = (
        make({"HOL": {"nie": np.array([TRUTH["HOL"][names.index(name)] for name in order])}}, sites=order)
        for order in (sets, dict(reversed(sets.items())))
    )
    compared = pn.compare(forward, backward).table
    assert compared["module"].tolist() == ["all"]
    assert compared["l2_error"].tolist() == [0]


def test_costs_are_read_from_the_manifests(noisy: Result, truth: Result):
    cost = pn.compare(noisy, truth).cost
    assert cost["seconds"].tolist() == [2.0, 90.0]
    assert cost.loc["truth", ["samples", "patched_runs"]].tolist() == [2, 1600]
    assert cost.loc["result", ["samples", "patched_runs"]].isna().all()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("model", {"digest": "xyz"}, "model.digest: 'xyz' and 'abc'"),
        ("response", {"name": "kl", "target": "entailment", "foil": None}, "response: {'name': 'kl'"),
        ("convention", "hook", "convention: 'hook' and 'linear'"),
        ("intervention", {"kind": "remove", "strength": None}, "intervention: {'kind': 'remove'"),
        ("token", "all", "token: 'all' and 0"),
    ],
)
def test_results_of_other_effects_are_refused(truth: Result, setting: str, value: object, named: str):
    other = make(nie(TRUTH), settings={**SETTINGS, setting: value})
    with pytest.raises(InputError) as refused:
        pn.compare(other, truth)
    assert named in str(refused.value)


def test_results_of_other_sites_or_treatments_are_refused(truth: Result):
    with pytest.raises(InputError, match=r"treatments: \['HOL'\] and \['HOL', 'LOL'\]"):
        pn.compare(make({"HOL": {"nie": TRUTH["HOL"]}}), truth)
    some = {name: values[:80] for name, values in nie_of_first(80).items()}
    with pytest.raises(InputError, match=r"sites: 80 sites and 800 sites, '.*' in the truth alone"):
        pn.compare(make(nie(some), sites=NeuronSet(SHAPE, np.arange(80))), truth)
    one, two = (
        make({"HOL": {"nie": np.zeros(1)}}, sites={"group": NeuronSet.parse(name, SHAPE)})
        for name in ("L0.Q.1", "L0.Q.2")
    )
    with pytest.raises(InputError, match="set 'group' has other members"):
        pn.compare(one, two)


def nie_of_first(count: int) -> dict[str, np.ndarray]:
    return {name: values[:count] for name, values in TRUTH.items()}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [("data", {"digest": "others"}, "the samples"), ("values", None, "the replacement values")],
)
def test_other_samples_are_allowed_and_said(truth: Result, setting: str, value: object, said: str):
    found = pn.compare(make(nie(TRUTH), settings={**SETTINGS, setting: value}), truth)
    assert [line.startswith(f"{said} of the two differ") for line in found.warnings] == [True]
    assert found.warnings[0] in found.text()


def test_columns_that_cannot_be_compared_are_refused(noisy: Result, truth: Result):
    for by in ("beauty", "module"):
        with pytest.raises(InputError, match=rf"by = '{by}' is no column of the result to compare; choose one of nie"):
            pn.compare(noisy, truth, by=by)
    empty = make({name: {"nie": np.full(800, np.nan)} for name in TRUTH})
    with pytest.raises(InputError, match="by = 'nie' has no values under 'HOL'"):
        pn.compare(empty, truth)


def test_a_screen_is_compared_with_a_search_and_its_cost_counted():
    clf = make_tiny(layers=2, hidden=12, heads=2, intermediate=20)
    values = random_values(clf, "HOL", "LOL", scale=0.01)
    how = {"intervention": "add", "progress": False}
    screen = pn.screens.attribution_patching(clf, PAIRS, values, **how)
    found = pn.compare(screen, pn.search(clf, PAIRS, values, **how))
    assert (found.table["pearson"] > 0.99).all()
    assert (found.table["l2_error"] < 0.1).all()
    assert found.table["ceiling_pearson"].notna().all()
    assert found.cost["method"].tolist() == ["attribution_patching", "exact"]
    assert found.cost.loc["result", "forward_equivalents"] == 7
    by_log = pn.compare(screen, screen, by="log_nie")
    assert by_log.table["ceiling_pearson"].isna().all()
