"""Annealing: less and less weight to what a bias model says, as training goes on (Utama, Moosavi & Gurevych 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pyneuro.errors import InputError, is_whole
from pyneuro.reweighting.losses import Loss, needed

Of = Literal["bias", "weight"]
OFS: tuple[Of, ...] = get_args(Of)


@dataclass
class Annealed:
    """A loss whose bias probabilities, or weights, are raised to an exponent that falls as training goes on.

    ``α_t = 1 − (1 − a) t / T``, then a; and ``p ← p^α_t / Σ p^α_t`` over the classes, or ``w ← w^α_t``. A shallow bias
    model knows more than the shortcut, and what it knows should not be unlearned to the end.

    Parameters
    ----------
    loss : callable
        As in ``pyneuro.reweighting.LOSSES``.
    steps : int
        T: optimiser steps of the training, or batches where gradients are accumulated.
    last : float
        a in [0, 1]; 0 ends at the plain loss. The released default is 0.8.
    of : "bias" or "weight"
        What of ``known`` is annealed. The released code anneals "bias" for products of experts and confidence
        regularisation, and "weight" for reweighting: ``Annealed(weighted, steps, of="weight")`` with weights 1 − β.
    step : int
        t; counts the calls that will be differentiated. Set it to go on with a training.

    References
    ----------
    Utama, Moosavi and Gurevych, "Towards Debiasing NLU Models from Unknown Biases", EMNLP 2020.

    Examples
    --------
    >>> loss = Annealed(lambda logits, labels, known: known["bias"][0, 0], steps=10, last=0.5, step=10)
    >>> round(float(loss(torch.zeros(1, 2), torch.tensor([0]), {"bias": torch.tensor([[0.8, 0.2]])})), 4)  # 2 : 1
    0.6667
    """

    loss: Loss
    steps: int
    last: float = 0.8
    of: Of = "bias"
    step: int = 0

    def __post_init__(self) -> None:
        if not is_whole(self.steps) or self.steps < 1:
            raise InputError(f"steps = {self.steps!r}; pass the number of steps of the training, from 1")
        if not 0 <= self.last <= 1:
            raise InputError(f"last = {self.last!r}; pass the exponent at the end, from 0 to 1")
        if self.of not in OFS:
            raise InputError(f"of = {self.of!r} is not one of {', '.join(OFS)}")

    @property
    def exponent(self) -> float:
        """α_t."""
        return 1 - (1 - self.last) * min(self.step / self.steps, 1.0)

    def __call__(self, logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        """The loss at α_t; t then grows where the logits have a gradient."""
        values = needed(known, self.of)
        if self.of == "bias":
            logs = values.clamp_min(torch.finfo(values.dtype).tiny).log()
            annealed = (self.exponent * logs).softmax(-1)
        else:
            annealed = values**self.exponent
        if logits.requires_grad:
            self.step += 1
        return self.loss(logits, labels, {**known, self.of: annealed})
