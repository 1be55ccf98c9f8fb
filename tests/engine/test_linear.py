"""Adjoints and the linear engine: against autograd on the HuggingFace model, and the exact engine to first order."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from pyneuro import ops
from pyneuro.effects import Response
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import Candidates, ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import LinearEngine, LinearRun
from pyneuro.models import Classifier
from pyneuro.sites import CONVENTIONS, MODULES
from tests.tiny import PAIRS, make_tiny

LAYERS = 4
NATIVE = pytest.mark.skipif(not ops.built(), reason="the native module is not built")


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=LAYERS, hidden=12, heads=3, intermediate=20, attention_scale=1.0)


@pytest.fixture(scope="module")
def linear(clf: Classifier) -> LinearEngine:
    return LinearEngine.create(ExactEngine.create(clf, choose_backend("reference", "float64")))


@pytest.fixture(scope="module")
def run(clf: Classifier, linear: LinearEngine) -> LinearRun:
    return linear.begin(clf.encode(PAIRS[0]))


def patches(linear: LinearEngine, run: LinearRun, layer: int, module: str, convention: str, size: float) -> Candidates:
    """Every neuron of a (layer, module), moved by random amounts of this size."""
    index = torch.arange(linear.exact.shape.width(module))
    a = run.base.layers[layer].sites[module, convention][0]
    generator = torch.Generator().manual_seed(7 * layer + len(module))
    z = a + size * torch.randn(len(index), generator=generator, dtype=torch.float64)
    return linear.exact.candidates(run.base, layer, module, index, z, convention)


def relative(logits: Tensor) -> Tensor:
    return logits - logits[..., :1]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_adjoints_are_the_gradients_of_the_huggingface_model(
    clf: Classifier, linear: LinearEngine, run: LinearRun, convention: str
) -> None:
    model = copy.deepcopy(clf.model).double().eval()
    outputs: dict[tuple[int, str], Tensor] = {}
    for layer in range(LAYERS):
        for module in MODULES:
            clf.adapter.module(model, layer, module, convention).register_forward_hook(
                lambda _, __, out, site=(layer, module): outputs.__setitem__(site, out)
            )
    encoding = clf.encode(PAIRS[0])
    logits = model(input_ids=encoding.input_ids[None], token_type_ids=encoding.token_type_ids[None]).logits[0]
    sites = list(outputs)
    gradients = [
        torch.autograd.grad(logits[c] - logits[0], [outputs[s] for s in sites], retain_graph=True)
        for c in range(1, len(logits))
    ]
    for number, (layer, module) in enumerate(sites):
        wanted = torch.stack([g[number][0, 0] for g in gradients], dim=1)  # [width, G]
        step = 1e-7
        index = torch.arange(len(wanted))
        change = torch.full((len(index),), step, dtype=torch.float64)
        site = torch.full_like(index, linear.exact.groups.index((layer, module)))
        found = linear.delta_logits(run, Candidates(site, index, change), convention)[:, 1:] / step
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7 * float(wanted.abs().max()))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("depth", ["inside", 0, 1, "planned"])
def test_what_is_left_out_is_of_second_order(
    linear: LinearEngine, run: LinearRun, convention: str, depth: str | int
) -> None:
    for layer in range(LAYERS):
        for module in MODULES:
            errors = []
            for size in (1e-2, 1e-3):
                candidates = patches(linear, run, layer, module, convention, size)
                exact = relative(linear.exact.patched(run.base, candidates, convention))
                found = relative(linear.delta_logits(run, candidates, convention, depth))
                errors.append(float((found - exact).norm() / size))
            # Ten times less change: a hundred times less error, until rounding.
            assert errors[1] <= 0.2 * errors[0] + 1e-12, (layer, module, errors)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_carried_to_the_last_layer_it_is_exact(linear: LinearEngine, run: LinearRun, convention: str) -> None:
    for layer in range(LAYERS):
        for module in MODULES:
            candidates = patches(linear, run, layer, module, convention, 1.0)
            exact = linear.exact.patched(run.base, candidates, convention)
            found = linear.delta_logits(run, candidates, convention, depth=LAYERS)
            torch.testing.assert_close(relative(found), relative(exact), rtol=1e-9, atol=1e-14)
            planned = linear.delta_logits(run, candidates, convention, "planned")
            if layer == LAYERS - 1 or (layer == LAYERS - 2 and module not in ("K", "V")):
                torch.testing.assert_close(relative(planned), relative(exact), rtol=1e-9, atol=1e-14)


def test_the_entry_of_the_last_layers_output_is_exact_up_to_the_head(linear: LinearEngine, run: LinearRun) -> None:
    """O of the last layer, linear: nothing but the LayerNorm lies before the pooler, and it is not linearised."""
    candidates = patches(linear, run, LAYERS - 1, "O", "linear", 3.0)
    index, change = candidates.index, candidates.change
    norm = run.base.layers[-1].norm2
    u = norm.centred[0].repeat(len(index), 1)
    u[torch.arange(len(index)), index] += change
    eps = 1 / norm.rstd[0] ** 2 - norm.centred[0].square().mean()
    centred = u - u.mean(-1, keepdim=True)
    after = centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + eps)
    dx = norm.gamma * (after - norm.centred[0] * norm.rstd[0])
    wanted = dx @ run.entries[-1].adjoint.output[:, 0].T
    torch.testing.assert_close(linear.delta_logits(run, candidates)[:, 1:], wanted, rtol=1e-9, atol=1e-12)


@NATIVE
def test_native_and_reference_predict_the_same(clf: Classifier, linear: LinearEngine, run: LinearRun) -> None:
    native = LinearEngine.create(ExactEngine.create(clf, choose_backend("cpu")))
    there = native.begin(clf.encode(PAIRS[0]))
    response = Response("probability", 0)
    for layer in range(LAYERS):
        for module in MODULES:
            candidates = patches(linear, run, layer, module, "linear", 1.0)
            wanted = response.terms(run.base.logits, linear.delta_logits(run, candidates)).effect
            found = response.terms(run.base.logits, native.delta_logits(there, candidates)).effect
            np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5 * np.abs(wanted).max())


def test_candidates_of_many_sites_are_patched_as_if_alone(linear: LinearEngine, run: LinearRun) -> None:
    parts = [
        patches(linear, run, layer, module, "linear", 1.0)
        for layer, module in [(3, "Q"), (0, "K"), (2, "I"), (0, "O"), (1, "V"), (3, "K"), (2, "AO")]
    ]
    together = linear.exact.patched(run.base, Candidates.cat(parts))
    alone = torch.cat([linear.exact.patched(run.base, part) for part in parts])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-15)


def test_removal_and_self_replacement(linear: LinearEngine, run: LinearRun) -> None:
    exact, index = linear.exact, torch.arange(12)
    own = run.base.layers[1].sites["V", "linear"][0]
    nothing = exact.candidates(run.base, 1, "V", index, own[index])
    assert float(linear.delta_logits(run, nothing).abs().max()) == 0.0
    removed = exact.candidates(run.base, 1, "V", index, None, "linear", Intervention("remove"))
    torch.testing.assert_close(removed.change, -own[index])
