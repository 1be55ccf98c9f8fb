"""Sets of neurons patched together, against hooks in float64: within a module, across modules, across layers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pyneuro.engine.values import Values, mean_activations
from pyneuro.results import load_result
from pyneuro.search import search
from pyneuro.search.targets import make_groups
from pyneuro.sites import CONVENTIONS, MODULES, Neuron, NeuronSet
from tests.search.conftest import FLOAT64
from tests.search.oracle import Answer, Hooked, Patching, expected, random_values, samples, together
from tests.tiny import make_tiny

# A later patch meets what an earlier one changed: within a layer, through the residual, through later layers.
SPANS = {
    "one module": ["L1.I.3", "L1.I.4", "L1.I.11"],
    "one layer": ["L1.Q.2", "L1.K.2", "L1.V.7", "L1.AO.0", "L1.I.5", "L1.O.0"],
    "first and last layer": ["L0.O.6", "L2.AO.6", "L2.O.1"],
    "the same coordinate everywhere": ["L*.AO.3", "L*.O.3"],
    "every kind in every layer": [
        f"L{layer}.{m}.{2 * k + layer % 2}" for layer in range(3) for k, m in enumerate(MODULES)
    ],
    "whole modules": ["L0.K.*", "L1.V.*", "L2.Q.*"],
    "only the last layer": ["L2.I.*"],
}
INTERVENTIONS = [
    Patching(),
    Patching(intervention="weaken", strength=0.4),
    Patching(intervention="negate"),
    Patching(intervention="remove"),
    Patching(intervention="add", strength=0.7),
]


def sets_of(clf, names=SPANS):
    return {name: NeuronSet.parse(members, clf.shape) for name, members in names.items()}


@pytest.mark.parametrize("how", INTERVENTIONS, ids=lambda how: how.intervention)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_sets_over_modules_and_layers_agree_with_hooks(way, convention, how, clf, few):
    how = Patching(convention, how.intervention, how.strength)
    needs_values = how.intervention in ("replace", "add")
    values = random_values(clf, "HOL", "LOL", convention=convention) if needs_values else None
    sets = sets_of(clf)
    options = {"convention": convention, "intervention": how.intervention, "strength": how.strength, **way.options}
    result = search(clf, few, values, sites=sets, **options)
    table = result.frame()
    for treatment in result.treatments:
        wanted = expected(clf, few, [together(values, treatment, list(s)) for s in sets.values()], how)
        found = table[table["treatment"] == treatment]
        assert found["site"].tolist() == list(sets)
        for column in ("nie", "se", "log_nie", "diff"):
            way.check(found[column], wanted[column])


@pytest.mark.parametrize("token", [2, "all"])
@pytest.mark.parametrize("how", INTERVENTIONS, ids=lambda how: how.intervention)
def test_sets_at_other_tokens_agree_with_hooks(token, how, clf, few):
    how = Patching("hook", how.intervention, how.strength, token)
    values = random_values(clf, "z", convention="hook") if how.intervention in ("replace", "add") else None
    sets = sets_of(clf)
    options = {"intervention": how.intervention, "strength": how.strength, "token": token, "convention": "hook"}
    found = search(clf, few[:2], values, sites=sets, **options, **FLOAT64.options).frame()
    wanted = expected(clf, few[:2], [together(values, "z", list(s)) for s in sets.values()], how)
    FLOAT64.check(found["nie"], wanted["nie"])


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_the_whole_model_as_one_set_agrees_with_hooks(way, arch, few):
    clf = make_tiny(arch, layers=2, hidden=8, heads=2, intermediate=12, attention_scale=1.0)
    values = random_values(clf, "z")
    everything = NeuronSet.all(clf.shape)
    found = search(clf, few, values, sites={"all": everything}, **way.options).frame()
    way.check(found["nie"], expected(clf, few, [together(values, "z", list(everything))])["nie"])


def test_with_every_output_of_the_last_layer_replaced_all_samples_say_the_same(clf, few):
    """Then the prediction is the classifier's of the replacement value alone."""
    values = random_values(clf, "z", convention="hook")
    sets = {"all of the last output": NeuronSet.parse("L2.O.*", clf.shape)}
    hooked, differences, bases = Hooked(clf), [], []
    for pair in few:
        options = {"convention": "hook", "response": "logit_difference", "foil": "neutral", **FLOAT64.options}
        differences.append(search(clf, pair, values, sites=sets, **options).frame()["diff"][0])
        logits = hooked.run(pair)[0]
        bases.append(logits[0] - logits[1])
    np.testing.assert_allclose(np.array(differences) + bases, differences[0] + bases[0], rtol=1e-9)


