"""What cannot be used is refused by name, with the mend, before any sample is run."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyneuro import ops
from pyneuro.engine.values import Values
from pyneuro.errors import BackendError, InputError
from pyneuro.models import wrap
from pyneuro.search import search
from pyneuro.search.exact import ExactEvaluator
from pyneuro.sites import MODULES, ModelShape, NeuronSet
from tests.search.oracle import random_values
from tests.tiny import PAIRS, SamplePair, make_tiny, tiny_model, tiny_tokenizer


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any run of the model is a failure."""

    def begin(*_):
        raise AssertionError("a sample was run before the input had been refused")

    monkeypatch.setattr(ExactEvaluator, "begin", begin)


def refused(clf, message: str, kind: type[Exception] = InputError, **changes) -> None:
    """The search is refused with a message that this pattern is found in."""
    options = {"pairs": PAIRS[:2], "values": random_values(clf, "HOL", "LOL"), "backend": "reference", **changes}
    with pytest.raises(kind, match=message):
        search(clf, options.pop("pairs"), options.pop("values"), **options)


# --- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [[], (), iter(())], ids=["list", "tuple", "iterator"])
@pytest.mark.usefixtures("no_work")
def test_no_pairs(nothing, clf):
    refused(clf, "no pairs to search on; pass at least one", pairs=nothing)


@pytest.mark.parametrize(
    "wrong", ["text", ("premise", "hypothesis"), {"id": "p", "premise": "A.", "hypothesis": "B."}, None]
)
@pytest.mark.usefixtures("no_work")
def test_something_that_is_no_pair(wrong, clf):
    refused(clf, re.escape(repr(wrong)) + " is no pair; pass objects with id, premise and hypothesis", pairs=[wrong])


@pytest.mark.usefixtures("no_work")
def test_a_string_instead_of_pairs(clf):
    refused(clf, "is no pair", pairs="A dog sleeps.")


@pytest.mark.parametrize("label", ["Entailment", "entails", "0", ""])
@pytest.mark.usefixtures("no_work")
def test_an_unknown_label(label, clf):
    message = rf"pair 'p1' has label '{label}'; use entailment, neutral, contradiction, non-entailment or None"
    refused(clf, message, pairs=[PAIRS[0], replace(PAIRS[1], label=label)])


@pytest.mark.parametrize("text", ["", "  ", None, 3])
@pytest.mark.usefixtures("no_work")
def test_an_empty_text(text, clf):
    refused(clf, r"pair 'p1': its hypothesis is .*non-empty", pairs=[PAIRS[0], replace(PAIRS[1], hypothesis=text)])


@pytest.mark.usefixtures("no_work")
def test_a_pair_longer_than_the_position_table_is_named_with_both_lengths(clf):
    long = SamplePair("endless", "the dogs " * 40, "no", None)
    refused(clf, r"pair 'endless' has 84 tokens and tiny-bert takes 64; .*max_length=64", pairs=[PAIRS[0], long])


def test_with_max_length_it_is_truncated_instead():
    clf = make_tiny(layers=1, hidden=6, heads=1, intermediate=5, max_length=20)
    long = SamplePair("endless", "the dogs " * 40, "no", None)
    assert (search(clf, long, random_values(clf), backend="reference").frame()["n"] == 1).all()


# --- target, foil, response ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("role", ["target", "foil"])
def test_an_unknown_class_lists_those_of_the_model(role, clf):
    message = "tiny-bert has no label 'contradictoin'; it has 'entailment', 'neutral', 'contradiction'"
    refused(clf, message, response="logit_difference", **{role: "contradictoin"})


@pytest.mark.usefixtures("no_work")
def test_a_two_class_model_has_no_neutral():
    clf = make_tiny(layers=1, hidden=6, heads=1, intermediate=5, labels=2)
    refused(clf, "has no label 'neutral'; it has 'entailment', 'non-entailment'", target="neutral")


@pytest.mark.usefixtures("no_work")
def test_a_foil_where_it_means_nothing(clf):
    refused(clf, "foil .* has no meaning for 'probability'; .*'logit_difference'", foil="neutral")


