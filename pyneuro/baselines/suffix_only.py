"""Neurons in the batch from the patched layer on: what lies below it is computed once a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import model_dtype
from pyneuro.baselines.rows import Base, HookedRows, cost_from
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, Encoding, PairLike
from pyneuro.models.weights import head_forward
from pyneuro.results import Result


def suffix_only(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 32,
    **options: Unpack[Options],
) -> Result:
    """Exact effects, one forward from the patched layer on for `batch_size` candidates of one sample.

    Over all layers about (L + 1) / 2L of the work of ``neurons_in_batch``.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; results are in the model's dtype, changes of the logits subtracted in float64.
        `sites` are single neurons.
    batch_size : int
        Rows of a forward.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.
    """
    return run_baseline(
        "suffix_only", lambda patching, size, _: SuffixOnly(patching, size), clf, pairs, values, batch_size, options
    )


class SuffixOnly(HookedRows):
    """Runs through the HuggingFace layers from the patched one on, then the head."""

    def base(self, encoding: Encoding, rows: int) -> Base:
        """Keeps the inputs of all layers, [rows, S, d] each."""
        clf = self.patching.clf
        x = clf.embed(encoding, model_dtype(clf)).expand(rows, -1, -1)
        inputs = []
        for layer in range(clf.shape.layers):
            inputs.append(x)
            x = self._layer(layer, x)
        return Base(inputs, self._head(x))

    def run(self, base: Base, first: int) -> Tensor:
        x = base.start[first]
        for layer in range(first, self.patching.clf.shape.layers):
            x = self._layer(layer, x)
        return self._head(x)

    def cost(self, tokens: int, layer: int, module: str) -> float:
        return cost_from(layer, self.patching.clf.shape.layers, tokens)

    def _layer(self, layer: int, x: Tensor) -> Tensor:
        out = self.patching.clf.adapter.encoder_layer(self.patching.clf.model, layer)(x)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out  # a tuple in transformers 4
        return hidden

    def _head(self, x: Tensor) -> Tensor:
        clf = self.patching.clf
        return head_forward(clf.adapter.weights(clf.model).head, x[:, 0])
