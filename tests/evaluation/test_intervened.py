"""A classifier under an intervention computes what a search of the same set says it does, and is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyneuro.engine.intervention import Intervention
from pyneuro.errors import InputError
from pyneuro.evaluation import intervened
from pyneuro.search import search
from pyneuro.sites import CONVENTIONS, NeuronSet
from tests.search.oracle import random_values
from tests.tiny import PAIRS, fingerprint, make_tiny

NAMES = ["L0.Q.2", "L0.AO.5", "L1.I.3", "L1.I.17", "L1.O.0", "L2.V.4", "L2.O.6"]
INTERVENTIONS = [
    Intervention("weaken", 0.3),
    Intervention("negate"),
    Intervention("remove"),
    Intervention("replace"),
    Intervention("add", 0.5),
]


@pytest.fixture(scope="module")
def clf():
    return make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0, dtype=torch.float64)


@pytest.mark.parametrize("token", [0, "all"])
@pytest.mark.parametrize("how", INTERVENTIONS, ids=lambda how: how.kind)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_agrees_with_a_search_of_the_set(clf, convention, how, token) -> None:
    neurons = NeuronSet.parse(NAMES, clf.shape)
    values = random_values(clf, "HOL", "LOL", convention=convention) if how.needs_values else None
    treatment = "LOL" if how.needs_values else None
    before = fingerprint(clf.model)
    encodings = [clf.encode(pair) for pair in PAIRS[:4]]
    plain = clf.logits(encodings).softmax(-1)[:, 0]
    with intervened(clf, neurons, how, convention=convention, token=token, values=values, treatment=treatment):
        patched = clf.logits(encodings).softmax(-1)[:, 0]  # one padded batch
    assert fingerprint(clf.model) == before
    options = {"backend": "reference", "precision": "float64", "convention": convention, "token": token}
    result = search(clf, PAIRS[:4], values, sites={"s": neurons}, intervention=how, **options)
    wanted = result.frame().set_index("treatment").loc[treatment or how.kind]
    assert float((patched - plain).mean()) == pytest.approx(wanted["diff"], rel=1e-7)
    assert abs(wanted["diff"]) > 1e-6


def test_the_hooks_are_gone_after_an_error_and_no_neurons_change_nothing(clf) -> None:
    before = fingerprint(clf.model)
    with pytest.raises(ZeroDivisionError), intervened(clf, NeuronSet.all(clf.shape), Intervention("remove")):
        raise ZeroDivisionError
    assert fingerprint(clf.model) == before
    encodings = [clf.encode(PAIRS[0])]
    plain = clf.logits(encodings)
    with intervened(clf, NeuronSet(clf.shape, []), Intervention("remove")):
        assert torch.equal(clf.logits(encodings), plain)


def test_blocks_stand_within_each_other(clf) -> None:
    neurons, encodings = NeuronSet.parse(NAMES, clf.shape), [clf.encode(PAIRS[1])]
    with intervened(clf, neurons, Intervention("weaken", 0.25)):
        once = clf.logits(encodings)
    with intervened(clf, neurons, Intervention("weaken", 0.5)), intervened(clf, neurons, Intervention("weaken", 0.5)):
        np.testing.assert_allclose(clf.logits(encodings), once, rtol=1e-12)


def test_gradients_flow_through_it(clf) -> None:
    batch = clf.batch([clf.encode(PAIRS[0])])
    weight = clf.adapter.module(clf.model, 1, "I", "linear").weight
    with intervened(clf, NeuronSet.parse("L1.I.*", clf.shape), Intervention("remove"), token="all"):
        clf.model(**batch).logits[0, 0].backward()
    assert float(weight.grad.abs().max()) == 0.0  # every neuron is a constant
    assert float(clf.model.classifier.weight.grad.abs().max()) > 0
    clf.model.zero_grad()


def test_bad_input_is_named(clf) -> None:
    neurons = NeuronSet.parse("L0.Q.0", clf.shape)
    other = make_tiny(layers=2, hidden=12, heads=2, intermediate=20)
    values = random_values(clf, "HOL", "LOL")
    replace, remove = Intervention("replace"), Intervention("remove")
    for how, options, message in (
        (remove, {"convention": "both"}, "convention 'both'"),
        (remove, {"token": 1}, "token = 1"),
        (remove, {"values": values}, "takes no values"),
        (replace, {}, "needs replacement values"),
        (replace, {"values": values}, "whose values"),
        (replace, {"values": values, "treatment": "x"}, "treatment 'x'"),
        (replace, {"values": values, "treatment": "HOL", "convention": "hook"}, "convention"),
    ):
        with pytest.raises(InputError, match=message), intervened(clf, neurons, how, **options):
            pass
    with pytest.raises(InputError, match="the neurons are of a model"), intervened(other, neurons, remove):
        pass
