"""What moves while a mask trains: the threshold, the penalty on what is kept, the pull towards a sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.errors import InputError
from pyneuro.masking.linear import MaskedLinear

ATTENTION = ("Q", "K", "V", "AO")


@dataclass(frozen=True)
class CubicSchedule:
    """τ from `first` to `last`: ``last + (first − last)(1 − p)³``, p the share of the way (Zhu & Gupta 2018; Sanh et
    al. 2020).

    Parameters
    ----------
    first, last : float
    warmup, cooldown : int
        Steps at the start with `first`, and at the end with `last`.
    """

    first: float
    last: float
    warmup: int = 0
    cooldown: int = 0

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.first, self.last, self.warmup, self.cooldown)):
            raise InputError(f"{self}: every number must be finite")

    def at(self, step: int, steps: int) -> float:
        """τ at a step of `steps`."""
        way = steps - self.warmup - self.cooldown
        p = 1.0 if way <= 0 else min(max((step - self.warmup) / way, 0.0), 1.0)
        return self.last + (self.first - self.last) * (1 - p) ** 3


@dataclass
class SparsityControl:
    """Lagrangian pull towards a sparsity: λ (target − current)², λ ascending (Zhao et al. 2020).

    Parameters
    ----------
    target : float
        Share of weights masked, all layers together, in [0, 1).
    lr : float
        λ grows by lr × (target − current)² a step.
    multiplier : float
        λ, to begin with.
    """

    target: float
    lr: float = 1.0
    multiplier: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.target < 1:
            raise InputError(f"target sparsity {self.target!r}; pass the share of weights to mask, in [0, 1)")

    def penalty(self, layers: Iterable[MaskedLinear]) -> Tensor:
        """λ (target − current)², with the mask's straight-through gradient."""
        weights = {layer: layer.weight.numel() for layer in layers}
        current = torch.stack([layer.soft_sparsity() * n for layer, n in weights.items()]).sum() / sum(weights.values())
        gap = (self.target - current).square()
        penalty = self.multiplier * gap
        self.multiplier += self.lr * float(gap.detach())
        return penalty


def l1(layers: Iterable[MaskedLinear], weights: Iterable[float]) -> Tensor:
    """Mean over layers of weight × mean sigmoid(S): what nn_pruning adds to the loss."""
    parts = [w * torch.sigmoid(layer.scores).mean() for layer, w in zip(layers, weights, strict=True)]
    return torch.stack(parts).mean()
