"""Losses of a batch: logits [B, C], gold classes int64 [B], and what else is known of its samples.

``known["bias"]`` holds the probabilities [B, C] that a biased model gives, in the order of the logits,
``known["teacher"]`` those of a model trained plainly, and ``known["weight"]`` [B] weights of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from pyneuro.errors import InputError

Loss = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]


def plain(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy."""
    return F.cross_entropy(logits, labels)


def reweight(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """Σ w CE / Σ w with w = 1 − p_bias(gold) (Clark et al. 2019)."""
    return weighted(logits, labels, {"weight": 1 - _gold(needed(known, "bias"), labels)})


def weighted(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """Σ w CE / Σ w over the batch, with ``known["weight"]`` [B] as ``sample_weights`` makes them."""
    weight = needed(known, "weight")
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def debiased_focal(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor], gamma: float = 2.0) -> Tensor:
    """Mean of (1 − β)^γ CE, β = p_bias(gold) (Karimi Mahabadi et al. 2020); γ by ``functools.partial``."""
    easy = _gold(needed(known, "bias"), labels)
    return ((1 - easy) ** gamma * F.cross_entropy(logits, labels, reduction="none")).mean()


def product_of_experts(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """CE(log softmax(logits) + log p_bias, gold) (Clark et al. 2019; He et al. 2019). The logits alone are used when
    the model is applied."""
    bias = needed(known, "bias").clamp_min(torch.finfo(logits.dtype).tiny)
    return F.cross_entropy(logits.log_softmax(-1) + bias.log(), labels)


def confidence_regularisation(logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
    """Cross entropy against the teacher's probabilities, flattened where the biased model is right: ∝ p_teacher^(1 −
    β), β = p_bias(gold) (Utama et al. 2020)."""
    teacher = needed(known, "teacher").clamp_min(torch.finfo(logits.dtype).tiny)
    power = 1 - _gold(needed(known, "bias"), labels)
    target = (teacher.log() * power[:, None]).softmax(-1)
    return F.cross_entropy(logits, target)


NEEDS = {
    "bias": "the probabilities of a bias model",
    "teacher": "the probabilities of a teacher model",
    "weight": "a weight",
}
LOSSES: dict[str, Loss] = {
    "plain": plain,
    "reweight": reweight,
    "weighted": weighted,
    "debiased_focal": debiased_focal,
    "product_of_experts": product_of_experts,
    "confidence_regularisation": confidence_regularisation,
}


def needed(known: Mapping[str, Tensor], what: str) -> Tensor:
    """What a loss has to know. Raises InputError where it is not there."""
    if what not in known:
        raise InputError(f"this loss needs {NEEDS[what]} for every sample; pass known={{{what!r}: ...}}")
    return known[what]


def _gold(probabilities: Tensor, labels: Tensor) -> Tensor:
    return probabilities.gather(1, labels[:, None])[:, 0]
