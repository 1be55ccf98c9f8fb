"""The published loop: one neuron, one hook, one forward of a padded batch of samples.

As the code of Lim et al. (Findings of ACL 2024) goes through neurons (batch, then module, then layer, then neuron; a
forward hook registered and removed for each), with a batch's effects always added and values never overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import Float, Int, Patching, to_changes
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, Encoding, PairLike
from pyneuro.results import Result
from pyneuro.sites import NeuronSet


def hook_loop(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 32,
    **options: Unpack[Options],
) -> Result:
    """Exact effects, one neuron and one padded batch of samples a forward.

    The base run of a batch is made in the same padded shape. Costs a full forward of every sample for every neuron and
    treatment.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; results are in the model's dtype, changes of the logits subtracted in float64.
        `sites` are single neurons.
    batch_size : int
        Samples of a forward. The published code takes 32 or 128; where padding costs more than batching saves, as on a
        CPU, fewer are faster (``benchmarks/baseline_batch_sizes.py``).

    Returns
    -------
    Result

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.
    """
    return run_baseline(
        "hook_loop", lambda patching, size, _: HookLoop(patching, size), clf, pairs, values, batch_size, options
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """A padded batch of samples and its base run."""

    samples: tuple[str, ...]
    inputs: dict[str, Tensor]  # int64 [B, S] each
    logits: Tensor  # float64 [B, C]


@dataclass(frozen=True, eq=False)
class HookLoop:
    """The loop as an evaluator of the search."""

    patching: Patching
    samples_at_once: int

    def admit(self, tokens: int) -> None:
        """Any length the model takes."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Batch, Float]:
        clf = self.patching.clf
        inputs = clf.batch(encodings)
        with clf.inference() as model:
            logits = model(**inputs).logits.double()
        return Batch(tuple(e.id for e in encodings), inputs, logits), logits.cpu().numpy()

    def neurons(self, state: Batch, layer: int, module: str, index: Int, z: Float | None) -> Float:
        size = len(state.samples)
        rows, columns = np.arange(size), [None] if z is None else list(z)
        delta = []
        with self.patching.clf.inference() as model:
            for values in columns:
                for i, neuron in enumerate(index):
                    value = None if values is None else np.full(size, values[i])
                    patch = self.patching.patch(layer, module, rows, np.full(size, neuron), value)
                    with self.patching.applied([patch]):
                        delta.append(model(**state.inputs).logits.double() - state.logits)
        stacked = torch.stack(delta, 1).unflatten(1, (len(columns), len(index)))  # [B, T, n, C]
        return to_changes(stacked, state.samples, layer, module, index)

    def sets(self, state: Batch, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        raise NotImplementedError("hook_loop refuses sets before it searches")

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """One forward, in forwards × tokens."""
        return float(tokens)
