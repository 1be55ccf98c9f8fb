"""The door of a search, and what a search must not lose: numbers, names, results."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from pyneuro.effects import Moments
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.plan import base_run_bytes, candidate_bytes
from pyneuro.errors import InputError, ResumeError
from pyneuro.models import wrap
from pyneuro.results import load_result
from pyneuro.search import search
from pyneuro.search.exact import ExactEvaluator
from pyneuro.search.targets import SetGroup
from pyneuro.sites import NeuronSet
from tests.search.conftest import FP32
from tests.search.oracle import Hooked, Patching, expected, one_by_one, random_values, softmax
from tests.tiny import PAIRS, make_tiny

SEARCHED = ["L0.Q.*", "L1.V.*", "L1.I.*", "L2.O.*"]
REF = {"backend": "reference"}


@pytest.fixture(scope="session")
def clf():
    return make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0)


@pytest.fixture(scope="session")
def few():
    return PAIRS[:4]


@pytest.fixture
def no_work(monkeypatch):
    def begin(*_):
        raise AssertionError("a sample was run before the input had been refused")

    monkeypatch.setattr(ExactEvaluator, "begin", begin)


# Keys of probability 1e-40 whose scores rise most must not push the others out of range.


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_very_sharp_attention_agrees_with_hooks(backend):
    clf = make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=4.0)
    values = random_values(clf, "z", convention="hook")
    neurons = list(NeuronSet.parse("L0.AO.*", clf.shape))
    found = search(clf, PAIRS[1], values, convention="hook", sites="L0.AO.*", backend=backend).frame()
    wanted = expected(clf, PAIRS[1:2], one_by_one(values, "z", neurons), Patching("hook"))
    FP32.check(found["nie"], wanted["nie"])


# Ctrl-C inside Moments.update: the half-added sample is written, then added again


@pytest.mark.parametrize("at", range(26, 50, 3))
def test_an_interrupt_while_a_sample_is_added_counts_it_once(at, monkeypatch, clf, tmp_path):
    values = random_values(clf, "HOL", "LOL")
    whole = search(clf, PAIRS, values, sites=SEARCHED, **REF).frame()
    update, calls = Moments.update, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        update(*arguments)

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(Moments, "update", interrupted)
        search(clf, PAIRS, values, sites=SEARCHED, out=tmp_path, **REF)
    again = search(clf, PAIRS, values, sites=SEARCHED, out=tmp_path, resume=True, **REF).frame()
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


# samples left out below the floor are forgotten by a resume


def test_a_resumed_search_names_every_sample_left_out(monkeypatch, clf, tmp_path):
    probability = sorted(softmax(Hooked(clf).run(pair)[0])[0] for pair in PAIRS)
    floor = (probability[3] + probability[4]) / 2
    values = random_values(clf)
    options = {"sites": SEARCHED, "probability_floor": floor, **REF}
    whole = search(clf, PAIRS, values, **options)
    compute, calls = ExactEvaluator.neurons, []

    def neurons(*arguments):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return compute(*arguments)

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(ExactEvaluator, "neurons", neurons)
        search(clf, PAIRS, values, out=tmp_path, **options)
    again = search(clf, PAIRS, values, out=tmp_path, resume=True, **options)
    left_out = again.manifest["run"]["left_out_below_floor"]
    assert left_out == whole.manifest["run"]["left_out_below_floor"]
    assert len(left_out) == 4


# a finished result is overwritten without a word


def test_a_finished_result_is_not_overwritten_by_accident(no_work, monkeypatch, clf, few, tmp_path):
    monkeypatch.undo()
    values = random_values(clf)
    first = search(clf, few, values, sites=SEARCHED, out=tmp_path, **REF)
    for other in ({"response": "odds"}, {}):
        with pytest.raises(InputError, match="holds a finished result"):
            search(clf, few, values, sites=SEARCHED, out=tmp_path, **other, **REF)
    pd.testing.assert_frame_equal(load_result(tmp_path).frame(), first.frame())


def test_resuming_a_finished_search_gives_its_result_and_computes_nothing(monkeypatch, clf, few, tmp_path):
    values = random_values(clf)
    first = search(clf, few, values, sites=SEARCHED, out=tmp_path, **REF)
    monkeypatch.setattr(ExactEvaluator, "begin", None)
    again = search(clf, few, values, sites=SEARCHED, out=tmp_path, resume=True, **REF)
    pd.testing.assert_frame_equal(again.frame(), first.frame())
    with pytest.raises(ResumeError, match="response"):
        search(clf, few, values, sites=SEARCHED, out=tmp_path, resume=True, response="odds", **REF)


# what the model sees of the pairs (max_length, tokenizer) is no setting


def test_a_resume_with_another_truncation_is_refused(monkeypatch, clf, tmp_path):
    compute, calls = ExactEvaluator.neurons, []
    values = random_values(clf)

    def neurons(*arguments):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return compute(*arguments)

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(ExactEvaluator, "neurons", neurons)
        search(clf, PAIRS, values, sites=SEARCHED, out=tmp_path, **REF)
    shorter = wrap(clf.model, clf.tokenizer, max_length=10, name=clf.name)
    with pytest.raises(ResumeError, match=r"data\.|max_length"):
        search(shorter, PAIRS, values, sites=SEARCHED, out=tmp_path, resume=True, **REF)


# found only after, or in the middle of, the work


def test_a_treatment_called_contrast_is_refused_before_the_work(no_work, clf, few):
    with pytest.raises(InputError, match="cannot be called 'contrast'"):
        search(clf, few, random_values(clf, "contrast", "b"), sites=SEARCHED, **REF)


def test_a_budget_too_small_for_the_longest_sample_is_refused_before_the_work(no_work, clf):
    lengths = [len(clf.encode(p)) for p in PAIRS]
    pairs = sorted(PAIRS, key=lambda p: len(clf.encode(p)))
    backend = choose_backend("reference", "fp32")
    budget = base_run_bytes(clf.shape, min(lengths), backend) + 3 * candidate_bytes(clf.shape, min(lengths), backend)
    with pytest.raises(InputError, match=f"too small for a sample of {max(lengths)} tokens"):
        search(clf, pairs, random_values(clf), memory=budget, **REF)


def test_a_budget_below_a_mebibyte_is_not_called_zero(clf, few):
    with pytest.raises(InputError) as caught:
        search(clf, few, random_values(clf), memory=1000, **REF)
    assert "0 MiB" not in str(caught.value)


# wrong kinds of things


@pytest.mark.parametrize(
    "wrong",
    [
        {"pairs": None},
        {"pairs": 3},
        {"values": {"HOL": np.zeros(3)}},
        {"values": "z.npz"},
        {"clf": make_tiny(layers=1, hidden=6, heads=1, intermediate=5).model},
        {"sites": None},
        {"sites": 5},
        {"memory": "2G"},
        {"probability_floor": "0.01"},
        {"ci": "0.95"},
        {"intervention": "add", "strength": "0.5"},
        {"token": True},
        {"resume": True},  # without out there is nothing to continue
    ],
    ids=lambda w: " ".join(f"{k}={type(v).__name__}" for k, v in w.items()),
)
def test_what_has_the_wrong_type_is_refused_by_name(no_work, wrong, clf, few):
    options = {"clf": clf, "pairs": few, "values": random_values(clf), "sites": SEARCHED, **REF, **wrong}
    with pytest.raises(InputError):
        search(options.pop("clf"), options.pop("pairs"), options.pop("values"), **options)


@pytest.mark.parametrize("budget", [5e5, 2e9, np.int64(500_000)], ids=str)
def test_a_budget_may_be_any_number(budget, clf, few):
    values = random_values(clf)
    found = search(clf, few, values, memory=budget, **REF).frame()["nie"]
    FP32.check(found, search(clf, few, values, **REF).frame()["nie"])


def test_a_token_may_be_a_numpy_integer(clf, few):
    search(clf, few, random_values(clf), sites=SEARCHED, token=np.int64(1), **REF)


# the cost of a set group's tile walks every set every time


def test_the_cost_of_many_sets_is_known_without_walking_them_again(monkeypatch, clf):
    sets = tuple(NeuronSet(clf.shape, [i, i + 100]) for i in range(20))
    group = SetGroup(tuple(map(str, range(len(sets)))), sets, None)
    first = group.layer
    monkeypatch.setattr(NeuronSet, "groups", None)
    assert group.layer == first


# weights gone bad behind the last site


@pytest.mark.parametrize("as_set", [False, True])
@pytest.mark.parametrize(
    "parameter",
    [
        "bert.encoder.layer.2.output.LayerNorm.weight",
        "bert.encoder.layer.2.attention.output.LayerNorm.weight",
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ],
)
def test_bad_weights_of_the_head_are_not_blamed_on_the_replacement_value(parameter, as_set, few):
    clf = make_tiny(layers=3, hidden=12, heads=2, intermediate=20)
    values = replace(random_values(clf), model_digest=None)  # which would tell that the model is another
    with torch.no_grad():
        clf.model.get_parameter(parameter).view(-1)[0] = float("nan")
    sites = {"s": NeuronSet.parse("L1.O.3", clf.shape)} if as_set else "L1.O.3"
    with pytest.raises(InputError, match=r"sample 'p0'.*check the model's weights"):
        search(clf, few, values, sites=sites, **REF)


# the floor


def test_a_floor_that_no_sample_reaches_is_said(clf, few):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((InputError, UserWarning), match="probability_floor"):
            search(clf, few, random_values(clf), sites=SEARCHED, probability_floor=0.9999, **REF)


def test_samples_left_out_are_no_patched_runs(clf):
    probability = sorted(softmax(Hooked(clf).run(pair)[0])[0] for pair in PAIRS)
    floor = (probability[3] + probability[4]) / 2
    result = search(clf, PAIRS, random_values(clf), sites="L2.O.*", probability_floor=floor, **REF)
    assert result.manifest["run"]["patched_runs"] == 12 * 4


# words


def test_messages_about_foils_name_the_classes(clf, few):
    with pytest.raises(InputError, match="foil 'neutral'"):
        search(clf, few, random_values(clf), foil="neutral", **REF)
    with pytest.raises(InputError, match=r"foil 'neutral'.* other than the target"):
        search(clf, few, random_values(clf), response="logit_difference", target="neutral", foil="neutral", **REF)


def test_the_manifest_calls_the_backend_backend_and_names_the_target(clf, few):
    settings = search(clf, few, random_values(clf), sites=SEARCHED, **REF).manifest["settings"]
    assert settings["backend"] == "reference"
    assert "name" not in settings
    assert "entailment" in str(settings["response"])
