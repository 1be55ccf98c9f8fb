"""Learned mixin: a product of experts that learns, sample by sample, how far to trust the biased one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pyneuro.errors import InputError, is_whole
from pyneuro.models.adapter import find_adapter
from pyneuro.models.classifier import Classifier
from pyneuro.reweighting.losses import needed

NAME = "learned_mixin"


class LearnedMixin(nn.Module):
    """Learned-mixin and learned-mixin +H (Clark, Yatskar & Zettlemoyer 2019).

    ``CE(log softmax(logits) + g log p_bias, gold) + λ H(softmax(g log p_bias))`` with ``g = softplus(w·h + b)``, mean
    over the batch; h [d] is what the classifier's last linear layer reads, H the entropy, in nats. The penalty keeps g
    away from 0, where the bias would not count. The logits alone are used when the model is applied.

    Parameters
    ----------
    width : int
        d.
    entropy : float
        λ, from 0. Clark et al.'s default for MNLI is 0.03; 0 is the plain learned mixin.

    Attributes
    ----------
    gate : torch.nn.Linear
        w [1, d] and b [1].

    Examples
    --------
    >>> mixin = LearnedMixin(clf.shape.hidden, entropy=0.03)  # doctest: +SKIP
    >>> with mixin.inside(clf):  # doctest: +SKIP
    ...     pn.masking.fine_tune(clf, pairs, loss=mixin, known={"bias": bias.for_pairs(pairs, clf.label_index)})

    ``pyneuro.masking.train`` does not take it: a gate that learns is no mask over frozen weights, and is refused there.
    In a loop of your own, give its parameters to the optimiser and call ``mixin(logits, labels, {"bias": ..., "hidden":
    ...})``.
    """

    def __init__(self, width: int, entropy: float = 0.0) -> None:
        super().__init__()
        if not is_whole(width) or width < 1:
            raise InputError(f"width = {width!r}; pass the model's hidden size")
        if not 0 <= entropy < math.inf:
            raise InputError(f"entropy = {entropy!r}; pass a finite weight from 0")
        self.gate = nn.Linear(width, 1)
        self.entropy = float(entropy)
        self._read: Tensor | None = None

    def forward(self, logits: Tensor, labels: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        """The loss, a scalar.

        Parameters
        ----------
        logits : float [B, C]
        labels : int64 [B]
        known : mapping of str to Tensor
            "bias" [B, C], probabilities of a bias model. "hidden" [B, d], h; inside a model (see ``inside``) that of
            the forward just run, unless given.

        Raises InputError where one is missing, and for a hidden of another shape.
        """
        bias = needed(known, "bias").clamp_min(torch.finfo(logits.dtype).tiny)
        hidden = known.get("hidden", self._read)
        if hidden is None:
            raise InputError(
                "this loss needs the hidden state of every sample; pass known={'hidden': ...}, or train inside(model)"
            )
        if hidden.shape != (len(logits), self.gate.in_features):
            raise InputError(
                f"hidden is {list(hidden.shape)} for {len(logits)} samples and width {self.gate.in_features}; pass "
                "what the classifier's last linear layer reads, [samples, width]"
            )
        trust = F.softplus(self.gate(hidden.to(self.gate.weight.dtype)))  # [B, 1]
        scores = trust.to(logits.dtype) * bias.log()
        log_q = scores.log_softmax(-1)
        spread = -(log_q.exp() * log_q).sum(-1).mean()
        return F.cross_entropy(logits.log_softmax(-1) + scores, labels) + self.entropy * spread

    @contextmanager
    def inside(self, model: nn.Module | Classifier) -> Iterator[LearnedMixin]:
        """Part of a model for the length of a ``with`` block: an optimiser of the model's parameters trains the gate
        too, on the model's device, and every forward leaves h for the loss. The model is as before after it.

        Raises InputError for an architecture without an adapter, and for another width.
        """
        found: Any = model.model if isinstance(model, Classifier) else model
        last: Any = find_adapter(found).head_linears(found)[1]
        if last.in_features != self.gate.in_features:
            raise InputError(
                f"width = {self.gate.in_features} and the classifier reads {last.in_features}; make a mixin "
                "of that width"
            )

        def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._read = args[0]

        handle = last.register_forward_pre_hook(read)
        found.add_module(NAME, self.to(last.weight.device))
        try:
            yield self
        finally:
            delattr(found, NAME)
            handle.remove()
            self._read = None
