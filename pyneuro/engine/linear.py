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

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from pyneuro.engine.adjoint import LayerAdjoint, run_adjoint
from pyneuro.engine.arrival import Arrival
from pyneuro.engine.base_run import BaseRun, LayerBase, NormBase
from pyneuro.engine.exact import Candidates, ExactEngine
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.models.weights import Encoding, ModelWeights
from pyneuro.ops.reference import delta_gelu, delta_softmax, gelu_series, patched_key_weights

Depth = int | Literal["inside", "planned"]


@dataclass(frozen=True, eq=False)
class LinearRun:
    """A sample's base run and its adjoints."""

    base: BaseRun
    adjoints: tuple[LayerAdjoint, ...]


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

    @torch.no_grad()
    def begin(self, encoding: Encoding) -> LinearRun:
        """Base run and backward of one sample."""
        base = self.exact.begin(encoding, weights=self.weights)
        return LinearRun(base, run_adjoint(self.exact.prepared, base))

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
        layer, module = self.exact.groups[int(candidates.site[0])]
        if depth == "planned":
            depth = self.exact.shape.layers if self.exact.never_dense[candidates.site[0]] else "inside"
        if depth != "inside":
            stop = layer + depth
            if stop >= self.exact.shape.layers - 1:
                return self.exact.launch(run.base, candidates, convention)
            return partial(self._carried, run, candidates, convention, stop)
        parts = (self.exact.prepared.layers[layer], run.base.layers[layer], run.adjoints[layer])
        index, change = self._moved(run.base.layers[layer], module, convention, candidates)
        found = self._enter(layer, module, convention, *parts, index, change)
        return Arrival.of(torch.nn.functional.pad(found, (1, 0))).result

    def left_out(self, run: LinearRun, candidates: Candidates, convention: str = "linear") -> Tensor:
        """Size of what ``delta_logits`` inside a layer leaves out, for candidates of one (layer, module): float64 [N].

        Of second order in the change, up to a factor that hardly depends on the sample: times the adjoint's norm, the
        variance that a moved score has under the attention for Q and K, the square of what enters next for the others.
        """
        return self.launch_left_out(run, candidates, convention)()

    @torch.no_grad()
    def launch_left_out(
        self, run: LinearRun, candidates: Candidates, convention: str = "linear"
    ) -> Callable[[], Tensor]:
        """``left_out``, begun, as ``launch``."""
        layer, module = self.exact.groups[int(candidates.site[0])]
        base, adjoint = run.base.layers[layer], run.adjoints[layer]
        index, change = self._moved(run.base.layers[layer], module, convention, candidates)
        width = adjoint.context.shape[-1]
        strength = adjoint.context.square().sum((0, 3)).sqrt().T  # [H, S]
        head = index // width
        p, first = base.p[:, 0], base.p[:, :, 0]  # by key [H, S], by query [H, S]
        match module:
            case "Q":
                k = base.k[:, index].T
                mean = (p[head] * k).sum(-1, keepdim=True)
                size = strength[head, 0] * (p[head] * (k - mean).square()).sum(-1)
            case "K":
                size = ((strength * first * (1 - first))[head] * base.q[:, index].T.square()).sum(-1)
            case "V":
                size = (strength * first.square()).sum(-1)[head]
            case "AO":
                size = (adjoint.attended.norm() * base.norm1.rstd[0] ** 2).expand(len(index))
            case _:
                size = (adjoint.output.norm() * base.norm2.rstd[0] ** 2).expand(len(index))
        return Arrival.of(size.double() * change.square()).result

    def _moved(self, base: LayerBase, module: str, convention: str, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Index and change of candidates where the base run is, the change of I after GELU."""
        index, change = candidates.index, candidates.change
        if module == "I" and convention == "linear":
            a = base.sites["I", "linear"][0, index][None]
            change = delta_gelu(a, change[None, None], gelu_series(a))[0, 0]
        return self.exact.backend.move(index), self.exact.backend.move(change)

    @torch.no_grad()
    def _carried(self, run: LinearRun, candidates: Candidates, convention: str, stop: int) -> Tensor:
        output = run.adjoints[stop].output
        found = torch.zeros(len(candidates), len(output) + 1, dtype=torch.float64)
        for ids in self.exact.chunks(run.base, candidates):
            for moved in self.exact.carry(run.base, candidates[ids], convention, stop):
                if moved is not None:
                    true = moved.dx.true()
                    dx = true if true.dim() == 3 else true[None]
                    delta = torch.einsum("snd,gsd->ng", dx, output[:, : len(dx)])
                    found[ids[moved.ids], 1:] = delta.double().cpu()
        return found

    def _enter(
        self,
        layer: int,
        module: str,
        convention: str,
        w: PreparedLayer,
        base: LayerBase,
        adjoint: LayerAdjoint,
        index: Tensor,
        change: Tensor,
    ) -> Tensor:
        """float64 [N, G]."""
        match module:
            case "Q":
                return _query(base, adjoint, index, change)
            case "K":
                return _key(base, adjoint, index, change)
            case "V":
                return change[:, None] * adjoint.value[:, index].T
            case "AO" if convention == "linear":
                return _NormTail.of(base.norm1, adjoint.attended).coordinate(index, change)
            case "AO":
                return change[:, None] * adjoint.attended[:, index].T
            case "O" if convention == "hook":
                return change[:, None] * adjoint.output[:, 0, index].T
        tail = _NormTail.of(base.norm2, adjoint.output[:, 0])
        if module == "O":
            return tail.coordinate(index, change)
        return tail.column(w.weights.wo, self.column_squares[layer], index, change)


def _query(base: LayerBase, adjoint: LayerAdjoint, index: Tensor, change: Tensor) -> Tensor:
    heads, width = adjoint.context.shape[2:]
    head = index // width
    ds = (change / math.sqrt(width)).to(base.k.dtype)[:, None] * base.k[:, index].T  # [N, S]
    dp = delta_softmax(base.p[head, 0], ds)
    values = base.v.unflatten(-1, (heads, width))
    along = torch.einsum("she,ghe->hgs", values, adjoint.context[:, 0])  # what a unit of weight on s adds
    return torch.einsum("ns,ngs->ng", dp, along[head]).double()


def _key(base: LayerBase, adjoint: LayerAdjoint, index: Tensor, change: Tensor) -> Tensor:
    heads, width = adjoint.context.shape[2:]
    head = index // width
    values = base.v.unflatten(-1, (heads, width))
    rest = torch.einsum("hts,she->the", base.p[:, :, 1:], values[1:])  # context without token 0
    along_rest = torch.einsum("the,gthe->hgt", rest, adjoint.context)
    along_first = torch.einsum("he,gthe->hgt", values[0], adjoint.context)
    ds = (change / math.sqrt(width)).to(base.q.dtype)[:, None] * base.q[:, index].T  # [N, S]
    p, others = base.p[:, :, 0], base.p[:, :, 1:].sum(-1)
    by_rest, by_first, _ = patched_key_weights(p[head], others[head], ds)
    moved = torch.einsum("nt,ngt->ng", by_rest, along_rest[head])
    return (moved + torch.einsum("nt,ngt->ng", by_first, along_first[head])).double()


@dataclass(frozen=True, eq=False)
class _NormTail:
    """A LayerNorm of row 0 and the adjoint after it: rank-one changes before it cost O(1) each. float64."""

    row: Tensor  # [d]  u - mean(u)
    rstd: Tensor  # scalar
    slope: Tensor  # [G, d]  adjoint times the LayerNorm's weight, centred

    @classmethod
    def of(cls, norm: NormBase, adjoint: Tensor) -> _NormTail:
        slope = adjoint.double() * norm.gamma
        return cls(norm.centred[0].double(), norm.rstd[0].double(), slope - slope.mean(-1, keepdim=True))

    def coordinate(self, index: Tensor, change: Tensor) -> Tensor:
        """change · e_n: [N, G]."""
        square = change.square() * (1 - 1 / len(self.row))
        return self._through(change * self.row[index], square, change[:, None] * self.slope[:, index].T)

    def column(self, w: Tensor, squares: Tensor, index: Tensor, change: Tensor) -> Tensor:
        """change · w[:, n], w [d, f], squares [f] of its centred columns: [N, G]."""
        products = (torch.cat([self.row[None], self.slope]).to(w.dtype) @ w).double()[:, index]
        return self._through(change * products[0], change.square() * squares[index], change[:, None] * products[1:].T)

    def _through(self, along: Tensor, square: Tensor, sloped: Tensor) -> Tensor:
        """From a change's product with the row [N], its square [N] and its product with the slope [N, G].

        With r the reciprocal deviation before and r / s after, what the slope sees of the normalised row's change is
        sloped r / s − (slope · row) r q / (s (1 + s)).
        """
        q = self.rstd.square() * (2 * along + square) / len(self.row)
        s = torch.sqrt(1 + q)
        pulled = self.rstd * (self.slope @ self.row)
        return sloped * (self.rstd / s)[:, None] - (q / (s * (1 + s)))[:, None] * pulled
