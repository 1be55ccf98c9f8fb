"""Patched runs by plain forward hooks on the HuggingFace model in float64: independent of everything in the engine."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pyneuro.models import Classifier
from pyneuro.models.weights import Encoding


class Oracle:
    """A float64 copy of a classifier's model."""

    def __init__(self, clf: Classifier) -> None:
        self.clf = clf
        self.model = copy.deepcopy(clf.model).double().eval()

    def _module(self, layer: int, module: str, convention: str) -> torch.nn.Module:
        return self.clf.adapter.module(self.model, layer, module, convention)

    @torch.no_grad()
    def _logits(self, encoding: Encoding, repeat: int = 1) -> Tensor:
        out = self.model(
            input_ids=encoding.input_ids.expand(repeat, -1), token_type_ids=encoding.token_type_ids.expand(repeat, -1)
        )
        return out.logits

    def logits(self, encoding: Encoding) -> Tensor:
        """Base logits [C]."""
        return self._logits(encoding)[0]

    def activation(self, encoding: Encoding, layer: int, module: str, convention: str, token: int = 0) -> Tensor:
        """The site's value at a token [width]."""
        seen: list[Tensor] = []
        hook = self._module(layer, module, convention).register_forward_hook(lambda _, __, out: seen.append(out))
        try:
            self._logits(encoding)
        finally:
            hook.remove()
        return seen[0][0, token]

    def delta_logits(
        self, encoding: Encoding, layer: int, module: str, index: Tensor, patched: Tensor, convention: str = "linear"
    ) -> Tensor:
        """Change of the logits [N, C] when neuron index[i] is set to patched[i] at token 0, each alone."""
        rows, base = torch.arange(len(index)), self._logits(encoding)

        def hook(_: object, __: object, out: Tensor) -> Tensor:
            out = out.clone()
            out[rows, 0, index] = patched.double()
            return out

        handle = self._module(layer, module, convention).register_forward_hook(hook)
        try:
            return self._logits(encoding, len(index)) - base
        finally:
            handle.remove()
