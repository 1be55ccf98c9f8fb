"""Exact entry, adjoint tail: the effect of a patch from closed forms of its own layer and one backward.

Within the patched layer a change runs through its own nonlinearity exactly, up to where the adjoint takes over:

==========  ===============================  ==========================
site        exact                            the adjoint begins
==========  ===============================  ==========================
Q, K        the softmax                      at the heads' contexts
V           (nothing nonlinear comes first)  at v
AO          the LayerNorm (linear)           after the attention block
I, O        GELU, the LayerNorm (linear)     at the layer's output
==========  ===============================  ==========================

A neuron costs O(S) for Q and K, O(1) for the others, beside one product with W_O that all share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pyneuro.engine.adjoint import run_adjoint
from pyneuro.engine.arrival import Arrival
from pyneuro.engine.base_run import BaseRun
from pyneuro.engine.entry import after_gelu
from pyneuro.engine.exact import Candidates, ExactEngine
from pyneuro.engine.linear_entry import LayerEntry
from pyneuro.models.weights import Encoding, ModelWeights

Depth = int | Literal["inside", "planned"]


@dataclass(frozen=True, eq=False)
class LinearRun:
    """A sample's base run and its adjoints."""

    base: BaseRun
    entries: tuple[LayerEntry, ...]


@dataclass(frozen=True, eq=False)
class LinearEngine:
    """Effects to first order beyond the patched layer. Made by ``LinearEngine.create``."""

    exact: ExactEngine
    weights: ModelWeights  # float64
    column_squares: tuple[Tensor, ...]  # of every layer, float64 [f]: |W_O[:, n] - its mean|²

    @classmethod
    def create(cls, exact: ExactEngine) -> LinearEngine:
        """Beside an exact engine, whose weights and base runs it shares. Keeps a float64 copy of the weights."""
        weights = exact.base_weights or exact.clf.weights(torch.float64)
        squares = tuple(layer.wo.var(0, unbiased=False) * layer.wo.shape[0] for layer in weights.layers)
        return cls(exact, weights, squares)

    def begin(self, encoding: Encoding) -> LinearRun:
        """Base run and backward of one sample."""
        return self.launch_begin(encoding)()

    def launch_begin(self, encoding: Encoding) -> Callable[[], LinearRun]:
        """``begin``, its base run begun, as ``launch``."""
        pending = self.exact.launch_begin(encoding, weights=self.weights)
        return lambda: self.backward(pending())

    @torch.no_grad()
    def backward(self, base: BaseRun) -> LinearRun:
        """Beside a base run. Nothing is waited for."""
        backend, layers = self.exact.backend, self.exact.prepared.layers
        parts = zip(layers, base.layers, run_adjoint(self.exact.prepared, base), self.column_squares, strict=True)
        return LinearRun(base, tuple(LayerEntry(backend, *of_layer) for of_layer in parts))

    def delta_logits(
        self, run: LinearRun, candidates: Candidates, convention: str = "linear", depth: Depth = "inside"
    ) -> Tensor:
        """Change of the logits relative to logit 0, for candidates of one (layer, module): float64 [N, C].

        All responses see differences of logits only.

        Parameters
        ----------
        depth : "inside", "planned" or int
            Where the adjoint takes over: inside the patched layer, as above; at the output of the patched layer (0) or
            of the one `depth` layers on, what comes before being exact; "planned" is exact where that costs little
            (every module of the last layer, and Q, AO, I, O of the one before) and "inside" elsewhere.
        """
        return self.launch(run, candidates, convention, depth)()

    @torch.no_grad()
    def launch(
        self, run: LinearRun, candidates: Candidates, convention: str = "linear", depth: Depth = "inside"
    ) -> Callable[[], Tensor]:
        """``delta_logits``, begun: on a device the work goes on while the caller does something else; call what is
        returned for the result."""
        layer = self.exact.groups[int(candidates.site[0])][0]
        if depth == "planned":
            depth = self.exact.shape.layers if self.exact.never_dense[candidates.site[0]] else "inside"
        if depth != "inside":
            stop = layer + depth
            if stop >= self.exact.shape.layers - 1:
                return self.exact.launch(run.base, candidates, convention)
            return partial(self._carried, run, candidates, convention, stop)
        return Arrival.of(nn.functional.pad(self.entered(run, candidates, convention)[:, :-1], (1, 0))).result

    def entered(self, run: LinearRun, candidates: Candidates, convention: str = "linear") -> Tensor:
        """The adjoint taking over inside the layer, for candidates of one (layer, module).

        Returns
        -------
        float64 Tensor [N, C]
            On the engine's device: the changes of logits 1 to C - 1 relative to logit 0, and the size of what they
            leave out. That is of second order in the change, up to a factor that hardly depends on the sample: times
            the adjoint's norm, the variance that a moved score has under the attention for Q and K, the square of what
            enters next for the others.
        """
        layer, module = self.exact.groups[int(candidates.site[0])]
        index, change = candidates.index, candidates.change
        if module == "I" and convention == "linear":
            change = after_gelu(run.base.layers[layer].sites["I", "linear"][0, index], change)
        move = self.exact.backend.move
        return run.entries[layer].moved(module, convention, move(index), move(change))

    @torch.no_grad()
    def _carried(self, run: LinearRun, candidates: Candidates, convention: str, stop: int) -> Tensor:
        output = run.entries[stop].adjoint.output
        found = torch.zeros(len(candidates), len(output) + 1, dtype=torch.float64)
        for ids in self.exact.chunks(run.base, candidates):
            for moved in self.exact.carry(run.base, candidates[ids].by_site, convention, stop):
                if moved is not None:
                    true = moved.dx.true()
                    dx = true if true.dim() == 3 else true[None]
                    delta = torch.einsum("snd,gsd->ng", dx, output[:, : len(dx)])
                    found[ids[moved.ids], 1:] = delta.double().cpu()
        return found
