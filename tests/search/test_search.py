"""What ``search`` returns: its columns, and every number in them against hooks in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from pyneuro.engine.values import Values, mean_activations
from pyneuro.models import wrap
from pyneuro.results import Result
from pyneuro.search import search
from pyneuro.sites import CONVENTIONS, MODULES, Neuron, NeuronSet
from tests.search.conftest import CPU, FLOAT64, NATIVE
from tests.search.oracle import Answer, Hooked, Patching, expected, one_by_one, random_values, samples, softmax
from tests.tiny import PAIRS, fingerprint, make_tiny

MEASURED = ("nie", "se", "log_nie", "diff")


def of(result: Result | pd.DataFrame, treatment: str) -> pd.DataFrame:
    """The rows of one treatment."""
    table = result.frame() if isinstance(result, Result) else result
    return table[table["treatment"] == treatment].reset_index(drop=True)


# --- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_neuron_of_the_model_agrees_with_hooks(way, convention, clf, few):
    values = random_values(clf, "HOL", "LOL", convention=convention)
    result = search(clf, few, values, convention=convention, **way.options)
    neurons = list(NeuronSet.all(clf.shape))
    for treatment in ("HOL", "LOL"):
        wanted = expected(clf, few, one_by_one(values, treatment, neurons), Patching(convention))
        found = of(result, treatment)
        assert found["site"].tolist() == [str(n) for n in neurons]
        for column in MEASURED:
            way.check(found[column], wanted[column])


@pytest.mark.parametrize("response", ["odds", "log_odds", "logit_difference", "kl", "flip"])
def test_every_response_agrees_with_hooks(way, response, clf, few):
    values = random_values(clf, "z")
    sites = ["L0.O.*", "L1.K.*", "L2.AO.*", "L2.I.*"]
    result = search(clf, few, values, response=response, target="contradiction", sites=sites, **way.options)
    target = clf.target_index("contradiction")
    candidates = one_by_one(values, "z", list(NeuronSet.parse(sites, clf.shape)))
    wanted = expected(clf, few, candidates, answer=Answer(response, target))
    for column in MEASURED:
        way.check(result.frame()[column], wanted[column])
    assert wanted["nie"].abs().max() > 0


@pytest.mark.parametrize("foil", ["neutral", "contradiction"])
def test_a_foil_is_the_class_compared_with(way, foil, clf, few):
    values = random_values(clf, "z")
    result = search(clf, few, values, response="logit_difference", foil=foil, sites=["L1.V.*"], **way.options)
    candidates = one_by_one(values, "z", list(NeuronSet.parse(["L1.V.*"], clf.shape)))
    answer = Answer("logit_difference", clf.target_index("entailment"), clf.target_index(foil))
    way.check(result.frame()["nie"], expected(clf, few, candidates, answer=answer)["nie"])


@pytest.mark.parametrize(
    ("arch", "sizes", "target"),
    [
        ("bert", {"layers": 2, "hidden": 10, "heads": 2, "intermediate": 7, "labels": 2}, "non-entailment"),
        ("bert", {"layers": 2, "hidden": 12, "heads": 3, "intermediate": 20, "labels": 4}, "other-2"),
        ("bert", {"layers": 1, "hidden": 6, "heads": 1, "intermediate": 5, "labels": 3}, "neutral"),
        ("roberta", {"layers": 3, "hidden": 14, "heads": 2, "intermediate": 9, "labels": 3}, "contradiction"),
    ],
    ids=["2 classes", "4 classes", "1 layer", "roberta"],
)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_other_architectures_heads_and_depths_agree_with_hooks(way, convention, arch, sizes, target):
    clf = make_tiny(arch, attention_scale=1.0, **sizes)
    values = random_values(clf, "z", convention=convention)
    result = search(clf, PAIRS[3:6], values, target=target, convention=convention, **way.options)
    candidates = one_by_one(values, "z", list(NeuronSet.all(clf.shape)))
    wanted = expected(clf, PAIRS[3:6], candidates, Patching(convention), Answer(target=clf.target_index(target)))
    for column in MEASURED:
        way.check(result.frame()[column], wanted[column])


@pytest.mark.parametrize(
    "how",
    [
        Patching(intervention="weaken", strength=0.3),
        Patching(intervention="weaken", strength=-2.0),
        Patching(intervention="negate"),
        Patching(intervention="remove"),
        Patching(intervention="add"),
        Patching(intervention="add", strength=-0.5),
    ],
    ids=lambda how: f"{how.intervention} {how.strength}",
)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_intervention_agrees_with_hooks(way, convention, how, clf, few):
    how = replace(how, convention=convention)
    values = random_values(clf, "z", convention=convention) if how.intervention == "add" else None
    options = {"convention": convention, "intervention": how.intervention, "strength": how.strength, **way.options}
    result = search(clf, few[:2], values, **options)
    wanted = expected(clf, few[:2], one_by_one(values, "z", list(NeuronSet.all(clf.shape))), how)
    way.check(result.frame()["nie"], wanted["nie"])
    assert result.treatments == (["z"] if values else [how.intervention])


@pytest.mark.parametrize("token", [1, 4, "all"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_another_token_or_all_of_them_agrees_with_hooks(way, convention, token, clf, few):
    values = random_values(clf, "HOL", "LOL", convention=convention)
    sites = [f"L{layer}.{module}.{number}" for layer in range(3) for module in MODULES for number in (0, 7)]
    result = search(clf, few[:2], values, sites=sites, token=token, convention=convention, **way.options)
    for treatment in ("HOL", "LOL"):
        candidates = one_by_one(values, treatment, list(NeuronSet.parse(sites, clf.shape)))
        wanted = expected(clf, few[:2], candidates, Patching(convention, token=token))
        way.check(of(result, treatment)["nie"], wanted["nie"])


@NATIVE
def test_the_bundled_model_agrees_with_hooks(bundled, few):
    values = mean_activations(bundled, {"HOL": PAIRS[:3], "LOL": PAIRS[3:]})
    names = [f"L{layer}.{module}.{17 * layer + 5}" for layer in range(6) for module in MODULES]
    result = search(bundled, few[:2], values, sites=names, backend="cpu")
    neurons = [Neuron.parse(name) for name in names]
    wanted = expected(bundled, few[:2], one_by_one(values, "LOL", neurons))
    found = of(result, "LOL")
    structural = (found["layer"] == 0) & found["module"].isin(["Q", "K", "V"])
    np.testing.assert_allclose(found["nie"][~structural], wanted["nie"][~structural], rtol=1e-3, atol=1e-9)
    assert (found["nie"][structural] == 0).all()


@pytest.mark.parametrize("scale", [2.0, 3.0])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sharp_attention_that_moves_altogether_agrees_with_hooks(way, convention, scale, few):
    """Keys that held all of the probability lose it, where 1 + Σ p expm1(δs) would cancel."""
    clf = make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=scale)
    values = random_values(clf, "z", convention=convention)
    found = search(clf, few[:2], values, convention=convention, **way.options).frame()
    candidates = one_by_one(values, "z", list(NeuronSet.all(clf.shape)))
    way.check(found["nie"], expected(clf, few[:2], candidates, Patching(convention))["nie"])


def test_a_float64_model_is_analysed_in_float64(few):
    clf = make_tiny(layers=2, hidden=12, heads=2, intermediate=20, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights that float32 cannot hold
        for p in clf.model.parameters():
            p.mul_(1 + 1e-8 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    clf = wrap(clf.model, clf.tokenizer)
    values = random_values(clf, "z")
    found = search(clf, few[:2], values, **FLOAT64.options).frame()
    candidates = one_by_one(values, "z", list(NeuronSet.all(clf.shape)))
    FLOAT64.check(found["nie"], expected(clf, few[:2], candidates)["nie"])


# --- exact zeros -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [0, 2])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_neuron_replaced_by_its_own_value_has_exactly_no_effect(way, convention, token, clf, few):
    hooked = Hooked(clf)
    arrays = {
        ("own", *site): hooked.activation(few[0], *site, convention, token).astype(np.float32)
        for site in clf.shape.groups()
    }
    own = Values.from_arrays(arrays, convention=convention)
    for response in ("probability", "odds", "log_odds", "logit_difference", "kl", "flip"):
        options = {"convention": convention, "token": token, "response": response, **way.options}
        table = search(clf, few[0], own, **options).frame()
        assert (table[["nie", "diff", "min", "max"]] == 0).all(axis=None)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_first_layer_s_projections_of_cls_are_the_same_for_every_text_so_their_effect_is_exactly_zero(
    convention, clf, few
):
    values = mean_activations(clf, {"HOL": PAIRS[:3], "LOL": PAIRS[3:]}, convention)
    result = search(clf, few, values, sites=["L0.*.*"], convention=convention, backend="cpu")
    table = result.frame()
    projections = table["module"].isin(["Q", "K", "V"])
    assert (table.loc[projections, ["nie", "log_nie", "diff", "se", "min", "max"]] == 0).all(axis=None)
    assert (table.loc[~projections, "nie"] != 0).all()


# --- the table -------------------------------------------------------------------------------------------------------


def test_one_row_a_neuron_and_treatment_with_its_statistics(clf, few):
    result = search(clf, few, random_values(clf, "HOL", "LOL"), backend="reference")
    table = result.frame()
    assert len(table) == 2 * clf.shape.n_neurons
    assert " ".join(table.columns[:9]) == "site layer module neuron treatment nie se ci_low ci_high"
    assert {"log_nie", "diff", "n"} <= set(table.columns)
    assert result.treatments == ["HOL", "LOL"]
    assert (table["n"] == 4).all()
    row = table.iloc[100]
    assert row["site"] == f"L{row['layer']}.{row['module']}.{row['neuron']}"
    assert not table[["nie", "se", "ci_low", "ci_high", "log_nie", "diff"]].isna().any(axis=None)


@pytest.mark.parametrize("ci", [0.8, 0.99])
def test_the_interval_is_student_s(ci, clf, few):
    table = search(clf, few, random_values(clf), sites=["L1.O.*"], ci=ci, backend="reference").frame()
    half = stats.t.ppf(0.5 + ci / 2, 3) * table["se"]
    np.testing.assert_allclose(table["ci_low"], table["nie"] - half, rtol=1e-12)
    np.testing.assert_allclose(table["ci_high"], table["nie"] + half, rtol=1e-12)


def test_extremes_name_the_sample_they_come_from(clf, few):
    values = random_values(clf, "z")
    table = search(clf, few, values, sites=["L1.AO.*"], **FLOAT64.options).frame()
    candidates = one_by_one(values, "z", list(NeuronSet.parse("L1.AO.*", clf.shape)))
    effects = samples(clf, few, candidates, Patching(), Answer())[:, 0]
    assert table["min_sample"].tolist() == effects.argmin(0).tolist()
    assert table["max_sample"].tolist() == effects.argmax(0).tolist()
    FLOAT64.check(table["max"], effects.max(0))


def test_effects_split_by_gold_class_and_unlabelled_pairs_count_overall_only(clf):
    pairs = [*PAIRS, replace(PAIRS[0], id="bare", label=None)]
    values = random_values(clf, "z")
    sites = ["L2.V.*"]
    table = search(clf, pairs, values, sites=sites, **FLOAT64.options).frame()
    candidates = one_by_one(values, "z", list(NeuronSet.parse(sites, clf.shape)))
    effects = samples(clf, pairs, candidates, Patching(), Answer())[:, 0]
    for label in ("entailment", "neutral", "contradiction", "non-entailment"):
        mine = [i for i, pair in enumerate(pairs) if pair.label == label]
        column = label.replace("-", "_")
        assert (table[f"n_{column}"] == len(mine)).all()
        FLOAT64.check(table[f"nie_{column}"], effects[mine].mean(0))
        FLOAT64.check(table[f"se_{column}"], effects[mine].std(0, ddof=1) / len(mine) ** 0.5)
    assert (table["n"] == 9).all()
    FLOAT64.check(table["nie"], effects.mean(0))


def test_a_class_without_pairs_has_no_mean(clf, few):
    table = search(clf, few[:1], random_values(clf), sites=["L2.V.*"], backend="reference").frame()
    assert table["nie_neutral"].isna().all()
    assert (table["n_neutral"] == 0).all()
    assert (table["n_non_entailment"] == 1).all()


def test_pairs_need_no_label_attribute(clf, few):
    @dataclass(frozen=True)
    class Bare:
        id: str
        premise: str
        hypothesis: str

    bare = [Bare(p.id, p.premise, p.hypothesis) for p in few]
    values = random_values(clf)
    a, b = (search(clf, pairs, values, sites="L1.O.*", backend="reference").frame() for pairs in (bare, few))
    assert a["nie"].equals(b["nie"])
    assert (a["n_neutral"] == 0).all()


# --- treatments and their contrast -----------------------------------------------------------------------------------


def test_treatments_of_one_sweep_equal_searches_of_each_alone(way, clf, few):
    values = random_values(clf, "a", "b", "c")
    together = search(clf, few, values, **way.options)
    assert together.treatments == ["a", "b", "c"]
    for treatment in together.treatments:
        arrays = {("only", *site): values.array(treatment, *site) for site in clf.shape.groups()}
        alone = type(values).from_arrays(arrays, convention="linear")
        found = search(clf, few, alone, **way.options).frame().drop(columns="treatment")
        pd.testing.assert_frame_equal(found, of(together, treatment).drop(columns="treatment"), rtol=1e-4, atol=1e-7)


def test_the_contrast_is_the_paired_difference_with_its_own_error(way, clf, few):
    values = random_values(clf, "HOL", "LOL")
    contrast = search(clf, few, values, **way.options).contrast()
    neurons = list(NeuronSet.all(clf.shape))
    high, low = (samples(clf, few, one_by_one(values, t, neurons), Patching(), Answer()) for t in ("HOL", "LOL"))
    paired = high - low
    way.check(contrast["nie"], paired[:, 0].mean(0))
    way.check(contrast["se"], paired[:, 0].std(0, ddof=1) / 2)
    way.check(contrast["log_nie"], paired[:, 1].mean(0))
    way.check(contrast["diff"], paired[:, 2].mean(0))
    assert set(contrast["treatment"]) == {"HOL - LOL"}


def test_a_single_treatment_has_no_contrast(clf, few):
    result = search(clf, few[:1], random_values(clf, "z"), sites="L2.O.*", backend="reference")
    assert not result.has_contrast


# --- samples ---------------------------------------------------------------------------------------------------------


def test_one_pair_by_itself_is_a_search_without_errors(way, clf, few):
    values = random_values(clf, "z")
    alone = search(clf, few[1], values, sites=["L1.*.*"], **way.options).frame()
    listed = search(clf, [few[1]], values, sites=["L1.*.*"], **way.options).frame()
    pd.testing.assert_frame_equal(alone, listed)
    candidates = one_by_one(values, "z", list(NeuronSet.parse("L1.*.*", clf.shape)))
    way.check(alone["nie"], expected(clf, few[1:2], candidates)["nie"])
    assert (alone["n"] == 1).all()
    assert alone[["se", "ci_low", "ci_high"]].isna().all(axis=None)


def test_pairs_may_come_from_any_iterable(clf, few):
    values = random_values(clf)
    listed, generated = (search(clf, p, values, sites="L2.*.*", backend="reference") for p in (few, (p for p in few)))
    pd.testing.assert_frame_equal(listed.frame(), generated.frame())
    assert generated.manifest["ids"] == [p.id for p in few]


def test_the_order_of_samples_moves_nothing_but_rounding(way, clf):
    values = random_values(clf, "HOL", "LOL")
    forwards, backwards = (search(clf, p, values, **way.options).frame() for p in (PAIRS, PAIRS[::-1]))
    same = ["nie", "se", "log_nie", "diff", "min", "max", "n", "n_neutral", "nie_neutral"]
    pd.testing.assert_frame_equal(forwards[same], backwards[same], rtol=1e-9, atol=1e-13)
    assert forwards["max_sample"].equals(7 - backwards["max_sample"])


def test_a_pair_counts_as_often_as_it_is_given(clf, few):
    values = random_values(clf)
    once = search(clf, few, values, sites="L0.O.*", backend="reference").frame()
    twice = search(clf, [*few, *few], values, sites="L0.O.*", backend="reference").frame()
    np.testing.assert_allclose(once["nie"], twice["nie"], rtol=1e-12)
    assert (twice["n"] == 8).all()


def test_samples_below_the_probability_floor_are_left_out_and_named(way, clf):
    values = random_values(clf, "z")
    hooked = Hooked(clf)
    probability = np.array([softmax(hooked.run(pair)[0])[0] for pair in PAIRS])
    order = np.argsort(probability)
    floor = float(probability[order[2:4]].mean())  # between the third and the fourth
    result = search(clf, PAIRS, values, sites=["L1.AO.*"], probability_floor=floor, response="odds", **way.options)
    kept = [pair for pair, p in zip(PAIRS, probability, strict=True) if p >= floor]
    assert result.manifest["run"]["left_out_below_floor"] == sorted(PAIRS[i].id for i in order[:3])
    assert (result.frame()["n"] == len(kept)).all()
    candidates = one_by_one(values, "z", list(NeuronSet.parse("L1.AO.*", clf.shape)))
    way.check(result.frame()["nie"], expected(clf, kept, candidates, answer=Answer("odds"))["nie"])


def test_a_floor_that_every_sample_passes_changes_nothing(clf, few):
    values = random_values(clf)
    plain, floored = (
        search(clf, few, values, sites="L2.*.*", probability_floor=floor, backend="reference") for floor in (None, 0.0)
    )
    pd.testing.assert_frame_equal(plain.frame(), floored.frame())
    assert floored.manifest["run"]["left_out_below_floor"] == []


# --- sites -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "count"),
    [
        ("all", 240),
        ("L1.I.3", 1),
        ("L2.*.*", 80),
        (["L0.Q.*", "L*.AO.5", "L0.Q.2"], 15),
        ([Neuron(2, "O", 11), Neuron(0, "V", 0)], 2),
        (("L1.I.3", "L1.I.3"), 1),
    ],
)
def test_sites_may_be_names_patterns_or_neurons(sites, count, clf, few):
    values = random_values(clf)
    found = search(clf, few[:1], values, sites=sites, backend="reference").frame()
    every = search(clf, few[:1], values, backend="reference").frame()
    assert len(found) == count
    wanted = every[every["site"].isin(found["site"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4, atol=1e-8)


def test_a_neuron_set_is_each_of_its_neurons_alone(clf, few):
    values = random_values(clf)
    chosen = NeuronSet(clf.shape, [200, 3, 77])
    table = search(clf, few[:2], values, sites=chosen, backend="reference").frame()
    assert table["site"].tolist() == [str(n) for n in chosen]
    named = search(clf, few[:2], values, sites=table["site"].tolist()[::-1], backend="reference").frame()
    pd.testing.assert_frame_equal(table, named)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_groups_wider_than_what_is_carried_at_once_are_put_together_rightly(way, layer, few):
    clf = make_tiny(layers=3, hidden=8, heads=2, intermediate=1000, attention_scale=1.0)
    values = random_values(clf, "HOL", "LOL")
    whole = search(clf, few[0], values, sites=f"L{layer}.I.*", **way.options).frame()
    picked = [0, 111, 112, 113, 447, 448, 895, 896, 999]
    alone = search(clf, few[0], values, sites=[f"L{layer}.I.{i}" for i in picked], **way.options).frame()
    assert len(whole) == 2000
    way.check(whole["nie"][[*picked, *(1000 + i for i in picked)]], alone["nie"])
    candidates = one_by_one(values, "LOL", [Neuron(layer, "I", i) for i in picked])
    way.check(of(whole, "LOL")["nie"][picked], expected(clf, few[:1], candidates)["nie"])


def test_values_are_needed_only_where_something_is_patched(clf, few):
    values = random_values(clf, "z")
    one = type(values).from_arrays({("z", 1, "I"): values.array("z", 1, "I")}, convention="linear")
    a, b = (search(clf, few[:1], v, sites="L1.I.*", backend="reference").frame() for v in (values, one))
    pd.testing.assert_frame_equal(a, b)


# --- what stays as it was --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training, clf, few):
    own = make_tiny(layers=2, hidden=8, heads=2, intermediate=6)
    own.model.train(training)
    own.model.base_model.encoder.layer[0].eval()  # flags differ between modules
    before = fingerprint(own.model)
    values = random_values(own, "HOL", "LOL")
    first = search(own, few, values, backend="reference").frame()
    search(own, few[:1], values, sites={"s": NeuronSet.all(own.shape)}, token="all", backend="reference")
    assert fingerprint(own.model) == before
    own.model.eval()
    pd.testing.assert_frame_equal(first, search(own, few, values, backend="reference").frame())


def test_values_and_pairs_are_left_as_they_were(clf, few):
    values = random_values(clf, "HOL", "LOL")
    digest, pairs = values.digest(), list(few)
    search(clf, pairs, values, sites="L2.*.*", backend="reference")
    assert values.digest() == digest
    assert pairs == list(few)


# --- the record ------------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_was_computed_from_what(clf, few):
    values = random_values(clf, "HOL", "LOL", convention="hook")
    options = {"response": "odds", "convention": "hook", "probability_floor": 0.01, "backend": "reference"}
    result = search(clf, few, values, sites="L2.O.*", **options)
    settings, run = result.manifest["settings"], result.manifest["run"]
    assert settings["model"] == {"name": "tiny-bert", "digest": clf.digest, "labels": dict(clf.label_index)}
    assert settings["values"]["digest"] == values.digest()
    assert settings["treatments"] == ["HOL", "LOL"]
    assert (settings["response"]["name"], settings["response"]["target"]) == ("odds", "entailment")
    assert (settings["convention"], settings["token"], settings["probability_floor"]) == ("hook", 0, 0.01)
    assert settings["intervention"] == {"kind": "replace", "strength": None}
    assert (settings["method"], settings["precision"]) == ("exact", "fp32")
    assert result.manifest["ids"] == [p.id for p in few]
    assert run["patched_runs"] == 12 * 4 * 2
    assert run["seconds"] > 0
    assert run["threads"] >= 1


@NATIVE
def test_without_a_choice_the_native_kernels_compute(monkeypatch, clf, few):
    monkeypatch.delenv("PYNEURO_BACKEND", raising=False)
    values = random_values(clf)
    default, chosen = (search(clf, few[:1], values, sites="L1.*.*", **o) for o in ({}, CPU.options))
    pd.testing.assert_frame_equal(default.frame(), chosen.frame())


def test_the_environment_variable_chooses_the_backend(monkeypatch, clf, few):
    monkeypatch.setenv("PYNEURO_BACKEND", "reference")
    values = random_values(clf)
    default, chosen = (search(clf, few[:1], values, sites="L1.*.*", **o) for o in ({}, {"backend": "reference"}))
    pd.testing.assert_frame_equal(default.frame(), chosen.frame())
