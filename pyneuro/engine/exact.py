"""The exact engine: every neuron's patched run of one sample, as differences to its base run.

Layers below the patch are never touched. A row-0 change goes through one low-rank attention, dense layers, and a last
layer read at row 0; a change of K or V starts dense. Padding does not exist: samples come one at a time, at their own
length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.engine import entry, propagate
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import BaseRun, run_base
from pyneuro.engine.intervention import Intervention, replaced_by_itself
from pyneuro.engine.plan import Memory
from pyneuro.engine.prepared import Prepared, prepare
from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.weights import Encoding
from pyneuro.sites import ModelShape


@dataclass(frozen=True, eq=False)
class ExactEngine:
    """Exact effects by delta propagation. Made by ``ExactEngine.create``; holds no state between samples."""

    clf: Classifier
    backend: Backend
    prepared: Prepared
    memory: Memory

    @classmethod
    def create(cls, clf: Classifier, backend: Backend, memory: Memory | None = None) -> ExactEngine:
        """Pack the classifier's weights for the backend."""
        return cls(clf, backend, prepare(clf.adapter.weights(clf.model), backend), memory or Memory())

    @property
    def shape(self) -> ModelShape:
        return self.clf.shape

    def begin(self, encoding: Encoding, *, all_rows: bool = False) -> BaseRun:
        """The base run of one sample, for ``delta_logits``."""
        return run_base(self.clf, encoding, self.backend.dtype, all_rows=all_rows)

    @torch.no_grad()
    def delta_logits(
        self,
        base: BaseRun,
        layer: int,
        module: str,
        index: Tensor,
        z: Tensor | None,
        *,
        convention: str = "linear",
        intervention: Intervention | None = None,
    ) -> Tensor:
        """Change of the logits when one neuron is patched at token 0, for N candidates of one (layer, module).

        Parameters
        ----------
        base : BaseRun
        layer : int
        module : str
        index : int64 Tensor [N]
            Neurons; repetitions allowed, as for several treatments in one call.
        z : float64 Tensor [N] or None
            Replacement values, for ``replace`` and ``add``.
        convention : "linear" or "hook"
        intervention : Intervention, optional
            Default: replace.

        Returns
        -------
        float64 Tensor [N, C]
            Exactly 0 where a neuron is replaced by its own value.

        Raises
        ------
        InputError
            Where a result is NaN or infinite: neuron and sample named.
        """
        intervention = intervention or Intervention()
        values = base.layers[layer].sites[module, convention][0]
        a = values[index]
        change = intervention.change(a, z)
        moved = change != 0
        if intervention.kind == "replace" and z is not None:
            moved &= ~replaced_by_itself(a, z, float(values.square().mean().sqrt()))
        out = torch.zeros(len(index), len(base.logits), dtype=torch.float64)
        chosen = torch.nonzero(moved).flatten()
        for part in chosen.split(self._chunk(base, layer, module)):
            found = self._propagate(base, layer, module, convention, index[part], change[part].to(self.backend.dtype))
            out[part] = found
        bad = ~torch.isfinite(out).all(-1)
        if bool(bad.any()):
            first = int(torch.nonzero(bad)[0])
            raise InputError(
                f"patching L{layer}.{module}.{int(index[first])} of sample {base.id!r} by {float(change[first]):.3g} "
                "gives a NaN or infinite output; check the replacement value"
            )
        return out

    def _chunk(self, base: BaseRun, layer: int, module: str) -> int:
        row0_only = layer >= self.shape.layers - (1 if module in ("K", "V") else 2)
        rows = 1 if row0_only else base.tokens
        return self.memory.candidates(self.shape, base.tokens, rows, self.backend)

    def _propagate(
        self, base: BaseRun, layer: int, module: str, convention: str, index: Tensor, change: Tensor
    ) -> Tensor:
        backend, layers, last = self.backend, self.prepared.layers, self.shape.layers - 1
        w, b = layers[layer], base.layers[layer]
        if module in ("K", "V") and layer < last:
            dx = entry.enter_all(backend, w, b, module, index, change)
        else:
            row0 = entry.enter_row0(backend, w, b, module, convention, index, change)
            if layer == last:
                return propagate.delta_logits(self.prepared.head, base, row0)
            layer += 1
            w, b = layers[layer], base.layers[layer]
            if layer == last:
                return propagate.delta_logits(
                    self.prepared.head, base, propagate.last_layer_from_row0(backend, w, b, row0)
                )
            dx = propagate.layer_from_row0(backend, w, b, row0)
        for number in range(layer + 1, last):
            dx = propagate.layer_from_all(backend, layers[number], base.layers[number], dx)
        row0 = propagate.last_layer_from_all(backend, layers[last], base.layers[last], dx)
        return propagate.delta_logits(self.prepared.head, base, row0)
