"""RelP: attribution patching with relevance propagation's coefficients for gradients (Jafari et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from pyneuro.baselines.options import Options
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result
from pyneuro.screens.forward import Batch, Forward, Site
from pyneuro.screens.screen import Screen, run_screen


def relp(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    **options: Unpack[Options],
) -> Result:
    """Estimates from layer-wise relevance propagation's coefficients: ``δz_c ≈ Σ_t (a'[t] − a[t]) · ρ_c[t]``.

    ρ is what a backward gives when the forward's nonlinear parts are taken as products with constants. Of the rules of
    the paper, those that have a place in BERT:

    ==============  =========================================================================================
    rule            here
    ==============  =========================================================================================
    LN-rule         LayerNorm's 1/σ is constant; its mean is not
    identity rule   GELU(x) is x times the constant Φ(x); the pooler's tanh(x) is x times the constant tanh(x)/x
    AH-rule         attention probabilities are constant
    0-rule          linear layers pass gradients, their biases nothing (a gradient already does this)
    half-rule       none: BERT multiplies no two activations but attention's, which the AH-rule sees to
    ==============  =========================================================================================

    By the AH-rule nothing reaches queries and keys: **Q and K neurons have the estimate 0**. Estimates do not tend to
    the exact effects as changes become small, as gradients do. The response is taken exactly.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype. `sites` are single neurons.
    batch_size : int
        Samples of a padded forward and backward.

    Returns
    -------
    Result
        Cost of a sample: 1 + 2 C forward-equivalents.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.

    References
    ----------
    Jafari, Eberle, Khakzar, Nanda (2025), RelP: faithful and efficient circuit discovery via relevance patching. Ali et
    al. (2022), XAI for transformers: better explanations through conservative propagation (LN-rule, AH-rule).
    """
    return run_screen(RelP, clf, pairs, values, batch_size, options, method="relp")


class RelevanceForward(Forward):
    """The same values; a backward through it propagates relevance."""

    def pattern(self, scores: Tensor) -> Tensor:
        return super().pattern(scores).detach()

    def norm(self, u: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        centred = u - u.mean(-1, keepdim=True)
        rstd = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
        return centred * rstd.detach() * weight + bias

    def gelu(self, i: Tensor) -> Tensor:
        return i * (0.5 * torch.erfc(-i / math.sqrt(2))).detach()

    def head(self, x: Tensor) -> Tensor:
        w = self.weights.head
        pooled = F.linear(x[:, 0], w.pooler_weight, w.pooler_bias)
        ratio = torch.where(pooled == 0, 1.0, torch.tanh(pooled) / pooled)
        return F.linear(pooled * ratio.detach(), w.classifier_weight, w.classifier_bias)


class RelP(Screen):
    """The gradients of ``RelevanceForward``."""

    @property
    def forward_equivalents(self) -> float:
        return self.sweep

    @cached_property
    def relevance(self) -> RelevanceForward:
        """The forward that relevance is propagated through."""
        return RelevanceForward(self.forward.weights, self.forward.convention)

    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        return self.linearised(self.relevance, batch)
