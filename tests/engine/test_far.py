"""Patches far from the base value: scores that move by tens, probabilities that change hands, variance that goes."""

from __future__ import annotations

import pytest
import torch

from pyneuro import ops
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.ops import reference
from pyneuro.sites import CONVENTIONS
from tests.engine.oracle import Oracle
from tests.tiny import PAIRS, make_tiny

BACKENDS = [("reference", "float64"), ("reference", "fp32")] + ([("cpu", "fp32")] if ops.built() else [])


@pytest.mark.parametrize(("backend", "precision"), BACKENDS)
@pytest.mark.parametrize("size", [5.0, 20.0, 100.0])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_single_neurons_moved_far(backend: str, precision: str, size: float, convention: str) -> None:
    clf = make_tiny(dtype=torch.float64)
    engine, oracle = ExactEngine.create(clf, choose_backend(backend, precision)), Oracle(clf)
    encoding = clf.encode(PAIRS[1])
    base = engine.begin(encoding)
    generator = torch.Generator().manual_seed(0)
    for layer, module in clf.shape.groups():
        index = torch.arange(clf.shape.width(module))
        z = torch.randn(len(index), generator=generator, dtype=torch.float64) * size
        want = oracle.delta_logits(encoding, layer, module, index, z, convention)
        got = engine.delta_logits(base, layer, module, index, z, convention=convention)
        error = (got - want).norm(dim=-1) / want.norm(dim=-1).clamp(min=1e-6)
        assert error.max() < (1e-9 if precision == "float64" else 2e-3), (layer, module, int(error.argmax()))


def test_softmax_keeps_its_digits_when_the_likely_token_loses() -> None:
    p = torch.tensor([[0.999999, 4e-7, 6e-7]], dtype=torch.float64)
    p /= p.sum()
    for lost in (-5.0, -20.0, -60.0, 40.0, 95.0):
        ds = torch.tensor([[lost, 0.3, -0.2]], dtype=torch.float64)
        want = (p.log() + ds).softmax(-1) - p
        for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            got = reference.delta_softmax(p.to(dtype), ds.to(dtype)).double()
            assert ((got - want).abs() <= bound * want.abs() + 1e-7 * p * (dtype == torch.float32)).all(), (lost, dtype)


def test_a_key_that_takes_or_loses_everything() -> None:
    p, rest = torch.tensor(0.9999999, dtype=torch.float64), torch.tensor(1e-7, dtype=torch.float64)
    for ds in (-40.0, -16.0, 0.5, 30.0):
        z = rest + p * torch.exp(torch.tensor(ds, dtype=torch.float64))
        exact = torch.stack([-p * torch.expm1(torch.tensor(ds)) / z, p * torch.exp(torch.tensor(ds)) / z])
        got = reference.patched_key_weights(p.float(), rest.float(), torch.tensor(ds))
        torch.testing.assert_close(torch.stack([got[0], got[2]]).double(), exact, rtol=1e-5, atol=0)


def test_layernorm_keeps_its_digits_when_the_variance_goes_away() -> None:
    """An outlier coordinate removed: all but a thousandth of the variance was its own."""
    u = torch.randn(1, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.1
    u[0, 7] = 25.0
    du = torch.zeros(1, 1, 64, dtype=torch.float64)
    du[0, 0, 7] = -25.0
    centred = u - u.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1) + 1e-12).rsqrt()
    gamma = torch.ones(64, dtype=torch.float64)
    after = u[0] + du[0, 0]
    want = torch.nn.functional.layer_norm(after, (64,), eps=1e-12) - torch.nn.functional.layer_norm(
        u[0], (64,), eps=1e-12
    )
    for call in (reference.delta_layernorm, torch.ops.pyneuro.delta_layernorm):
        args = [t.float() for t in (du, centred, rstd, gamma)]
        got = call(*args)[0, 0].double()
        assert ((got - want).norm() / want.norm()).item() < 1e-4
