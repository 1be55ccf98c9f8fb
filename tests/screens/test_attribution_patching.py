"""Attribution patching: the limit of exact effects for small changes, and a first-order estimate for others."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import pytest
import torch

from pyneuro import baselines, screens
from pyneuro.models import Classifier
from pyneuro.sites import CONVENTIONS, MODULES
from tests.baselines import by_hand
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, make_tiny


@cache
def small(arch: str = "bert") -> Classifier:
    return make_tiny(arch, dtype=torch.float64, layers=3, hidden=12, heads=2, intermediate=20)


def error(strength: float, **how: object) -> float:
    """Relative L2 error of the estimates when every value moves by `strength` times a random one."""
    values = random_values(small(), convention=str(how.get("convention", "linear")))
    options = {"intervention": "add", "strength": strength, **how}
    estimate = screens.attribution_patching(small(), PAIRS[:3], values, **options).frame()["log_nie"]
    exact = baselines.neurons_in_batch(small(), PAIRS[:3], values, **options).frame()["log_nie"]
    return float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("token", [0, 2, "all"])
def test_estimates_become_exact_as_the_change_becomes_small(convention: str, token: int | str):
    coarse, fine = error(1e-3, convention=convention, token=token), error(1e-4, convention=convention, token=token)
    assert fine < 1e-3
    assert coarse / fine == pytest.approx(10, rel=0.1)  # first order: the error is proportional to the change


def test_replacing_by_a_value_near_the_own_one_is_exact_to_first_order():
    clf, pair, site = small(), PAIRS[0], (1, "V")
    encoding = clf.encode(pair)
    own = {}
    handle = by_hand.find(clf.model, *site, "linear").register_forward_hook(
        lambda _, __, out: own.update(a=out[0, 0].detach().numpy().copy())
    )
    clf.logits([encoding])
    handle.remove()
    near = by_hand.Values.from_arrays({("near", *site): own["a"] + 1e-6}, convention="linear")
    found, wanted = (
        f(clf, pair, near, sites=["L1.V.*"]).frame()["nie"]
        for f in (screens.attribution_patching, baselines.neurons_in_batch)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-13)


def test_the_log_ratio_is_the_gradient_of_log_p_times_the_change_to_first_order():
    """As attribution patching is usually written, by hand: one backward of log p."""
    clf, pair, strength = small(), PAIRS[0], 1e-6
    values = random_values(clf)
    found = screens.attribution_patching(clf, pair, values, intervention="add", strength=strength).frame()
    for layer in range(3):
        for module in MODULES:
            outputs: list[torch.Tensor] = []
            handle = by_hand.find(clf.model, layer, module, "linear").register_forward_hook(
                lambda _, __, out, seen=outputs: seen.append(out)
            )
            inputs = clf.tokenizer(pair.premise, pair.hypothesis, return_tensors="pt")
            log_p = torch.log_softmax(clf.model(**inputs).logits[0], -1)[0]
            handle.remove()
            (gradient,) = torch.autograd.grad(log_p, outputs)
            wanted = gradient[0, 0].numpy() * strength * values.array("HOL", layer, module)
            rows = found[(found["layer"] == layer) & (found["module"] == module)]
            np.testing.assert_allclose(rows["log_nie"], wanted, rtol=1e-3, atol=1e-13)


def test_estimated_logits_are_linear_in_the_change():
    values = random_values(small(), "HOL", "LOL")
    once, thrice = (
        screens.attribution_patching(
            small(), PAIRS[:4], values, intervention="add", strength=strength, response="logit_difference"
        ).frame()["nie"]
        for strength in (1.0, 3.0)
    )
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("token", [0, "all"])
@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_padding_and_batch_size_do_not_matter(arch: str, token: int | str):
    values = random_values(small(arch))
    one, three, whole = (
        screens.attribution_patching(small(arch), PAIRS, values, batch_size=size, token=token).frame()["nie"]
        for size in (1, 3, 100)
    )
    np.testing.assert_allclose(three, one, rtol=1e-8, atol=1e-13)
    np.testing.assert_allclose(whole, one, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_gradients_are_taken_whatever_the_caller_has_switched_off(around: type[AbstractContextManager[None]]):
    frozen = make_tiny(dtype=torch.float64, layers=3, hidden=12, heads=2, intermediate=20)
    frozen.model.requires_grad_(False)
    values = random_values(small())
    wanted = screens.attribution_patching(small(), PAIRS[:2], values).frame()["nie"]
    with around():
        found = screens.attribution_patching(frozen, PAIRS[:2], values).frame()["nie"]
    np.testing.assert_array_equal(found, wanted)
    assert all(p.grad is None and not p.requires_grad for p in frozen.model.parameters())


def test_the_bundled_model_is_estimated_from_float32(bundled: Classifier):
    """On a trained model with changes of the size of the activations: the right picture, not the right numbers."""
    values = random_values(bundled)
    sites = [f"L3.V.{i}" for i in range(0, 384, 12)]
    estimate = screens.attribution_patching(bundled, PAIRS[:2], values, sites=sites).frame()["nie"]
    exact = baselines.suffix_only(bundled, PAIRS[:2], values, sites=sites).frame()["nie"]
    assert np.corrcoef(estimate, exact)[0, 1] > 0.9
