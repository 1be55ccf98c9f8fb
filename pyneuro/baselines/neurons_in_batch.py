"""Neurons in the batch: one sample repeated, row r patches candidate r (Vig et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import Float, Patch, Patching, chunks
from pyneuro.baselines.rows import Base, HookedRows, Sample
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier, Encoding, PairLike
from pyneuro.results import Result
from pyneuro.sites import NeuronSet


def neurons_in_batch(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 32,
    **options: Unpack[Options],
) -> Result:
    """Exact effects, one full forward for `batch_size` candidates of one sample. Without padding.

    With a model in float64 (``wrap(model.double(), tokenizer)``) this is the reference that other methods answer to.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; results are in the model's dtype, changes of the logits subtracted in float64.
        Named sets are patched jointly, each in one row.
    batch_size : int
        Rows of a forward. Vig et al. use 800, on a GPU; ``benchmarks/baseline_batch_sizes.py`` finds the best one on a
        machine.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        As ``pyneuro.search``.
    """
    return run_baseline(
        "neurons_in_batch",
        lambda patching, size, _: NeuronsInBatch(patching, size),
        clf,
        pairs,
        values,
        batch_size,
        options,
        takes_sets=True,
    )


class NeuronsInBatch(HookedRows):
    """Full forwards from the token ids."""

    def base(self, encoding: Encoding, rows: int) -> Base:
        clf = self.patching.clf
        ids = {"input_ids": encoding.input_ids, "token_type_ids": encoding.token_type_ids}
        inputs = {name: tensor.to(clf.device).expand(rows, -1) for name, tensor in ids.items()}
        return Base(inputs, clf.model(**inputs).logits)

    def run(self, base: Base, first: int) -> Tensor:
        logits: Tensor = self.patching.clf.model(**base.start).logits
        return logits

    def sets(self, state: Sample, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        treatments = 1 if z is None else len(z[0])
        candidates = [(t, number) for t in range(treatments) for number in range(len(sets))]
        delta = []
        with self.patching.clf.inference():
            for part in chunks(len(candidates), self.batch_size):
                patches = _joint(self.patching, candidates[part], sets, z)
                delta.append(self.changes(state, part.stop - part.start, patches))
        stacked = torch.cat(delta)
        if not bool(torch.isfinite(stacked).all()):
            raise InputError(
                f"a set patched in sample {state.encoding.id!r} gives a NaN or infinite output; check the replacement "
                "values"
            )
        out: Float = stacked.view(1, treatments, len(sets), -1).cpu().numpy()
        return out


def _joint(
    patching: Patching, candidates: Sequence[tuple[int, int]], sets: Sequence[NeuronSet], z: Sequence[Float] | None
) -> list[Patch]:
    """Patches of (treatment, set) candidates, one a row: the entries of all rows gathered by (layer, module)."""
    ids = [sets[number].ids for _, number in candidates]
    row = np.repeat(np.arange(len(candidates)), [len(part) for part in ids])
    flat = np.concatenate(ids)
    values = None if z is None else np.concatenate([z[number][treatment] for treatment, number in candidates])
    shape = patching.clf.shape
    patches = []
    for layer, module in shape.groups():
        index = flat - shape.offset(layer, module)
        here = (index >= 0) & (index < shape.width(module))
        if here.any():
            value = None if values is None else values[here]
            patches.append(patching.patch(layer, module, row[here], index[here], value))
    return patches