@pytest.mark.parametrize("intervention", ["replace", "negate", "add"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_set_of_one_is_that_neuron(way, convention, intervention, clf, few):
    values = None if intervention == "negate" else random_values(clf, "HOL", "LOL", convention=convention)
    names = [f"L{layer}.{module}.{3 * layer + 1}" for layer in range(3) for module in MODULES]
    singles = {name: NeuronSet.parse(name, clf.shape) for name in names}
    options = {"convention": convention, "intervention": intervention, **way.options}
    sets = search(clf, few, values, sites=singles, **options).frame()
    neurons = search(clf, few, values, sites=names, **options).frame()
    assert sets["site"].tolist() == neurons["site"].tolist()
    for column in ("nie", "se", "min", "max"):
        way.check(sets[column], neurons[column])


def test_the_effect_of_a_set_is_not_the_sum_of_its_members(clf, few):
    values = random_values(clf, "z")
    members = NeuronSet.parse(["L0.AO.*", "L1.O.*"], clf.shape)
    joint = search(clf, few, values, sites={"s": members}, **FLOAT64.options).frame()["nie"][0]
    alone = search(clf, few, values, sites=members, **FLOAT64.options).frame()["nie"].sum()
    assert abs(joint - alone) > 0.1 * abs(joint)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_set_replaced_by_its_own_values_has_exactly_no_effect(way, convention, clf, few):
    own = mean_activations(clf, {"own": few[:1]}, convention)
    sets = {**sets_of(clf), "everything": NeuronSet.all(clf.shape)}
    table = search(clf, few[0], own, sites=sets, convention=convention, **way.options).frame()
    assert (table[["nie", "log_nie", "diff"]] == 0).all(axis=None)


def test_a_later_replacement_stands_whatever_came_before_it(clf, few):
    """Replacing the whole last output by its own value undoes everything that was done before it."""
    values = random_values(clf, "z", convention="hook")
    own = mean_activations(clf, {"own": few[:1]}, "hook").array("own", 2, "O")
    mixed = {("z", *site): own if site == (2, "O") else values.array("z", *site) for site in clf.shape.groups()}
    sets = {"undone": NeuronSet.parse(["L0.*.*", "L1.I.*", "L2.O.*"], clf.shape)}
    values = Values.from_arrays(mixed, convention="hook")
    table = search(clf, few[0], values, sites=sets, convention="hook", backend="reference").frame()
    assert table["nie"][0] == 0


def test_members_and_their_order_do_not_matter_within_a_set(clf, few):
    values = random_values(clf)
    names = ["L2.O.1", "L0.K.3", "L1.I.19", "L0.K.0"]
    sets = {
        "forwards": NeuronSet.parse(names, clf.shape),
        "backwards": NeuronSet.parse([*names[::-1], names[1]], clf.shape),
    }
    table = search(clf, few[:2], values, sites=sets, backend="reference").frame()
    assert table["nie"][0] == table["nie"][1]


def test_sets_do_not_disturb_each_other(way, clf, few):
    values = random_values(clf, "HOL", "LOL")
    sets = sets_of(clf)
    every = search(clf, few[:2], values, sites=sets, **way.options).frame()
    for name in sets:
        alone = search(clf, few[:2], values, sites={name: sets[name]}, **way.options).frame()
        way.check(alone["nie"], every.loc[every["site"] == name, "nie"])


def test_overlapping_sets_and_many_of_them_keep_their_rows(clf, few):
    rng = np.random.default_rng(0)
    sets = {
        f"random {i}": NeuronSet(clf.shape, rng.choice(clf.shape.n_neurons, size=1 + i % 9, replace=False))
        for i in range(130)  # more than are carried at once
    }
    values = random_values(clf, "z")
    table = search(clf, few[:1], values, sites=sets, **FLOAT64.options).frame()
    wanted = expected(clf, few[:1], [together(values, "z", list(s)) for s in sets.values()])
    FLOAT64.check(table["nie"], wanted["nie"])
    assert table["size"].tolist() == [len(s) for s in sets.values()]


def test_rows_of_sets_carry_their_names_and_sizes_and_no_neuron(clf, few):
    sets = sets_of(clf)
    result = search(clf, few, random_values(clf, "HOL", "LOL"), sites=sets, backend="reference")
    table = result.frame()
    assert result.kind == "sets"
    assert table["site"].tolist() == [*sets, *sets]
    assert table["size"].tolist() == [len(s) for s in sets.values()] * 2
    assert table[["layer", "module", "neuron"]].isna().all(axis=None)
    assert result.sets() == sets
    contrast = result.contrast()
    high, low = (table[table["treatment"] == t]["nie"].to_numpy() for t in ("HOL", "LOL"))
    np.testing.assert_allclose(contrast["nie"], high - low, rtol=1e-6, atol=1e-12)


def test_the_contrast_of_sets_is_paired(clf, few):
    sets = sets_of(clf)
    values = random_values(clf, "HOL", "LOL")
    contrast = search(clf, few, values, sites=sets, **FLOAT64.options).contrast()
    effects = [
        samples(clf, few, [together(values, t, list(s)) for s in sets.values()], Patching(), Answer())[:, 0]
        for t in ("HOL", "LOL")
    ]
    FLOAT64.check(contrast["se"], (effects[0] - effects[1]).std(0, ddof=1) / len(few) ** 0.5)


def test_sets_saved_and_loaded_are_the_same(tmp_path, clf, few):
    sets = sets_of(clf)
    result = search(clf, few[:2], random_values(clf), sites=sets, backend="reference", out=tmp_path)
    again = load_result(tmp_path)
    pd.testing.assert_frame_equal(again.frame(), result.frame())
    assert again.sets() == sets
    assert Neuron(1, "Q", 2) in again.sets()["one layer"]


def test_a_group_of_sets_begins_at_the_first_site_of_any(clf):
    names = {"late": ["L2.Q.0", "L2.O.1"], "first": ["L1.AO.3", "L2.K.0"], "later in the layer": ["L1.O.*"]}
    (group,) = make_groups(sets_of(clf, names), None)
    assert (group.layer, group.module) == (1, "AO")
