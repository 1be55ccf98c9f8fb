"""The exact engine through the device kernels, against float64, relative to the effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyneuro.engine.backend import Backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import LinearEngine
from pyneuro.models import Classifier, bundled_model, load
from pyneuro.search.exact import ExactEvaluator
from pyneuro.sites import CONVENTIONS, NeuronSet
from tests.device import Device
from tests.tiny import PAIRS, make_tiny

# Relative L2 error of five changes of the log-ratios of a (layer, module). Measured on the bundled model: fp32 1e-5 at
# worst, fp16 1e-2 at worst, where the five are small, and 5e-4 at the median.
ALLOWED = {"fp32": 1e-4, "fp16": 4e-2}
MEDIAN = {"fp32": 5e-6, "fp16": 1.5e-3}


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    got, want = got - got[:, :1], want - want[:, :1]
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_effects_of_the_bundled_model(device: Device, bundled: Classifier, precision: str) -> None:
    truth = ExactEngine.create(bundled, Backend("reference", "float64"))
    engine = ExactEngine.create(bundled, device.backend(precision))
    encoding = bundled.encode(PAIRS[3])
    want_base, base = truth.begin(encoding), engine.begin(encoding)
    torch.testing.assert_close(base.logits, want_base.logits, rtol=1e-9, atol=1e-9)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for convention in CONVENTIONS:
        for layer, module in bundled.shape.groups():
            index = torch.randperm(bundled.shape.width(module), generator=generator)[:5]
            z = torch.randn(5, generator=generator, dtype=torch.float64) * 0.5
            want = truth.delta_logits(want_base, layer, module, index, z, convention=convention)
            got = engine.delta_logits(base, layer, module, index, z, convention=convention)
            errors.append(relative(got, want))
            assert errors[-1] < ALLOWED[precision], (convention, layer, module)
    assert float(torch.tensor(errors).median()) < MEDIAN[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_odd_sizes_sets_and_other_tokens(device: Device, precision: str) -> None:
    clf = make_tiny(layers=3, hidden=18, heads=3, intermediate=25)
    truth = ExactEvaluator(
        ExactEngine.create(clf, Backend("reference", "float64")), "linear", Intervention("remove"), joint=True
    )
    found = replace(truth, engine=ExactEngine.create(clf, device.backend(precision)))
    encoding = clf.encode(PAIRS[0])
    (want_base, _), (base, _) = truth.begin([encoding]), found.begin([encoding])
    for layer, module in clf.shape.groups():
        index = np.arange(0, clf.shape.width(module), 4)
        want = torch.from_numpy(truth.neurons(want_base, layer, module, index, None)[0, 0])
        got = torch.from_numpy(found.neurons(base, layer, module, index, None)[0, 0])
        assert relative(got, want) < (1e-4 if precision == "fp32" else 2e-2), (layer, module)
    sets = [NeuronSet(clf.shape, [0, 40, 70]), NeuronSet(clf.shape, [5])]
    want = torch.from_numpy(truth.sets(want_base, sets, None)[0, 0])
    assert relative(torch.from_numpy(found.sets(base, sets, None)[0, 0]), want) < 1e-4


def test_linear_engine(device: Device) -> None:
    clf = make_tiny(layers=3, hidden=18, heads=3, intermediate=25)
    encoding = clf.encode(PAIRS[0])
    truth = LinearEngine.create(ExactEngine.create(clf, Backend("reference", "float64")))
    engine = LinearEngine.create(ExactEngine.create(clf, device.backend("fp32")))
    want_run, run = truth.begin(encoding), engine.begin(encoding)
    for layer, module in clf.shape.groups():
        index = torch.arange(0, clf.shape.width(module), 5)
        for depth in ("inside", 0, 1):
            candidates = truth.exact.candidates(
                want_run.base, layer, module, index, None, intervention=Intervention("remove")
            )
            want = truth.delta_logits(want_run, candidates, depth=depth)
            assert relative(engine.delta_logits(run, candidates, depth=depth), want) < 1e-3, (layer, module, depth)
        left_out = (side.entered(of, candidates)[:, -1].cpu() for side, of in ((engine, run), (truth, want_run)))
        torch.testing.assert_close(*left_out, rtol=1e-3, atol=1e-12)


def test_what_fp16_cannot_hold_is_computed_again(device: Device) -> None:
    """A weight that blows a difference up beyond fp16 on its way."""
    clf = load(bundled_model())
    weight = clf.adapter.weights(clf.model).layers[2].wi
    with torch.no_grad():
        weight.mul_(4000.0)
    engine = ExactEngine.create(clf, device.backend("fp16"))
    exact = replace(engine, backend=engine.backend.exactly())
    base = engine.begin(clf.encode(PAIRS[3]))
    arguments = (base, 0, "AO", torch.tensor([3, 4]), torch.tensor([5.0, -4.0], dtype=torch.float64))
    torch.testing.assert_close(engine.delta_logits(*arguments), exact.delta_logits(*arguments), rtol=1e-2, atol=1e-5)
