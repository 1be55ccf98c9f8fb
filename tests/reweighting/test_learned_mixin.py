"""Learned mixin: against the formula written out and finite differences, in a batch and in a training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pyneuro import masking
from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.reweighting import LearnedMixin, product_of_experts
from tests.tiny import PAIRS, fingerprint, make_tiny

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(5, 3, dtype=torch.float64, generator=GENERATOR)
HIDDEN = torch.randn(5, 4, dtype=torch.float64, generator=GENERATOR)
BIAS = torch.rand(5, 3, dtype=torch.float64, generator=GENERATOR).softmax(-1)
LABELS = torch.tensor([0, 2, 1, 1, 0])
KNOWN = {"bias": BIAS, "hidden": HIDDEN}


def mixin(entropy: float = 0.0) -> LearnedMixin:
    torch.manual_seed(1)
    return LearnedMixin(4, entropy).double()


@pytest.mark.parametrize("entropy", [0.0, 0.03, 2.0])
def test_the_formula_written_out(entropy: float) -> None:
    made = mixin(entropy)
    w, b = made.gate.weight.detach().numpy()[0], float(made.gate.bias.detach())
    total = spread = 0.0
    for f, h, p, y in zip(LOGITS.numpy(), HIDDEN.numpy(), BIAS.numpy(), LABELS.tolist(), strict=True):
        g = math.log1p(math.exp(float(w @ h) + b))
        product = [math.exp(a) * q**g for a, q in zip(f, p, strict=True)]  # softmax's divisor cancels
        total -= math.log(product[y] / sum(product))
        powers = [q**g / sum(r**g for r in p) for q in p]
        spread -= sum(q * math.log(q) for q in powers)
    assert made(LOGITS, LABELS, KNOWN).item() == pytest.approx((total + entropy * spread) / 5, rel=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    made = mixin(0.5)
    leaves = [t.clone().requires_grad_() for t in (LOGITS, HIDDEN)]

    def loss(logits: torch.Tensor, hidden: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return made(logits, LABELS, {"bias": BIAS, "hidden": hidden})

    assert torch.autograd.gradcheck(loss, (*leaves, *made.parameters()))


def test_a_gate_of_one_is_a_product_of_experts_and_a_shut_one_is_none() -> None:
    made = mixin()
    with torch.no_grad():
        made.gate.weight.zero_()
        made.gate.bias.fill_(math.log(math.e - 1))  # softplus is 1 there
    assert made(LOGITS, LABELS, KNOWN).item() == pytest.approx(float(product_of_experts(LOGITS, LABELS, KNOWN)))
    with torch.no_grad():
        made.gate.bias.fill_(-50.0)
    plain = float(torch.nn.functional.cross_entropy(LOGITS, LABELS))
    assert made(LOGITS, LABELS, KNOWN).item() == pytest.approx(plain)


def test_it_stays_finite_where_the_bias_is_certain() -> None:
    made = LearnedMixin(4, 0.03)
    logits = LOGITS.float().requires_grad_()
    loss = made(logits, LABELS, {"bias": torch.eye(3)[[0, 1, 2, 0, 1]], "hidden": HIDDEN.float()})
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(t.grad).all() for t in (logits, *made.parameters()))


def test_inside_a_model_it_reads_what_the_last_layer_reads_and_leaves_no_trace() -> None:
    clf = make_tiny(layers=1, hidden=24, heads=3, intermediate=40)
    before = fingerprint(clf.model)
    made = LearnedMixin(24, 0.03)
    bias = torch.full((3, 3), 1 / 3) + torch.eye(3) * 0.1 - 0.1 / 3
    labels = torch.tensor([0, 1, 2])
    batch = clf.batch([clf.encode(pair) for pair in PAIRS[:3]])
    with made.inside(clf):
        assert {id(p) for p in made.parameters()} <= {id(p) for p in clf.model.parameters()}
        out = clf.model(**batch)
        found = made(out.logits, labels, {"bias": bias})
    pooled = clf.model.bert(**batch).pooler_output
    want = made(out.logits, labels, {"bias": bias, "hidden": pooled})
    assert found.item() == pytest.approx(want.item(), rel=1e-6)
    assert fingerprint(clf.model) == before
    with pytest.raises(InputError, match="needs the hidden state"):
        made(out.logits, labels, {"bias": bias})


def test_the_gate_learns_in_a_fine_tuning() -> None:
    pytest.importorskip("accelerate")
    clf = make_tiny(layers=1, hidden=24, heads=3, intermediate=40)
    pairs = [
        Pair(f"{a}{b}", PAIRS[a].premise, PAIRS[b].hypothesis, ("entailment", "neutral")[b % 2])
        for a in range(8)
        for b in range(4)
    ]
    made = LearnedMixin(24, 0.03)
    start = made.gate.weight.detach().clone()
    bias = np.full((len(pairs), 3), 1 / 3)
    with made.inside(clf):
        done = masking.fine_tune(clf, pairs, epochs=2, lr=1e-3, loss=made, known={"bias": bias})
    assert np.isfinite(done.history["loss"]).all()
    assert not torch.equal(made.gate.weight.detach(), start)
    assert not hasattr(clf.model, "learned_mixin")
    masking.apply(clf)
    with pytest.raises(InputError, match="LearnedMixin has parameters that learn"):
        masking.train(clf, pairs, loss=made, known={"bias": bias})


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="width = 0"):
        LearnedMixin(0)
    with pytest.raises(InputError, match="entropy = -1"):
        LearnedMixin(4, -1)
    with pytest.raises(InputError, match="probabilities of a bias model"):
        mixin()(LOGITS, LABELS, {"hidden": HIDDEN})
    with pytest.raises(InputError, match=r"hidden is \[5, 2\] for 5 samples and width 4"):
        mixin()(LOGITS, LABELS, {"bias": BIAS, "hidden": HIDDEN[:, :2]})
    with (
        pytest.raises(InputError, match="width = 4 and the classifier reads 24"),
        mixin().inside(make_tiny(layers=1, hidden=24, heads=3, intermediate=40)),
    ):
        pass
