"""Entry forms: what patching one neuron at token 0 changes of its own layer's output, module by module.

==========  ==============================================================================  ============
site        closed form                                                                     rows changed
==========  ==============================================================================  ============
Q_n         δs_h[0, :] = δ k[:, n] / √e, softmax difference, head h only                    0
K_n         δs_h[:, 0] = δ q[:, n] / √e: the patched key's weights, rank 2 a row            all
V_n         δu[t] = p_h[t, 0] δ W_AO[:, n], rank 1                                          all
AO_n        one coordinate before the LayerNorm (linear) or after it (hook)                 0
I_n         one column of W_O, through the GELU difference (linear) or as it is (hook)      0
O_n         one coordinate before the LayerNorm (linear) or of the output itself (hook)     0
==========  ==============================================================================  ============

N candidates of one (layer, module) at once: index int64 [N], change float64 [N] = patched value − base value, both on
the CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyneuro.engine import propagate
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import LayerBase
from pyneuro.engine.difference import Difference
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.ops.reference import delta_gelu, gelu_series, patched_key_weights, units


def enter_row0(
    backend: Backend, w: PreparedLayer, base: LayerBase, module: str, convention: str, index: Tensor, change: Tensor
) -> Difference:
    """Q, AO, I and O, and in the last layer K and V too: change of row 0 of the layer's output, [N, d]."""
    if module == "I" and convention == "linear":
        change = after_gelu(base.sites["I", "linear"][0, index], change)
    index, change = backend.move(index), backend.move(change.to(backend.dtype))
    if module == "Q":
        context = backend.keep(backend.operation("delta_entry_query")(index, change, *base.attention))
        dx1 = propagate.attention_output_row0(backend, w, base, context, context.to(torch.zeros_like(context.stored)))
        return propagate.feed_forward_row0(backend, w, base, dx1)
    enter = backend.operation("delta_entry")
    if module in ("K", "V"):
        rank_two = _key(base, index, change, 1) if module == "K" else _value(w, base, index, change, 1)
        dx1 = backend.keep(enter(*rank_two, *base.norm1.first)[0])
        return propagate.feed_forward_row0(backend, w, base, dx1)
    if module == "I":
        column = (change[None], w.wo_columns[None], index, None, None, None)
        return backend.keep(enter(*column, *base.norm2.first)[0])
    coordinate = change.new_zeros(len(index), w.weights.wo.shape[0])
    coordinate.scatter_(1, index[:, None], change[:, None])
    moved = backend.keep(coordinate)
    if module == "O":
        return propagate.norm2_row0(backend, base, moved) if convention == "linear" else moved
    dx1 = propagate.norm1_row0(backend, base, moved) if convention == "linear" else moved
    return propagate.feed_forward_row0(backend, w, base, dx1)


def enter_all(
    backend: Backend, w: PreparedLayer, base: LayerBase, module: str, index: Tensor, change: Tensor
) -> Difference:
    """K and V: change of every row of the layer's output, [S, N, d]."""
    index, change = backend.move(index), backend.move(change.to(backend.dtype))
    tokens = base.q.shape[0]
    if module == "K":
        first, a, pick_a, second, b, pick_b = _key(base, index, change, tokens)
    else:
        first, a, pick_a, second, b, pick_b = _value(w, base, index, change, tokens)
    unit = None
    if backend.in_units:
        size = (first.abs() * a.abs().amax(-1)[:, pick_a]).amax(0)
        if second is not None and b is not None and pick_b is not None:
            size = size + second.abs().amax(0) * b.abs().amax(-1)[pick_b]
        unit = units(size)
        first, second = first / unit, None if second is None else second / unit
    enter = backend.operation("delta_entry")
    dx1 = Difference(enter(first, a, pick_a, second, b, pick_b, *base.norm1.rows, unit), unit)
    return propagate.feed_forward(backend, w, base, dx1)


def after_gelu(a: Tensor, change: Tensor) -> Tensor:
    """gelu(a + change) - gelu(a), float64 [N] all: N numbers, and all of the effect hangs on them."""
    return delta_gelu(a[None], change[None, None], gelu_series(a[None]))[0, 0]


# Changes before the first LayerNorm as delta_entry takes them: first [rows, N], A, pick_a, second, B, pick_b.
_RankTwo = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


def _key(base: LayerBase, index: Tensor, change: Tensor, rows: int) -> _RankTwo:
    """Weights: pyneuro/delta.h, patched_key_weights."""
    heads = base.p.shape[0]
    width = base.q.shape[1] // heads
    head = index // width
    ds = base.q[:rows, index] * (change / math.sqrt(width))  # [rows, N]
    p = base.p[:, :rows, 0].T[:, head]
    rest = base.p[:, :rows, 1:].sum(-1).T[:, head]
    along_context, along_base, _ = patched_key_weights(p, rest, ds)
    return along_context, base.context_rows[:rows], head, along_base, base.value_row, head


def _value(w: PreparedLayer, base: LayerBase, index: Tensor, change: Tensor, rows: int) -> _RankTwo:
    heads = base.p.shape[0]
    head = index // (base.q.shape[1] // heads)
    p = base.p[:, :rows, 0].T[:, head]  # [rows, N]
    return p * change, w.wao_columns[None], index, None, None, None
