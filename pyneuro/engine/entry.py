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

N candidates of one (layer, module) at once: index int64 [N], change [N] = patched value − base value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyneuro.engine import propagate
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import LayerBase
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.ops.reference import delta_gelu, delta_softmax, gelu_series, patched_key_weights


def enter_row0(
    backend: Backend, w: PreparedLayer, base: LayerBase, module: str, convention: str, index: Tensor, change: Tensor
) -> Tensor:
    """Q, AO, I and O, and in the last layer K and V too: change of row 0 of the layer's output, [N, d]."""
    if module == "Q":
        context = _query_context(base, index, change)
        none = torch.zeros_like(context)
        dx1 = propagate.attention_output_row0(backend, w, base, context, none)
        return propagate.feed_forward_row0(backend, w, base, dx1)
    if module in ("K", "V"):
        du = _key_rows(base, index, change, 1) if module == "K" else _value_rows(w, base, index, change, 1)
        return propagate.feed_forward_row0(backend, w, base, propagate.norm1_row0(backend, base, du[0]))
    if module == "I":
        if convention == "linear":
            # In float64: N numbers, and all of the effect hangs on them.
            a = base.sites["I", "linear"][0, index][None]
            change = delta_gelu(a, change.double()[None, None], gelu_series(a))[0, 0].to(change.dtype)
        return propagate.norm2_row0(backend, base, change[:, None] * w.weights.wo[:, index].T)
    coordinate = change.new_zeros(len(index), w.weights.wo.shape[0])
    coordinate.scatter_(1, index[:, None], change[:, None])
    if module == "O":
        return propagate.norm2_row0(backend, base, coordinate) if convention == "linear" else coordinate
    dx1 = propagate.norm1_row0(backend, base, coordinate) if convention == "linear" else coordinate
    return propagate.feed_forward_row0(backend, w, base, dx1)


def enter_all(
    backend: Backend, w: PreparedLayer, base: LayerBase, module: str, index: Tensor, change: Tensor
) -> Tensor:
    """K and V: change of every row of the layer's output, [S, N, d]."""
    tokens = base.q.shape[0]
    du = _key_rows(base, index, change, tokens) if module == "K" else _value_rows(w, base, index, change, tokens)
    dx1 = backend.operation("delta_layernorm")(du, *base.norm1.rows)
    return propagate.feed_forward(backend, w, base, dx1)


def _query_context(base: LayerBase, index: Tensor, change: Tensor) -> Tensor:
    """Context difference of row 0 [N, d]; zero outside the neuron's head."""
    tokens, hidden = base.q.shape
    heads = base.p.shape[0]
    width = hidden // heads
    head = index // width
    ds = change[:, None] / math.sqrt(width) * base.k[:, index].T  # [N, S]
    dp = delta_softmax(base.p[head, 0], ds)
    values = base.v.view(tokens, heads, width)
    out = change.new_zeros(len(index), heads, width)
    for h in range(heads):  # heads are few, and a product each beats gathering [N, S, e] values
        mine = head == h
        out[mine, h] = dp[mine] @ values[:, h]
    return out.view(len(index), hidden)


def _key_rows(base: LayerBase, index: Tensor, change: Tensor, rows: int) -> Tensor:
    """Change before the first LayerNorm, K: [rows, N, d]. Weights: pyneuro/delta.h, patched_key_weights."""
    heads = base.p.shape[0]
    width = base.q.shape[1] // heads
    head = index // width
    ds = base.q[:rows, index] * (change / math.sqrt(width))  # [rows, N]
    p = base.p[:, :rows, 0].T[:, head]
    rest = base.p[:, :rows, 1:].sum(-1).T[:, head]
    along_context, along_base, _ = patched_key_weights(p, rest, ds)
    du = base.context_rows[:rows, head] * along_context.unsqueeze(-1)
    return du.addcmul_(along_base.unsqueeze(-1), base.value_row[head])


def _value_rows(w: PreparedLayer, base: LayerBase, index: Tensor, change: Tensor, rows: int) -> Tensor:
    """Change before the first LayerNorm, V: [rows, N, d]."""
    heads = base.p.shape[0]
    head = index // (base.q.shape[1] // heads)
    p = base.p[:, :rows, 0].T[:, head]  # [rows, N]
    return (p * change).unsqueeze(-1) * w.weights.wao[:, index].T