@pytest.mark.usefixtures("no_work")
def test_a_foil_that_is_the_target(clf):
    refused(clf, "foil .* other than the target", response="logit_difference", target="neutral", foil="neutral")


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "fast"}, "method 'fast' is not one of exact"),
        ({"response": "accuracy"}, "response 'accuracy' is not known; choose one of probability, odds, log_odds"),
        ({"convention": "post"}, "convention 'post' is not one of linear, hook"),
        ({"precision": "fp8"}, "precision 'fp8' is not one of fp32, fp16, bf16, float64"),
        ({"backend": "tpu"}, "backend 'tpu' is not one of cuda, cpu, reference"),
        ({"intervention": "zero"}, "intervention 'zero' is not one of replace, weaken, negate, remove, add"),
        ({"intervention": "replace", "strength": 0.5}, "'replace' takes no strength; leave it out"),
        ({"intervention": "add", "strength": float("nan")}, "strength nan is not a finite number"),
        ({"intervention": "add", "strength": float("inf")}, "strength inf is not a finite number"),
        ({"token": -1}, r"token = -1; pass a position from 0 \(\[CLS\]\) or 'all'"),
        ({"token": "cls"}, "token = 'cls'; pass a position"),
        ({"token": 1.0}, "token = 1.0; pass a position"),
        ({"memory": 0}, "memory = 0 bytes; pass a positive number"),
        ({"memory": -5}, "memory = -5 bytes"),
        ({"probability_floor": 1.0}, r"probability_floor = 1.0; pass a number in \[0, 1\)"),
        ({"probability_floor": -0.1}, "probability_floor = -0.1"),
        ({"probability_floor": float("nan")}, "probability_floor = nan"),
        ({"ci": 0.0}, "ci = 0.0 is not a coverage; pass a number between 0 and 1"),
        ({"ci": 1.0}, "ci = 1.0"),
        ({"ci": 95}, "ci = 95"),
        ({"ci": float("nan")}, "ci = nan"),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("no_work")
def test_an_option_that_cannot_be(option, message, clf):
    refused(clf, message, **option)


@pytest.mark.usefixtures("no_work")
def test_a_token_beyond_a_sample_names_the_shortest(clf):
    # p3 is "[CLS] ... [SEP] no [SEP]"; its length is what the tokenizer says.
    shortest = min(PAIRS, key=lambda pair: len(clf.encode(pair)))
    tokens = len(clf.encode(shortest))
    message = f"token {tokens} lies outside sample '{shortest.id}', which has {tokens} tokens; drop the sample"
    refused(clf, message, pairs=PAIRS, token=tokens)


def test_the_last_token_of_the_shortest_sample_is_fine(clf):
    tokens = min(len(clf.encode(pair)) for pair in PAIRS)
    values = random_values(clf)
    found = search(clf, PAIRS, values, sites="L1.O.*", token=tokens - 1, backend="reference")
    assert (found.frame()["n"] == len(PAIRS)).all()


@pytest.mark.usefixtures("no_work")
def test_weaken_without_its_factor(clf):
    refused(clf, r"'weaken' needs its factor; pass strength, such as strength=0\.9", values=None, intervention="weaken")


@pytest.mark.usefixtures("no_work")
def test_a_backend_that_is_not_built_says_how_to_build_it(monkeypatch, clf):
    module = sys.modules["pyneuro.ops.native"]  # its name in pyneuro.ops is the function's
    monkeypatch.setattr(module, "_module", None)
    monkeypatch.setattr(module, "_import_error", ImportError("no such module"))
    ops.native.cache_clear()
    try:
        refused(clf, "native kernels are not built .*pip install", BackendError, backend="cpu")
    finally:
        ops.native.cache_clear()


