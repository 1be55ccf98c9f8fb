"""Adjoints of a base run: how the logits move with its activations, to first order. One backward serves every neuron.

Responses do not see a shift of all logits together, so G = C − 1 differences z_c − z_0 are carried, not C logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.engine.base_run import BaseRun, LayerBase, NormBase
from pyneuro.engine.prepared import Prepared
from pyneuro.models.weights import HeadWeights, LayerWeights


@dataclass(frozen=True, eq=False)
class LayerAdjoint:
    """Derivatives of the G logit differences with respect to one layer's activations."""

    output: Tensor  # [G, S, d]  the layer's output
    attended: Tensor  # [G, d]  row 0 after the attention block
    context: Tensor  # [G, S, H, e]  the heads' contexts
    value: Tensor  # [G, d]  row 0 of v


def run_adjoint(prepared: Prepared, base: BaseRun) -> tuple[LayerAdjoint, ...]:
    """One backward over the base run, layer by layer; in the dtype of the base values."""
    row0 = _head_adjoint(prepared.head, base)
    output = row0.new_zeros(row0.shape[0], base.tokens, row0.shape[1])
    output[:, 0] = row0
    found = []
    rows = 1  # of the last layer nothing but row 0 is read
    for w, layer in zip(reversed(prepared.layers), reversed(base.layers), strict=True):
        adjoint, below = _layer_adjoint(w.weights, layer, output, rows)
        found.append(adjoint)
        output, rows = below, base.tokens
    return tuple(reversed(found))


def _head_adjoint(head: HeadWeights, base: BaseRun) -> Tensor:
    """∂(z_c − z_0)/∂x_0 of the last layer's output, [G, d]."""
    classes = head.classifier_weight.double()
    slope = (classes[1:] - classes[:1]) * (1 - base.pooled.square())
    return slope.to(head.pooler_weight.dtype) @ head.pooler_weight


def _layer_adjoint(w: LayerWeights, base: LayerBase, output: Tensor, rows: int) -> tuple[LayerAdjoint, Tensor]:
    """Adjoints inside a layer and of its input [G, S, d], from those of its output, nonzero in the first `rows`."""
    heads, tokens = base.p.shape[0], base.p.shape[2]
    before_norm2 = _norm_adjoint(base.norm2, output[:, :rows])
    through = (before_norm2 @ w.wo) * base.series[:rows, 0]
    after_norm1 = torch.addmm(before_norm2.flatten(0, 1), through.flatten(0, 1), w.wi).view_as(before_norm2)
    before_norm1 = _norm_adjoint(base.norm1, after_norm1)

    by_head = (before_norm1 @ w.wao).unflatten(-1, (heads, -1))  # [G, R, H, e]
    context = by_head.transpose(1, 2)  # [G, H, R, e]
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (base.q, base.k, base.v))  # [H, S, e]
    p = base.p[:, :rows]
    dp = context @ v.transpose(1, 2)  # [G, H, R, S]
    ds = p * (dp - (p * dp).sum(-1, keepdim=True)) / math.sqrt(q.shape[-1])
    dv = p.transpose(1, 2) @ context
    dk = ds.transpose(2, 3) @ q[:, :rows]
    dq = ds @ k

    def joined(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)  # [G, rows, d]

    value = joined(dv)
    below = joined(dk) @ w.wk + value @ w.wv
    below[:, :rows] += before_norm1 + joined(dq) @ w.wq
    if rows < tokens:
        by_head = torch.nn.functional.pad(by_head, (0, 0, 0, 0, 0, tokens - rows))
    return LayerAdjoint(output, after_norm1[:, 0], by_head, value[:, 0]), below


def _norm_adjoint(norm: NormBase, g: Tensor) -> Tensor:
    """Backward of LayerNorm: g [G, R, d] after it -> before it."""
    rows = g.shape[1]
    r = norm.rstd[:rows, None]
    unit = norm.centred[:rows] * r
    g = g * norm.gamma
    return r * (g - g.mean(-1, keepdim=True) - unit * (g * unit).mean(-1, keepdim=True))
