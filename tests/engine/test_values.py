"""Counterfactual values against plain hooks, one pair at a time, in float64."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pyneuro.engine.values import Values, mean_activations
from pyneuro.errors import InputError
from pyneuro.models import wrap
from pyneuro.sites import CONVENTIONS
from tests.tiny import PAIRS, SamplePair, fingerprint, make_tiny, tiny_model, tiny_tokenizer

SETS = {"HOL": PAIRS[:3], "LOL": PAIRS[2:]}


def hooked_cls(clf, pair, layer, module, convention):
    """Value [width] at token 0 of one pair, by a hook on a float64 copy of the model."""
    model = copy.deepcopy(clf.model).double().eval()
    blocks = getattr(model, clf.adapter.prefix).encoder.layer
    block = blocks[layer]
    place = {
        "Q": block.attention.self.query,
        "K": block.attention.self.key,
        "V": block.attention.self.value,
        "AO": block.attention.output if convention == "hook" else block.attention.output.dense,
        "I": block.intermediate if convention == "hook" else block.intermediate.dense,
        "O": block.output if convention == "hook" else block.output.dense,
    }[module]
    seen = []
    place.register_forward_hook(lambda _, __, out: seen.append(out[0, 0].detach().numpy()))
    with torch.no_grad():
        model(**clf.tokenizer(pair.premise, pair.hypothesis, return_tensors="pt"))
    return seen[0]


@pytest.mark.parametrize("arch", ["bert", "roberta"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_values_are_the_mean_and_variance_of_what_hooks_see_one_pair_at_a_time(arch, convention):
    clf = make_tiny(arch, layers=2, hidden=10, heads=2, intermediate=7)
    values = mean_activations(clf, SETS, convention, batch_size=3)
    for treatment, pairs in SETS.items():
        for layer, module in clf.shape.groups():
            rows = np.array([hooked_cls(clf, pair, layer, module, convention) for pair in pairs])
            np.testing.assert_allclose(values.array(treatment, layer, module), rows.mean(0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(values.variance(treatment, layer, module), rows.var(0), rtol=1e-4, atol=1e-5)
    assert values.counts == {"HOL": 3, "LOL": 6}
    assert values.treatments == ("HOL", "LOL")
    assert (values.convention, values.model_digest) == (convention, clf.digest)


def test_the_bundled_model_agrees_with_hooks_too(bundled):
    values = mean_activations(bundled, {"HOL": PAIRS[:2]}, "hook")
    for layer, module in [(0, "K"), (3, "AO"), (5, "I"), (5, "O")]:
        rows = np.array([hooked_cls(bundled, pair, layer, module, "hook") for pair in PAIRS[:2]])
        np.testing.assert_allclose(values.array("HOL", layer, module), rows.mean(0), rtol=1e-4, atol=1e-5)


def test_batch_size_and_order_change_nothing_but_rounding():
    clf = make_tiny(dtype=torch.float64)
    pairs = [replace(pair, id=f"{pair.id}-{k}") for k in range(20) for pair in PAIRS]
    reference = mean_activations(clf, {"HOL": pairs}, batch_size=1)  # several windows of sorting
    for batch_size, order in [(3, 1), (32, 1), (1000, 1), (7, -1)]:
        values = mean_activations(clf, {"HOL": pairs[::order]}, batch_size=batch_size)
        for site in clf.shape.groups():
            np.testing.assert_allclose(
                values.array("HOL", *site), reference.array("HOL", *site), rtol=1e-11, atol=1e-11
            )
            np.testing.assert_allclose(
                values.variance("HOL", *site), reference.variance("HOL", *site), rtol=1e-9, atol=1e-11
            )


def test_variance_of_a_constant_is_rounding_and_of_one_pair_is_zero():
    clf = make_tiny()
    values = mean_activations(clf, {"one": PAIRS[:1], "same": [PAIRS[0]] * 50}, batch_size=16)
    for site in clf.shape.groups():
        assert not values.variance("one", *site).any()
        assert values.variance("same", *site).max() < 1e-10


def test_the_treatments_do_not_mix():
    clf = make_tiny()
    both, alone = mean_activations(clf, SETS), mean_activations(clf, {"LOL": SETS["LOL"]})
    np.testing.assert_array_equal(both.array("LOL", 1, "I"), alone.array("LOL", 1, "I"))
    assert not np.allclose(both.array("LOL", 1, "I"), both.array("HOL", 1, "I"))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was_also_after_an_error(training):
    model = tiny_model().train(training)
    clf = wrap(model, tiny_tokenizer())
    before = fingerprint(model)
    first, second = mean_activations(clf, SETS), mean_activations(clf, SETS)
    assert first.digest() == second.digest()  # dropout was off
    assert fingerprint(model) == before
    with pytest.raises(InputError, match="'bad'"):
        mean_activations(clf, {"HOL": [*PAIRS, SamplePair("bad", "Yes.", "")]})
    assert fingerprint(model) == before


def test_an_activation_that_is_not_finite_is_named_with_its_pair():
    model = tiny_model()
    clf = wrap(model, tiny_tokenizer())
    with torch.no_grad():
        model.bert.encoder.layer[1].intermediate.dense.bias[7] = float("inf")
    with pytest.raises(InputError, match=r"neuron L1\.I\.7 is inf at token 0 of pair 'p[0-7]'"):
        mean_activations(clf, {"HOL": PAIRS})


@pytest.mark.parametrize(
    ("sets", "options", "reason"),
    [
        ({}, {}, "at least one treatment"),
        (list(PAIRS), {}, "got list"),
        ({"HOL": PAIRS, "LOL": []}, {}, "'LOL' is empty"),
        ({"HOL": PAIRS}, {"convention": "residual"}, "convention 'residual' is not one of 'linear', 'hook'"),
        ({"HOL": PAIRS}, {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments_are_refused(sets, options, reason):
    with pytest.raises(InputError, match=reason):
        mean_activations(make_tiny(), sets, **options)


# Values as such


def own(**changes):
    arrays = {("HOL", 0, "Q"): np.arange(24.0), ("HOL", 2, "I"): np.ones(40)} | changes.pop("arrays", {})
    return Values.from_arrays(arrays, convention="linear", **changes)


def test_values_are_copies_that_cannot_be_written():
    mine = np.arange(24.0)
    values = own(arrays={("HOL", 0, "Q"): mine})
    mine[:] = 0
    assert values.array("HOL", 0, "Q")[5] == 5
    with pytest.raises(ValueError, match="read-only"):
        values.array("HOL", 0, "Q")[5] = 1
    with pytest.raises(TypeError):
        values.counts["HOL"] = 1
    with pytest.raises(AttributeError):
        values.convention = "hook"


@pytest.mark.parametrize(
    "given", [list(range(24)), torch.arange(24.0, requires_grad=True), torch.arange(24.0).half(), np.arange(24)]
)
def test_any_numbers_are_taken_as_float64(given):
    array = own(arrays={("HOL", 0, "Q"): given}).array("HOL", 0, "Q")
    assert array.dtype == np.float64 and array.tolist() == list(range(24))


@pytest.mark.parametrize(
    "key", [("HOL", 0), ("HOL", 0, "X"), ("HOL", -1, "Q"), (0, "HOL", "Q"), "HOL.0.Q", ("HOL", "0", "Q")]
)
def test_a_key_that_is_no_site_is_refused(key):
    with pytest.raises(InputError, match="is not \\(treatment, layer, module\\)"):
        own(arrays={key: np.zeros(24)})


def test_arrays_that_are_no_numbers_or_none_at_all_are_refused():
    with pytest.raises(InputError, match=r"\('HOL', 0, 'Q'\).*float64"):
        own(arrays={("HOL", 0, "Q"): ["a", "b"]})
    with pytest.raises(InputError, match="no values given"):
        Values.from_arrays({}, convention="linear")
    with pytest.raises(InputError, match="convention 'other'"):
        Values.from_arrays({("HOL", 0, "Q"): [1.0]}, convention="other")
    with pytest.raises(InputError, match=r"variances has \('LOL', 0, 'Q'\)"):
        own(variances={("LOL", 0, "Q"): np.zeros(24)})


def test_what_is_not_there_is_named():
    values = own()
    with pytest.raises(InputError, match="no treatment 'LOL'; these values have 'HOL'"):
        values.array("LOL", 0, "Q")
    with pytest.raises(InputError, match=r"no values for L1\.Q"):
        values.array("HOL", 1, "Q")
    with pytest.raises(InputError, match=r"no variances for L0\.Q"):
        values.variance("HOL", 0, "Q")


def test_check_accepts_what_fits():
    clf = make_tiny()
    own().check(clf, "linear")
    own().check(clf, "linear", groups=[(0, "Q"), (2, "I")])
    mean_activations(clf, SETS, "hook").check(clf, "hook", groups=clf.shape.groups())
    mean_activations(make_tiny(), SETS).check(clf, "linear")  # the same weights loaded again


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({("HOL", 1, "I"): np.ones(39)}, r"L1\.I under treatment 'HOL' have shape \(39,\); the model needs \(40,\)"),
        ({("HOL", 1, "I"): np.ones((1, 40))}, r"shape \(1, 40\)"),
        ({("HOL", 1, "I"): 1.0}, r"shape \(\)"),
        ({("HOL", 3, "Q"): np.ones(24)}, r"L3\.Q .* layers 0\.\.2"),
        ({("HOL", 1, "Q"): np.array([0.0] * 23 + [np.nan])}, r"neuron L1\.Q\.23 is nan \(1 of 24"),
        ({("LOL", 1, "Q"): np.array([0.0] * 23 + [-np.inf])}, r"'LOL': neuron L1\.Q\.23 is -inf"),
    ],
)
def test_check_names_the_site_that_does_not_fit(arrays, reason):
    with pytest.raises(InputError, match=reason):
        own(arrays=arrays).check(make_tiny(), "linear")


def test_check_refuses_another_convention_another_model_and_sites_without_values():
    clf = make_tiny()
    values = mean_activations(clf, SETS)
    with pytest.raises(InputError, match="'linear' convention and the analysis uses 'hook'"):
        values.check(clf, "hook")
    with pytest.raises(InputError, match=rf"read from tiny-bert \({clf.digest[:12]}\).*mean_activations"):
        values.check(make_tiny(seed=1), "linear")
    with pytest.raises(InputError, match=r"no values for L1\.Q under treatment 'HOL'"):
        own().check(clf, "linear", groups=iter([(0, "Q"), (1, "Q")]))


def test_digest_tells_values_apart_and_ignores_what_is_not_patched():
    assert own().digest() == own().digest() == own(counts={"HOL": 3}).digest()
    assert own(variances={("HOL", 0, "Q"): np.ones(24)}).digest() == own().digest()
    others = [
        own(model_digest="abc"),
        own(arrays={("HOL", 0, "Q"): np.arange(24.0) + 1e-12}),
        own(arrays={("LOL", 0, "Q"): np.arange(24.0)}),
        Values.from_arrays({("HOL", 0, "Q"): np.arange(24.0), ("HOL", 2, "I"): np.ones(40)}, convention="hook"),
    ]
    assert len({own().digest(), *(values.digest() for values in others)}) == 5


# Files


def test_a_saved_file_gives_everything_back(tmp_path):
    clf = make_tiny()
    values = mean_activations(clf, {"überlappt/1.0": PAIRS[:3], "LOL": PAIRS[3:]}, "hook")
    values.save(tmp_path / "values.npz")
    loaded = Values.load(tmp_path / "values.npz")
    assert loaded.treatments == values.treatments and dict(loaded.counts) == dict(values.counts)
    assert (loaded.convention, loaded.model_digest, loaded.model_name) == ("hook", clf.digest, "tiny-bert")
    assert loaded.digest() == values.digest()
    for site in clf.shape.groups():
        np.testing.assert_array_equal(loaded.array("LOL", *site), values.array("LOL", *site))
        np.testing.assert_array_equal(loaded.variance("LOL", *site), values.variance("LOL", *site))
    assert [path.name for path in tmp_path.iterdir()] == ["values.npz"]


def test_any_file_name_is_kept(tmp_path):
    own().save(str(tmp_path / "z"))
    assert Values.load(str(tmp_path / "z")).digest() == own().digest()


def test_a_file_cut_anywhere_or_altered_is_refused_or_unharmed(tmp_path):
    path = tmp_path / "values.npz"
    own(arrays={("HOL", 0, "Q"): np.arange(3.0), ("HOL", 2, "I"): np.ones(2)}, counts={"HOL": 2}).save(path)
    whole, digest = path.read_bytes(), Values.load(path).digest()
    spoiled = [whole[:length] for length in range(0, len(whole), 17)]
    spoiled += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), 5)]
    refused = 0
    for content in spoiled:
        path.write_bytes(content)
        try:
            assert Values.load(path).digest() == digest
        except InputError as error:
            assert "values.npz" in str(error)
            refused += 1
    assert refused > len(spoiled) / 2


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Values.load(tmp_path / "none.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text").write_text("hello")
    for name in ["array.npy", "other.npz", "text", "."]:
        with pytest.raises(InputError, match="not a whole values file"):
            Values.load(tmp_path / name)


def test_a_folder_that_is_not_there_is_an_input_error_and_an_old_file_survives(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="can't write"):
        own().save(tmp_path / "no" / "values.npz")
    path = tmp_path / "values.npz"
    own().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyneuro.engine.values.os.fsync", full)
    with pytest.raises(InputError, match="No space left"):
        own(counts={"HOL": 7}).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["values.npz"]
