"""The exact baselines: each equals hooks written by hand, and all equal the exact engine, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

import pyneuro as pn
from pyneuro import baselines
from pyneuro.engine.intervention import KINDS
from pyneuro.models import Classifier
from pyneuro.results import Result
from pyneuro.sites import CONVENTIONS, MODULES, NeuronSet
from tests.baselines import by_hand
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, make_tiny

EXACT = [baselines.hook_loop, baselines.neurons_in_batch, baselines.suffix_only, baselines.vmap_hooks]
STRENGTH = {"weaken": 0.4, "add": 1.7}
COLUMNS = ["nie", "log_nie", "diff", "se", "min", "max"]

exact = pytest.mark.parametrize("baseline", EXACT, ids=lambda f: f.__name__)


@cache
def small(arch: str = "bert") -> Classifier:
    """240 neurons in float64: three layers, so that there is a first, a middle and a last one."""
    return make_tiny(arch, dtype=torch.float64, layers=3, hidden=12, heads=2, intermediate=20)


def options(intervention: str, convention: str = "linear") -> dict[str, object]:
    return {"intervention": intervention, "strength": STRENGTH.get(intervention), "convention": convention}


def values_for(clf: Classifier, intervention: str, convention: str, scale: float = 1.0) -> pn.Values | None:
    if intervention not in ("replace", "add"):
        return None
    return random_values(clf, "HOL", "LOL", convention=convention, scale=scale)


@cache
def engine(intervention: str, convention: str, token: int | str = 0) -> Result:
    values = values_for(small(), intervention, convention)
    how = {**options(intervention, convention), "token": token}
    return pn.search(small(), PAIRS[:3], values, backend="reference", precision="float64", **how)


def assert_same_effects(found: Result, wanted: Result, rtol: float, atol: float) -> None:
    """Every column, every treatment, and the contrast."""
    tables = [(found.frame(), wanted.frame())]
    if wanted.has_contrast:
        tables.append((found.contrast(), wanted.contrast()))
    for a, b in tables:
        assert a[["site", "treatment"]].equals(b[["site", "treatment"]])
        for column in COLUMNS:
            np.testing.assert_allclose(a[column], b[column], rtol=rtol, atol=atol, err_msg=column)


def assert_as_exact(found: Result, wanted: Result) -> None:
    """To the accuracy of the engine, whose GELU series is good to about 1e-5 of a change, whatever the precision."""
    assert_same_effects(found, wanted, rtol=2e-3, atol=1e-8)
    a, b = found.frame()["nie"], wanted.frame()["nie"]
    assert np.linalg.norm(a - b) < 2e-6 * np.linalg.norm(b)


@exact
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_effects_are_those_of_hooks_written_by_hand(baseline: Callable[..., Result], convention: str, arch: str):
    clf = small(arch)
    values = random_values(clf, convention=convention)
    names = [f"L{layer}.{module}.{3 + layer}" for layer in range(3) for module in MODULES]

    found = baseline(clf, PAIRS[:3], values, sites=names, convention=convention).frame()

    def value_of(name: str) -> float:
        layer, module, index = name[1:].split(".")
        return float(values.array("HOL", int(layer), module)[int(index)])

    wanted = by_hand.probability_effects(*by_hand.changes(clf, PAIRS[:3], names, value_of, convention=convention))
    np.testing.assert_allclose(found.set_index("site").loc[names, "nie"], wanted, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("token", [0, 2, "all"])
@pytest.mark.parametrize("intervention", KINDS)
def test_interventions_and_tokens_are_those_of_hooks_written_by_hand(intervention: str, token: int | str):
    clf, names = small(), ["L0.K.3", "L1.V.2", "L1.I.7", "L2.O.1"]
    values = random_values(clf) if intervention in ("replace", "add") else None

    found = baselines.neurons_in_batch(
        clf, PAIRS[:2], values, sites=names, token=token, response="logit_difference", **options(intervention)
    ).frame()

    def value_of(name: str) -> float:
        layer, module, index = name[1:].split(".")
        return 0.0 if values is None else float(values.array("HOL", int(layer), module)[int(index)])

    strength = STRENGTH.get(intervention, 1.0)
    base, patched = by_hand.changes(
        clf, PAIRS[:2], names, value_of, intervention=intervention, strength=strength, token=token
    )
    difference = (patched - base)[..., 0] - (patched - base)[..., 1:].mean(-1)
    np.testing.assert_allclose(found.set_index("site").loc[names, "nie"], difference.mean(-1), rtol=1e-9, atol=1e-13)


@exact
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("intervention", KINDS)
def test_all_neurons_agree_with_the_exact_engine(baseline: Callable[..., Result], intervention: str, convention: str):
    values = values_for(small(), intervention, convention)
    found = baseline(small(), PAIRS[:3], values, batch_size=50, **options(intervention, convention))
    assert_as_exact(found, engine(intervention, convention))


@exact
@pytest.mark.parametrize("token", [3, "all"])
def test_other_tokens_agree_with_the_exact_engine(baseline: Callable[..., Result], token: int | str):
    values = values_for(small(), "add", "hook")
    found = baseline(small(), PAIRS[:3], values, token=token, **options("add", "hook"))
    assert_as_exact(found, engine("add", "hook", token))


@pytest.mark.parametrize("token", [0, 2, "all"])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("intervention", KINDS)
def test_sets_in_the_batch_agree_with_the_exact_engine(intervention: str, convention: str, token: int | str):
    clf = small()
    sets = {
        "one": NeuronSet.parse("L1.V.4", clf.shape),
        "a module": NeuronSet.parse("L1.I.*", clf.shape),
        "the same place in every layer": NeuronSet.parse(["L*.AO.3", "L*.O.3"], clf.shape),
        "modules that feed each other": NeuronSet.parse(["L0.O.1", "L1.Q.5", "L1.K.5", "L1.AO.1", "L2.I.9"], clf.shape),
        "everything": NeuronSet.all(clf.shape),
    }
    values = values_for(clf, intervention, convention, scale=0.4)  # everything at once, at every token, is a lot
    how = {**options(intervention, convention), "sites": sets, "token": token}
    found = baselines.neurons_in_batch(clf, PAIRS[:2], values, batch_size=4, **how)
    wanted = pn.search(clf, PAIRS[:2], values, backend="reference", precision="float64", **how)
    assert_as_exact(found, wanted)


@exact
def test_results_do_not_depend_on_the_batch_size(baseline: Callable[..., Result]):
    values = random_values(small(), "HOL", "LOL")
    sites = ["L1.Q.*", "L2.I.3"]
    one, odd, whole = (
        baseline(small(), PAIRS[:5], values, sites=sites, batch_size=size, response="log_odds") for size in (1, 7, 1000)
    )
    assert_same_effects(odd, one, rtol=1e-9, atol=1e-12)
    assert_same_effects(whole, one, rtol=1e-9, atol=1e-12)


@exact
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_neuron_that_keeps_its_value_has_no_effect_at_all(baseline: Callable[..., Result], convention: str):
    """Although float32 rounds: patched and base run go through the same computation in the same shape. Under vmap they
    are rows of one batch, which several threads may round differently."""
    clf = make_tiny(layers=2, hidden=36, heads=3, intermediate=70)
    found = baseline(
        clf, PAIRS[:3], sites=["L*.*.7"], convention=convention, intervention="weaken", strength=1.0, batch_size=7
    )
    most = 1e-6 if baseline is baselines.vmap_hooks else 0.0
    assert (found.frame()[["nie", "log_nie", "diff"]].abs() <= most).all(axis=None)


@exact
def test_one_call_gives_every_treatment_and_their_contrast(baseline: Callable[..., Result]):
    clf = small()
    both = random_values(clf, "HOL", "LOL")
    result = baseline(clf, PAIRS[:2], both, sites=["L0.K.*"])
    for treatment in ("HOL", "LOL"):
        alone = pn.Values.from_arrays({(treatment, 0, "K"): both.array(treatment, 0, "K")}, convention="linear")
        nie = baseline(clf, PAIRS[:2], alone, sites=["L0.K.*"]).frame()["nie"]
        found = result.frame().query("treatment == @treatment")["nie"]
        np.testing.assert_allclose(found, nie, rtol=1e-9, atol=1e-13)
    hol, lol = (result.frame().query("treatment == @t")["nie"].to_numpy() for t in ("HOL", "LOL"))
    np.testing.assert_allclose(result.contrast()["nie"], hol - lol, rtol=1e-9, atol=1e-13)


def test_eager_and_fused_attention_give_vmap_the_same_effects_without_falling_back_to_a_loop():
    sizes = {"dtype": torch.float64, "layers": 2, "hidden": 12, "heads": 2, "intermediate": 20}
    clf = make_tiny(attn="sdpa", **sizes)
    values = random_values(clf)
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # vmap warns of operations it has no rule for
        fused = baselines.vmap_hooks(clf, PAIRS[:2], values, sites=["L0.V.*", "L1.Q.*"])
    eager = baselines.vmap_hooks(make_tiny(attn="eager", **sizes), PAIRS[:2], values, sites=["L0.V.*", "L1.Q.*"])
    assert_same_effects(fused, eager, rtol=1e-9, atol=1e-13)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()) == flags


@exact
def test_the_bundled_model_gives_the_effects_of_the_exact_engine(baseline: Callable[..., Result], bundled: Classifier):
    values = random_values(bundled, "HOL", "LOL", convention="hook")
    how = {"sites": ["L0.V.5", "L2.Q.100", "L3.I.906", "L4.AO.3", "L5.O.17", "L5.K.200"], "convention": "hook"}
    found = baseline(bundled, PAIRS[:2], values, **how).frame()
    wanted = pn.search(bundled, PAIRS[:2], values, **how).frame()
    np.testing.assert_allclose(found["nie"], wanted["nie"], rtol=2e-3, atol=3e-6)  # float32 hooks round
