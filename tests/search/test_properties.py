"""Laws that hold for any small model, any texts and any intervention."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyneuro.engine.values import Values
from pyneuro.models import wrap
from pyneuro.search import search
from pyneuro.sites import CONVENTIONS, NeuronSet
from tests.search.conftest import FLOAT64
from tests.search.oracle import Answer, Patching, expected, one_by_one, random_values, together
from tests.tiny import PAIRS, SamplePair, make_tiny

LAWS = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

WORDS = re.findall(r"\S+", "the dog dogs slept animals run ran 7 . , no senators called lawyer because if xyz")
RESPONSES = ("probability", "odds", "log_odds", "logit_difference", "kl")

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
labels = st.sampled_from(["entailment", "neutral", "contradiction", "non-entailment", None])
any_pair = st.builds(SamplePair, st.uuids().map(str), texts, texts, labels)
any_pairs = st.lists(any_pair, min_size=1, max_size=3)
strengths = st.floats(-3, 3, allow_nan=False)
hows = st.one_of(
    st.just(Patching()),
    st.just(Patching(intervention="negate")),
    st.just(Patching(intervention="remove")),
    st.builds(Patching, intervention=st.just("weaken"), strength=strengths),
    st.builds(Patching, intervention=st.just("add"), strength=strengths),
).flatmap(
    lambda how: st.builds(
        replace, st.just(how), convention=st.sampled_from(CONVENTIONS), token=st.sampled_from([0, 0, 1, "all"])
    )
)


@cache
def model(arch, layers, heads, width, intermediate, classes, seed):
    sizes = {"layers": layers, "hidden": heads * width, "heads": heads, "intermediate": intermediate}
    return make_tiny(arch, **sizes, labels=classes, seed=seed, attention_scale=1.0)


models = st.builds(
    model,
    st.sampled_from(["bert", "roberta"]),
    layers=st.integers(1, 4),
    heads=st.integers(1, 3),
    width=st.integers(3, 6),
    intermediate=st.integers(1, 17),
    classes=st.integers(2, 4),
    seed=st.integers(0, 2),
)


def searched(clf, pairs, values, how, **options):
    """A float64 search of what `how` says."""
    options = {"convention": how.convention, "intervention": how.intervention, "strength": how.strength, **options}
    return search(clf, pairs, values, token=how.token, **options, **FLOAT64.options)


def values_for(clf, how, *treatments):
    """Random values where the intervention takes some."""
    if how.intervention not in ("replace", "add"):
        return None
    return random_values(clf, *(treatments or ("z",)), convention=how.convention)


def ids(draw, clf, most):
    return draw(st.lists(st.integers(0, clf.shape.n_neurons - 1), min_size=1, max_size=most, unique=True))


@LAWS
@given(st.data(), models, any_pairs, hows, st.sampled_from(RESPONSES))
def test_neurons_and_sets_of_any_model_agree_with_hooks(data, clf, pairs, how, response):
    values = values_for(clf, how)
    neurons = NeuronSet(clf.shape, ids(data.draw, clf, 8))
    sets = {f"s{i}": NeuronSet(clf.shape, ids(data.draw, clf, 6)) for i in range(2)}
    answer = Answer(response)
    alone = searched(clf, pairs, values, how, sites=neurons, response=response).frame()
    FLOAT64.check(alone["nie"], expected(clf, pairs, one_by_one(values, "z", list(neurons)), how, answer)["nie"])
    jointly = searched(clf, pairs, values, how, sites=sets, response=response).frame()
    candidates = [together(values, "z", list(s)) for s in sets.values()]
    FLOAT64.check(jointly["nie"], expected(clf, pairs, candidates, how, answer)["nie"])


@LAWS
@given(models, any_pairs, st.sampled_from(CONVENTIONS), st.sampled_from([0, 1, "all"]), st.sampled_from(RESPONSES))
def test_what_changes_nothing_has_exactly_no_effect(clf, pairs, convention, token, response):
    nothing = [Patching(convention, "add", 0.0, token), Patching(convention, "weaken", 1.0, token)]
    for how in nothing:
        for sites in ("all", {"everything": NeuronSet.all(clf.shape)}):
            table = searched(clf, pairs, values_for(clf, how), how, sites=sites, response=response).frame()
            assert (table[["nie", "diff", "min", "max"]] == 0).all(axis=None)
            assert (table["n"] == len(pairs)).all()


@LAWS
@given(st.data(), models, any_pairs, hows)
def test_the_order_of_pairs_does_not_matter(data, clf, pairs, how):
    values = values_for(clf, how)
    shuffled = data.draw(st.permutations(pairs))
    a, b = (searched(clf, p, values, how, sites="L0.*.*").frame() for p in (pairs, shuffled))
    np.testing.assert_allclose(a["nie"], b["nie"], rtol=1e-9, atol=1e-14)
    assert a["n"].equals(b["n"])


@LAWS
@given(models, any_pairs, any_pairs, hows)
def test_the_mean_of_two_samples_together_is_the_weighted_mean_of_each(clf, first, second, how):
    values = values_for(clf, how)
    a, b, both = (searched(clf, p, values, how, sites="L0.*.*").frame() for p in (first, second, [*first, *second]))
    pooled = (len(first) * a["nie"] + len(second) * b["nie"]) / (len(first) + len(second))
    np.testing.assert_allclose(both["nie"], pooled, rtol=1e-9, atol=1e-13)


@LAWS
@given(models, any_pairs, st.sampled_from(CONVENTIONS), strengths)
def test_interventions_that_come_to_the_same_have_the_same_effect(clf, pairs, convention, strength):
    z = random_values(clf, convention=convention)
    scaled = {("HOL", *site): strength * z.array("HOL", *site) for site in clf.shape.groups()}
    zero = {site: 0 * array for site, array in scaled.items()}
    same = [
        ((None, Patching(intervention="negate")), (None, Patching(intervention="weaken", strength=-1.0))),
        ((None, Patching(intervention="remove")), (None, Patching(intervention="weaken", strength=0.0))),
        ((None, Patching(intervention="remove")), (Values.from_arrays(zero, convention=convention), Patching())),
        (
            (z, Patching(intervention="add", strength=strength)),
            (Values.from_arrays(scaled, convention=convention), Patching(intervention="add")),
        ),
    ]
    for sides in same:
        a, b = (
            searched(clf, pairs, values, replace(how, convention=convention), sites="all").frame()
            for values, how in sides
        )
        np.testing.assert_allclose(a["nie"], b["nie"], rtol=1e-7, atol=1e-12)


@LAWS
@given(models, any_pairs, hows)
def test_the_contrast_is_the_difference_of_the_means(clf, pairs, how):
    values = random_values(clf, "a", "b", convention=how.convention)
    how = replace(how, intervention="replace", strength=None)
    result = searched(clf, pairs, values, how, sites="L0.*.*")
    table = result.frame()
    a, b = (table[table["treatment"] == t]["nie"].to_numpy() for t in ("a", "b"))
    np.testing.assert_allclose(result.contrast()["nie"], a - b, rtol=1e-9, atol=1e-13)


@LAWS
@given(st.data(), models, any_pairs)
def test_a_neuron_that_nothing_reads_has_exactly_no_effect(data, clf, pairs):
    """With its column of the next matrix zeroed, an intermediate neuron can be anything."""
    layer = data.draw(st.integers(0, clf.shape.layers - 1))
    neuron = data.draw(st.integers(0, clf.shape.intermediate - 1))
    deaf = copy.deepcopy(clf.model)
    with torch.no_grad():
        deaf.base_model.encoder.layer[layer].output.dense.weight[:, neuron] = 0
    own = wrap(deaf, clf.tokenizer)
    table = search(own, pairs, random_values(own), sites=f"L{layer}.I.{neuron}", **FLOAT64.options).frame()
    assert (table["nie"] == 0).all()


@LAWS
@given(any_pairs, st.integers(0, 2))
def test_a_constant_added_to_every_logit_changes_nothing(pairs, seed):
    clf = model("bert", 2, 2, 4, 7, 3, seed)
    shifted = copy.deepcopy(clf.model)
    with torch.no_grad():
        shifted.classifier.bias += 3.0
    other = wrap(shifted, clf.tokenizer)
    a, b = (search(c, pairs, random_values(c), response="odds", **FLOAT64.options).frame() for c in (clf, other))
    replace(FLOAT64, tolerance=1e-5).check(a["nie"], b["nie"])  # the float32 biases themselves are rounded


def test_the_laws_meet_pairs_that_people_write():
    """The strategies' words are split by the tokenizer as those of real pairs are."""
    clf = model("bert", 1, 1, 3, 2, 2, 0)
    assert {len(clf.encode(SamplePair("x", "xyz", "7"))), len(clf.encode(PAIRS[0]))} == {7, 18}
