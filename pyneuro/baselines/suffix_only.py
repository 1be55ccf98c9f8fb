"""Neurons in the batch from the patched layer on: what lies below it is computed once a sample."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Unpack

from torch import Tensor

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import Patch, model_dtype
from pyneuro.baselines.rows import RowsEvaluator, Sample
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


class SuffixOnly(RowsEvaluator):
    """Runs through the HuggingFace layers from the patched one on, then the head."""

    def start(self, encoding: Encoding) -> list[Tensor]:
        """Inputs of the layers, [1, S, d] each."""
        inputs = [self.patching.clf.embed(encoding, model_dtype(self.patching.clf))[None]]
        for layer in range(self.patching.clf.shape.layers - 1):
            inputs.append(self._layer(layer, inputs[-1]))
        return inputs

    def run(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        clf = self.patching.clf
        first = min(patch.layer for patch in patches)
        x = sample.start[first].expand(rows, -1, -1)
        with self.patching.applied(patches):
            for layer in range(first, clf.shape.layers):
                x = self._layer(layer, x)
        return head_forward(clf.adapter.weights(clf.model).head, x[:, 0])

    def kind(self, patches: Sequence[Patch]) -> Hashable:
        return min(patch.layer for patch in patches)

    def _layer(self, layer: int, x: Tensor) -> Tensor:
        out = self.patching.clf.adapter.encoder_layer(self.patching.clf.model, layer)(x)
        hidden: Tensor = out[0] if isinstance(out, tuple) else out  # a tuple in transformers 4
        return hidden

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """Layers from the patched one on, in forwards × tokens."""
        layers = self.patching.clf.shape.layers
        return tokens * (layers - layer) / layers
