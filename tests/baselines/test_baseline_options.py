"""What all baselines share: they leave the model alone, say what they were given, and refuse what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pyneuro import baselines
from pyneuro.baselines.hook_loop import HookLoop
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, ResumeError
from pyneuro.models import Classifier, wrap
from pyneuro.results import Result, load_result
from pyneuro.search.search import Request
from pyneuro.sites import NeuronSet
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, fingerprint, make_tiny, tiny_model, tiny_tokenizer

BASELINES = [
    baselines.hook_loop,
    baselines.neurons_in_batch,
    baselines.suffix_only,
    baselines.vmap_hooks,
]
SITES = ["L0.Q.1", "L1.K.2", "L1.AO.*", "L0.I.5"]

every = pytest.mark.parametrize("baseline", BASELINES, ids=lambda f: f.__name__)


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=12, heads=2, intermediate=20)


@pytest.fixture
def untouched(clf: Classifier) -> Iterator[None]:
    """Parameters, gradients, hooks, training flags and the attention implementation are as before."""
    before = fingerprint(clf.model), clf.model.config._attn_implementation
    yield
    assert (fingerprint(clf.model), clf.model.config._attn_implementation) == before


@every
@pytest.mark.usefixtures("untouched")
def test_the_model_is_left_as_it_was(baseline: Callable[..., Result], clf: Classifier):
    baseline(clf, PAIRS[:2], random_values(clf), sites=SITES)


@every
@pytest.mark.usefixtures("untouched")
def test_the_model_is_left_as_it_was_after_an_error(baseline: Callable[..., Result], clf: Classifier):
    too_much = Values.from_arrays({("HOL", 1, "V"): np.full(12, 1e300)}, convention="linear")
    with pytest.raises(InputError, match=r"L1\.V\.\d+ of sample 'p0' gives a NaN or infinite output"):
        baseline(clf, PAIRS[:2], too_much, sites=["L1.V.*"], intervention="add", strength=1e10)


@every
def test_dropout_is_off_and_training_flags_are_kept(baseline: Callable[..., Result]):
    sizes = {"layers": 2, "hidden": 12, "heads": 2, "intermediate": 20}
    training = wrap(tiny_model(**sizes).train(), tiny_tokenizer())
    values = random_values(training)
    before = fingerprint(training.model)
    found = baseline(training, PAIRS[:2], values, sites=SITES).frame()
    pd.testing.assert_frame_equal(found, baseline(make_tiny(**sizes), PAIRS[:2], values, sites=SITES).frame())
    assert fingerprint(training.model) == before


@every
def test_the_manifest_says_what_computed(baseline: Callable[..., Result], clf: Classifier):
    settings = baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, batch_size=5).manifest["settings"]
    assert settings["method"] == baseline.__name__
    assert (settings["batch_size"], settings["dtype"]) == (5, "float32")
    assert (settings["convention"], settings["token"]) == ("linear", 0)


@every
def test_results_are_saved_where_asked(baseline: Callable[..., Result], clf: Classifier, tmp_path: Path):
    result = baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, out=tmp_path / "run")
    pd.testing.assert_frame_equal(load_result(tmp_path / "run").frame(), result.frame())


@every
@pytest.mark.parametrize("size", [0, -3, 2.5, True, "32", None])
def test_a_batch_size_that_is_no_positive_integer_is_refused(
    baseline: Callable[..., Result], clf: Classifier, size: object
):
    with pytest.raises(InputError, match=r"batch_size = .*; pass a positive integer, such as 32"):
        baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, batch_size=size)


@every
def test_an_option_of_other_methods_is_refused(baseline: Callable[..., Result], clf: Classifier):
    with pytest.raises(InputError, match=rf"{baseline.__name__} has no option 'precision'; it takes batch_size, resp"):
        baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, precision="bf16")


@every
def test_sets_are_refused_before_any_work_by_methods_that_patch_single_neurons(
    baseline: Callable[..., Result], clf: Classifier, tmp_path: Path
):
    sets = {"pair": NeuronSet.parse(["L0.Q.1", "L1.K.2"], clf.shape)}
    if baseline is baselines.neurons_in_batch:
        assert baseline(clf, PAIRS[:2], random_values(clf), sites=sets).kind == "sets"
        return
    with pytest.raises(InputError, match=r"patches single neurons and sites is a mapping of 1 named sets; .* use neur"):
        baseline(clf, PAIRS[:2], random_values(clf), sites=sets, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_set_that_overflows_is_refused(clf: Classifier):
    sets = {"values": NeuronSet.parse("L1.V.*", clf.shape)}
    too_much = Values.from_arrays({("HOL", 1, "V"): np.full(12, 1e300)}, convention="linear")
    with pytest.raises(InputError, match=r"a set patched in sample 'p0' gives a NaN or infinite output"):
        baselines.neurons_in_batch(clf, PAIRS[:2], too_much, sites=sets)


@every
def test_what_search_refuses_is_refused(baseline: Callable[..., Result], clf: Classifier):
    with pytest.raises(InputError, match=r"'replace' needs replacement values"):
        baseline(clf, PAIRS[:2], sites=SITES)
    with pytest.raises(InputError, match=r"token 99 lies outside sample"):
        baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, token=99)
    with pytest.raises(InputError, match=r"no pairs to search on"):
        baseline(clf, [], random_values(clf), sites=SITES)


def test_options_are_those_of_a_request():
    assert set(baselines.Options.__annotations__) == {field.name for field in fields(Request)}


def test_an_interrupted_loop_resumes_to_the_same_numbers(
    clf: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values, how = random_values(clf, "HOL", "LOL"), {"sites": SITES, "batch_size": 3}
    wanted = baselines.hook_loop(clf, PAIRS, values, **how).frame()
    whole, calls = HookLoop.neurons, iter(range(6))

    def interrupted(self: HookLoop, *arguments: object) -> object:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return whole(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(HookLoop, "neurons", interrupted)
        baselines.hook_loop(clf, PAIRS, values, **how, out=tmp_path)
    with pytest.raises(ResumeError):
        baselines.hook_loop(clf, PAIRS, values, sites=SITES, batch_size=4, out=tmp_path, resume=True)
    resumed = baselines.hook_loop(clf, PAIRS, values, **how, out=tmp_path, resume=True)
    pd.testing.assert_frame_equal(resumed.frame(), wanted)
    assert torch.is_grad_enabled()


@every
def test_the_plan_and_the_time_left_can_be_shown(
    baseline: Callable[..., Result], clf: Classifier, capfd: pytest.CaptureFixture[str]
):
    baseline(clf, PAIRS[:2], random_values(clf), sites=SITES, progress=True)
    assert "plan: 15 neurons x 2 samples x 1 treatments (HOL) = 30 patched runs" in capfd.readouterr().err
