"""Debiasing losses against their formulas written out."""

from __future__ import annotations

import math

import pytest
import torch

from pyneuro.errors import InputError
from pyneuro.reweighting import (
    LOSSES,
    confidence_regularisation,
    debiased_focal,
    plain,
    product_of_experts,
    reweight,
    sample_weights,
    weighted,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])
BIAS = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64)
TEACHER = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
KNOWN = {"bias": BIAS, "teacher": TEACHER}


def log_softmax(values: list[float]) -> list[float]:
    total = math.log(sum(math.exp(v) for v in values))
    return [v - total for v in values]


LOG_P = [log_softmax(row) for row in LOGITS.tolist()]


def test_plain() -> None:
    assert float(plain(LOGITS, LABELS, {})) == pytest.approx(-(LOG_P[0][0] + LOG_P[1][2]) / 2)


def test_reweight() -> None:
    w = [0.3, 0.8]
    want = -(w[0] * LOG_P[0][0] + w[1] * LOG_P[1][2]) / sum(w)
    assert float(reweight(LOGITS, LABELS, KNOWN)) == pytest.approx(want)
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    assert float(reweight(LOGITS, LABELS, {"bias": sure})) == 0.0


def test_product_of_experts() -> None:
    rows = [log_softmax([a + math.log(b) for a, b in zip(LOG_P[i], BIAS[i].tolist(), strict=True)]) for i in (0, 1)]
    assert float(product_of_experts(LOGITS, LABELS, KNOWN)) == pytest.approx(-(rows[0][0] + rows[1][2]) / 2)
    even = {"bias": torch.full((2, 3), 1 / 3, dtype=torch.float64)}
    assert float(product_of_experts(LOGITS, LABELS, even)) == pytest.approx(float(plain(LOGITS, LABELS, {})))


def test_weighted_by_one_minus_bias_is_reweight() -> None:
    known = {"weight": torch.from_numpy(sample_weights(BIAS, LABELS.numpy()))}
    assert float(weighted(LOGITS, LABELS, known)) == pytest.approx(float(reweight(LOGITS, LABELS, KNOWN)))


def test_debiased_focal() -> None:
    want = -(0.3**2 * LOG_P[0][0] + 0.8**2 * LOG_P[1][2]) / 2
    assert float(debiased_focal(LOGITS, LABELS, KNOWN)) == pytest.approx(want)
    assert float(debiased_focal(LOGITS, LABELS, KNOWN, gamma=0.0)) == pytest.approx(float(plain(LOGITS, LABELS, {})))


def test_confidence_regularisation() -> None:
    total = 0.0
    for i, gold in enumerate(LABELS.tolist()):
        powers = [t ** (1 - float(BIAS[i, gold])) for t in TEACHER[i].tolist()]
        total -= sum(p / sum(powers) * q for p, q in zip(powers, LOG_P[i], strict=True))
    assert float(confidence_regularisation(LOGITS, LABELS, KNOWN)) == pytest.approx(total / 2)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_stay_finite_where_the_biased_model_is_certain(name: str) -> None:
    sure = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    logits = LOGITS.float().requires_grad_()
    loss = LOSSES[name](logits, LABELS, {"bias": sure, "teacher": sure, "weight": torch.ones(2)})
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_what_a_loss_lacks_is_named() -> None:
    with pytest.raises(InputError, match="probabilities of a bias model"):
        reweight(LOGITS, LABELS, {})
    with pytest.raises(InputError, match="probabilities of a teacher model"):
        confidence_regularisation(LOGITS, LABELS, {"bias": BIAS})
