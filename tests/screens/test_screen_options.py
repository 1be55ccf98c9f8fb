"""What all screens share: they leave the model alone, say what they were given, and refuse what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyneuro import screens
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier, wrap
from pyneuro.results import Result, load_result
from pyneuro.sites import NeuronSet
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, fingerprint, make_tiny, tiny_model, tiny_tokenizer

SIZES = {"layers": 2, "hidden": 12, "heads": 2, "intermediate": 20}
SITES = ["L0.Q.1", "L1.K.2", "L1.AO.*", "L0.I.5"]
Run = Callable[..., Result]

every = pytest.mark.parametrize("screen", [getattr(screens, n) for n in screens.__all__], ids=lambda f: f.__name__)


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(**SIZES)


@pytest.fixture
def untouched(clf: Classifier) -> Iterator[None]:
    """Parameters, gradients, hooks and training flags are as before."""
    before = fingerprint(clf.model)
    yield
    assert fingerprint(clf.model) == before


@every
@pytest.mark.usefixtures("untouched")
def test_the_model_is_left_as_it_was(screen: Run, clf: Classifier):
    screen(clf, PAIRS[:2], random_values(clf), sites=SITES)


@every
@pytest.mark.usefixtures("untouched")
def test_a_patch_that_overflows_is_named(screen: Run, clf: Classifier):
    too_much = Values.from_arrays({("HOL", 1, "V"): np.full(12, 1e300)}, convention="linear")
    with pytest.raises(InputError, match=r"L1\.V\.\d+ of sample 'p0' gives a NaN or infinite output"):
        screen(clf, PAIRS[:2], too_much, sites=["L1.V.*"], intervention="add", strength=1e10)


@every
def test_dropout_is_off_and_training_flags_are_kept(screen: Run):
    training = wrap(tiny_model(**SIZES).train(), tiny_tokenizer())
    values, before = random_values(training), fingerprint(training.model)
    found = screen(training, PAIRS[:2], values, sites=SITES).frame()
    pd.testing.assert_frame_equal(found, screen(make_tiny(**SIZES), PAIRS[:2], values, sites=SITES).frame())
    assert fingerprint(training.model) == before


@every
def test_the_manifest_says_what_computed(screen: Run, clf: Classifier):
    settings = screen(clf, PAIRS[:2], random_values(clf), sites=SITES, batch_size=5).manifest["settings"]
    assert (settings["method"], settings["batch_size"], settings["dtype"]) == (screen.__name__, 5, "float32")
    assert settings.get("form", settings.get("steps")) == {
        "attribution_patching": "response",
        "integrated_gradients": 5,
    }.get(screen.__name__)


@every
def test_a_finished_result_resumes_only_under_the_same_settings(screen: Run, clf: Classifier, tmp_path: Path):
    values = random_values(clf)
    result = screen(clf, PAIRS[:2], values, sites=SITES, out=tmp_path)
    again = screen(clf, PAIRS[:2], values, sites=SITES, out=tmp_path, resume=True)
    pd.testing.assert_frame_equal(again.frame(), result.frame())
    pd.testing.assert_frame_equal(load_result(tmp_path).frame(), result.frame())


@every
def test_sets_and_options_of_other_methods_are_refused(screen: Run, clf: Classifier):
    sets = {"pair": NeuronSet.parse(["L0.Q.1", "L1.K.2"], clf.shape)}
    with pytest.raises(
        InputError, match=rf"{screen.__name__} patches single neurons and sites is a mapping of 1 named"
    ):
        screen(clf, PAIRS[:2], random_values(clf), sites=sets)
    with pytest.raises(InputError, match=rf"{screen.__name__} has no option 'precision'"):
        screen(clf, PAIRS[:2], random_values(clf), precision="bf16")
    with pytest.raises(InputError, match="batch_size = 0"):
        screen(clf, PAIRS[:2], random_values(clf), batch_size=0)
