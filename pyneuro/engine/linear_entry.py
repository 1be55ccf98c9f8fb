"""What patches of a layer are multiplied with where the adjoint takes over; one sample, made when first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pyneuro.engine.adjoint import LayerAdjoint
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import LayerBase, NormBase
from pyneuro.engine.prepared import PreparedLayer


@dataclass(frozen=True, eq=False)
class LayerEntry:
    """Entries into one layer.

    Parameters
    ----------
    column_squares : float64 Tensor [f]
        |W_O[:, n] − its mean|².
    """

    backend: Backend
    w: PreparedLayer
    base: LayerBase
    adjoint: LayerAdjoint
    column_squares: Tensor

    def moved(self, module: str, convention: str, index: Tensor, change: Tensor) -> Tensor:
        """Of N candidates of a module, index int64 [N] and change float64 [N] on the base run's device (the change of I
        after GELU): float64 [N, G + 1], the changes of the logits' differences and the size of what they leave out."""
        match module:
            case "Q":
                return self.backend.operation("adjoint_query")(index, change, *self._query)
            case "K":
                return self.backend.operation("adjoint_key")(index, change, *self._key)
            case "V":
                return _scaled(self._value, index, change)
            case "AO" if convention == "hook":
                return _scaled(self._attended, index, change)
            case "O" if convention == "hook":
                return _scaled(self._output, index, change)
            case "AO":
                tail = self._coordinates1
            case "I":
                tail = self._columns
            case _:
                tail = self._coordinates2
        return self.backend.operation("adjoint_norm")(index, change, *tail, self.base.norm1.gamma.shape[0])

    @cached_property
    def _values(self) -> Tensor:
        """[S, H, e]"""
        heads, width = self.adjoint.context.shape[2:]
        return self.base.v.view(-1, heads, width)

    @cached_property
    def _strength(self) -> Tensor:
        """Size of the adjoint of every context, [H, S]."""
        return self.adjoint.context.square().sum((0, 3)).sqrt().T

    @cached_property
    def _query(self) -> tuple[Tensor, ...]:
        along = torch.einsum("she,ghe->hgs", self._values, self.adjoint.context[:, 0])
        return self.base.k, self.base.p, along, self._strength[:, 0]

    @cached_property
    def _key(self) -> tuple[Tensor, ...]:
        p, context = self.base.p, self.adjoint.context
        without_first = torch.einsum("hts,she->the", p[:, :, 1:], self._values[1:])
        along_rest = torch.einsum("the,gthe->hgt", without_first, context)
        along_first = torch.einsum("he,gthe->hgt", self._values[0], context)
        return self.base.q, p, p[:, :, 1:].sum(-1), along_rest, along_first, self._strength

    @cached_property
    def _value(self) -> Tensor:
        size = (self._strength * self.base.p[:, :, 0].square()).sum(-1)
        return _rows(self.adjoint.value, size.repeat_interleave(self._values.shape[2]))

    @cached_property
    def _attended(self) -> Tensor:
        return _rows(self.adjoint.attended, self._sizes[0])

    @cached_property
    def _output(self) -> Tensor:
        return _rows(self.adjoint.output[:, 0], self._sizes[1])

    @cached_property
    def _sizes(self) -> tuple[Tensor, Tensor]:
        """Factors of what the two LayerNorms leave out."""
        base, adjoint = self.base, self.adjoint
        return (
            adjoint.attended.norm() * base.norm1.rstd[0].square(),
            adjoint.output.norm() * base.norm2.rstd[0].square(),
        )

    @cached_property
    def _coordinates1(self) -> tuple[Tensor, Tensor, Tensor]:
        return _coordinates(*_norm_tail(self.base.norm1, self.adjoint.attended, self._sizes[0]))

    @cached_property
    def _coordinates2(self) -> tuple[Tensor, Tensor, Tensor]:
        return _coordinates(*self._tail2)

    @cached_property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        rows, facts = self._tail2
        wo = self.w.weights.wo
        return (rows.to(wo.dtype) @ wo).double(), self.column_squares, facts

    @cached_property
    def _tail2(self) -> tuple[Tensor, Tensor]:
        return _norm_tail(self.base.norm2, self.adjoint.output[:, 0], self._sizes[1])


def _norm_tail(norm: NormBase, adjoint: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """A LayerNorm of row 0 and the adjoint [G, d] behind it: rows [1 + G, d] and facts [2 + G] of ``adjoint_norm``."""
    slope = adjoint.double() * norm.gamma
    slope = slope - slope.mean(-1, keepdim=True)
    row = norm.centred[0].double()
    facts = torch.cat([norm.rstd[:1].double(), size.double()[None], slope @ row])
    return torch.cat([row[None], slope]), facts


def _coordinates(rows: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of changes of single coordinates."""
    d = rows.shape[1]
    return rows, rows.new_full((d,), 1 - 1 / d), facts


def _rows(slope: Tensor, size: Tensor) -> Tensor:
    """Slopes [G, width] and what is left out, of every neuron, float64 [G + 1, width]."""
    return torch.cat([slope, size.expand(1, slope.shape[1])]).double()


def _scaled(rows: Tensor, index: Tensor, change: Tensor) -> Tensor:
    """Where nothing nonlinear comes before the adjoint."""
    moved = rows[:, index].T * change[:, None]
    moved[:, -1] *= change
    return moved
