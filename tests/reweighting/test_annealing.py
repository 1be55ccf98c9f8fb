"""Annealing: the schedule, and what it does to probabilities and weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyneuro import masking
from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.reweighting import Annealed, confidence_regularisation, plain, product_of_experts, reweight, weighted
from tests.tiny import PAIRS, make_tiny

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
LABELS = torch.tensor([0, 2])
BIAS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64)
TEACHER = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)


@pytest.mark.parametrize("loss", [product_of_experts, confidence_regularisation])
def test_bias_is_flattened_step_by_step(loss: object) -> None:
    annealed = Annealed(loss, steps=4, last=0.2)
    known = {"bias": BIAS, "teacher": TEACHER}
    for alpha in (1.0, 0.8, 0.6, 0.4, 0.2, 0.2):
        assert annealed.exponent == pytest.approx(alpha)
        flat = BIAS.numpy() ** alpha
        want = loss(LOGITS, LABELS, {**known, "bias": torch.from_numpy(flat / flat.sum(1, keepdims=True))})
        assert annealed(LOGITS, LABELS, known).item() == pytest.approx(want.item(), rel=1e-12)


def test_weights_are_flattened() -> None:
    weight = torch.tensor([0.3, 0.8], dtype=torch.float64)
    annealed = Annealed(weighted, steps=1, last=0.5, of="weight")
    assert annealed(LOGITS, LABELS, {"weight": weight}).item() == pytest.approx(
        reweight(LOGITS, LABELS, {"bias": BIAS}).item()
    )
    want = weighted(LOGITS, LABELS, {"weight": weight.sqrt()}).item()
    assert annealed(LOGITS, LABELS, {"weight": weight}).item() == pytest.approx(want)


def test_an_exponent_of_zero_is_no_bias_at_all() -> None:
    annealed = Annealed(product_of_experts, steps=1, last=0.0, step=1)
    assert annealed(LOGITS, LABELS, {"bias": BIAS}).item() == pytest.approx(plain(LOGITS, LABELS, {}).item())


def test_only_training_counts() -> None:
    annealed = Annealed(product_of_experts, steps=10)
    annealed(LOGITS.detach(), LABELS, {"bias": BIAS})
    assert annealed.step == 0 and annealed.exponent == 1
    annealed(LOGITS, LABELS, {"bias": BIAS})
    assert annealed.step == 1 and annealed.exponent == pytest.approx(0.98)


def test_gradients_are_those_of_finite_differences() -> None:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        return Annealed(product_of_experts, steps=10, last=0.5, step=4)(logits, LABELS, {"bias": BIAS})

    assert torch.autograd.gradcheck(loss, (LOGITS,))


def test_certain_bias_stays_finite() -> None:
    sure = torch.eye(3)[:2]
    annealed = Annealed(product_of_experts, steps=2, last=0.0, step=1)
    assert torch.isfinite(annealed(LOGITS.float(), LABELS, {"bias": sure}))


def test_a_training_moves_it_by_a_step_a_batch() -> None:
    pytest.importorskip("accelerate")
    clf = make_tiny(layers=1, hidden=24, heads=3, intermediate=40)
    pairs = [Pair(p.id, p.premise, p.hypothesis, "neutral") for p in PAIRS]
    annealed = Annealed(product_of_experts, steps=4, last=0.5)
    masking.fine_tune(clf, pairs, epochs=2, batch_size=4, loss=annealed, known={"bias": np.full((8, 3), 1 / 3)})
    assert (annealed.step, annealed.exponent) == (4, 0.5)


def test_bad_input_is_named() -> None:
    for options, message in (
        ({"steps": 0}, "steps = 0"),
        ({"steps": 5, "last": 1.5}, "last = 1.5"),
        ({"steps": 5, "of": "teacher"}, "of = 'teacher'"),
    ):
        with pytest.raises(InputError, match=message):
            Annealed(product_of_experts, **options)
    with pytest.raises(InputError, match="a weight for every sample"):
        Annealed(weighted, steps=5, of="weight")(LOGITS, LABELS, {"bias": BIAS})