@pytest.mark.usefixtures("no_work")
def test_backends_that_cannot_compute_so(monkeypatch, clf):
    if not torch.cuda.is_available():
        reason = "there is no CUDA device 0 .*use backend='cpu'|the CUDA kernels are not built .* or use backend='cpu'"
        refused(clf, reason, BackendError, backend="cuda")
    refused(clf, "backend 'cuda:x' is not one of", backend="cuda:x")
    refused(clf, "the cpu backend computes in fp32 and bf16", BackendError, backend="cpu", precision="fp16")
    refused(clf, "use backend='reference' for float64", BackendError, backend="cpu", precision="float64")
    monkeypatch.setenv("PYNEURO_BACKEND", "gpu")
    refused(clf, "backend 'gpu' is not one of cuda, cpu, reference", backend=None)


# --- sites -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("L9.I.3", r"site 'L9.I.3': the model has layers 0\.\.2"),
        ("L1.I.20", r"site 'L1.I.20': module I has neurons 0\.\.19"),
        ("L*.Q.12", r"site 'L\*.Q.12': module Q has neurons 0\.\.11"),
        ("L1.FF.3", r"site 'L1.FF.3' is not understood; write 'L3.I.906'"),
        ("l1.i.3", r"site 'l1.i.3' is not understood"),
        ("L1.*.99", r"site 'L1.\*.99' matches no neuron"),
        ("ALL", "site 'ALL' is not understood"),
        (["L1.I.3", "L1.I"], r"site 'L1.I' is not understood"),
        ([], "no sites given; pass 'all' or names"),
        ({}, "empty mapping; pass at least one named NeuronSet"),
        ({"s": ["L1.I.3"]}, "set 's' is list; pass a NeuronSet, as NeuronSet.parse makes"),
        ({"s": "L1.I.3"}, "set 's' is str; pass a NeuronSet"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_work")
def test_sites_that_the_model_lacks_or_nobody_understands(sites, message, clf):
    refused(clf, message, sites=sites)


@pytest.mark.usefixtures("no_work")
def test_sets_without_members_or_of_another_model(clf):
    empty, foreign = NeuronSet(clf.shape, []), NeuronSet(ModelShape(3, 12, 2, 48), [0])
    refused(clf, "sites holds no neuron", sites=empty)
    refused(clf, "set 'b' holds no neuron", sites={"a": NeuronSet(clf.shape, [0]), "b": empty})
    refused(
        clf,
        r"sites was made for ModelShape\(.*intermediate=48\), the model is .*; make it from clf\.shape",
        sites=foreign,
    )
    refused(clf, "set 'b' was made for", sites={"a": NeuronSet(clf.shape, [0]), "b": foreign})


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intervention", ["replace", "add"])
@pytest.mark.usefixtures("no_work")
def test_values_that_are_needed(intervention, clf):
    message = rf"'{intervention}' needs replacement values; pass mean_activations\(\.\.\.\) or Values\.from_arrays"
    refused(clf, message, values=None, intervention=intervention)


@pytest.mark.parametrize("option", [{"intervention": "negate"}, {"intervention": "weaken", "strength": 0.5}])
@pytest.mark.usefixtures("no_work")
def test_values_that_nothing_is_done_with(option, clf):
    refused(clf, f"'{option['intervention']}' takes no values; leave them out", **option)


@pytest.mark.usefixtures("no_work")
def test_values_of_another_model(clf):
    other = make_tiny(layers=3, hidden=12, heads=2, intermediate=20, seed=1)
    message = (
        f"read from tiny-bert .{other.digest[:12]}. and the model is tiny-bert .{clf.digest[:12]}.; make them again"
    )
    refused(clf, message, values=random_values(other))


@pytest.mark.usefixtures("no_work")
def test_values_of_the_other_convention(clf):
    refused(
        clf, "of the 'hook' convention and the analysis uses 'linear'", values=random_values(clf, convention="hook")
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.usefixtures("no_work")
def test_a_value_that_is_not_finite_is_named(bad, clf):
    array = np.zeros(20)
    array[7] = bad
    values = Values.from_arrays({("HOL", 1, "I"): array}, convention="linear")
    refused(clf, rf"treatment 'HOL': neuron L1\.I\.7 is {bad} \(1 of 20", values=values, sites="L1.I.*")


@pytest.mark.usefixtures("no_work")
def test_values_of_the_wrong_width(clf):
    values = Values.from_arrays({("HOL", 1, "I"): np.zeros(19)}, convention="linear")
    refused(
        clf, r"L1\.I under treatment 'HOL' have shape \(19,\); the model needs \(20,\)", values=values, sites="L1.I.*"
    )


@pytest.mark.parametrize("as_set", [False, True])
@pytest.mark.usefixtures("no_work")
def test_values_that_lack_a_site_of_the_search(as_set, clf):
    values = Values.from_arrays(
        {("HOL", 1, "I"): np.zeros(20), ("HOL", 1, "O"): np.zeros(12), ("LOL", 1, "I"): np.zeros(20)},
        convention="linear",
    )
    sites = NeuronSet.parse(["L1.I.0", "L1.O.1"], clf.shape)
    message = r"no values for L1\.O under treatment 'LOL'; add them"
    refused(clf, message, values=values, sites={"s": sites} if as_set else sites)


@pytest.mark.parametrize("as_set", [False, True])
def test_a_replacement_that_overflows_is_named(as_set, clf):
    values = Values.from_arrays({("HOL", 1, "AO"): np.full(12, 1e200)}, convention="linear")
    sites = NeuronSet.parse(["L1.AO.4"], clf.shape)
    what = "a set patched" if as_set else r"patching L1\.AO\.4"
    refused(
        clf, rf"{what} .*sample 'p0'.* NaN or infinite output", values=values, sites={"s": sites} if as_set else sites
    )


# --- a model that has gone bad ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "where"),
    [
        ("embeddings.LayerNorm.bias", "the embeddings"),
        ("encoder.layer.0.attention.self.query.weight", r"L0\.Q"),
        ("encoder.layer.1.attention.self.key.bias", r"L1\.K"),
        ("encoder.layer.1.attention.self.value.weight", r"L1\.V"),
        ("encoder.layer.2.attention.output.dense.weight", r"L2\.AO"),
        ("encoder.layer.1.attention.output.LayerNorm.weight", r"L1\.I"),
        ("encoder.layer.1.intermediate.dense.weight", r"L1\.I"),
        ("encoder.layer.2.output.dense.bias", r"L2\.O"),
        ("encoder.layer.0.output.LayerNorm.bias", "layer 0's output"),
    ],
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_longer_finite_are_found_at_the_first_site_they_reach(parameter, where, bad):
    clf = make_tiny(layers=3, hidden=12, heads=2, intermediate=20)
    values = replace(random_values(clf), model_digest=None)  # which would tell that the model is another
    with torch.no_grad():
        clf.model.base_model.get_parameter(parameter).view(-1)[3] = bad
    refused(clf, f"sample 'p0': activations of {where} are NaN or infinite; check the model's weights", values=values)


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_work")
def test_a_folder_that_cannot_be_written(clf, tmp_path):
    file = tmp_path / "file"
    file.write_text("something else")
    for out in (file, file / "inside"):
        refused(clf, f"folder {str(out)!r} cannot be written .*; choose another folder", out=out)
    assert file.read_text() == "something else"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.usefixtures("no_work")
def test_a_folder_without_permission(clf, tmp_path):
    tmp_path.chmod(0o500)
    try:
        refused(clf, "cannot be written .*Permission denied", out=tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.usefixtures("no_work")
def test_a_refused_search_leaves_no_folder_behind(clf, tmp_path):
    refused(clf, "response", response="accuracy", out=tmp_path / "out")
    refused(clf, "no pairs", pairs=[], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_still_in_training_mode_is_searched_without_dropout(few):
    model = tiny_model(layers=2, hidden=8, heads=2, intermediate=6)
    clf = wrap(model.train(), tiny_tokenizer(), name="training")
    values = random_values(clf)
    a, b = (
        search(clf, few, values, sites=[f"L*.{m}.*" for m in MODULES], backend="reference").frame() for _ in range(2)
    )
    assert a.equals(b)
    model.eval()
    assert search(clf, few, values, backend="reference").frame()["nie"].equals(a["nie"])
