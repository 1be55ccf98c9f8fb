"""From one layer to the next as differences. Each function is one case of docs/method.md; shapes [S, N, d] or, for
row 0, [N, d]."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import BaseRun, LayerBase
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.models.weights import HeadWeights


def feed_forward(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """After the attention block to the layer's output, every row: [S, N, d] -> [S, N, d]. Row 0 in fp32: see
    PreparedLayer."""
    out = backend.operation("delta_feed_forward")(
        dx,
        w.weights.wi,
        w.packed_wi,
        w.weights.wo,
        w.packed_wo,
        base.pre_gelu,
        base.series,
        *base.norm2.rows,
    )
    if backend.precision == "bf16":
        out[0] = feed_forward_row0(backend, w, base, dx[0])
    return out


def feed_forward_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """The same for row 0 alone: [N, d] -> [N, d]."""
    out = backend.operation("delta_feed_forward")(
        dx.unsqueeze(0),
        w.weights.wi,
        w.row0_wi,
        w.weights.wo,
        w.row0_wo,
        base.pre_gelu[:1],
        base.series[:1],
        *base.norm2.first,
    )
    return out[0]


def norm1_row0(backend: Backend, base: LayerBase, du: Tensor) -> Tensor:
    """LayerNorm after the attention, row 0: [N, d] -> [N, d]."""
    return backend.operation("delta_layernorm")(du.unsqueeze(0), *base.norm1.first)[0]


def norm2_row0(backend: Backend, base: LayerBase, du: Tensor) -> Tensor:
    """LayerNorm after the feed-forward, row 0: [N, d] -> [N, d]."""
    return backend.operation("delta_layernorm")(du.unsqueeze(0), *base.norm2.first)[0]


def attention_output_row0(
    backend: Backend, w: PreparedLayer, base: LayerBase, dctx: Tensor, residual: Tensor
) -> Tensor:
    """Context of row 0 through W_AO, residual and LayerNorm: [N, d] -> [N, d]."""
    return backend.operation("delta_linear_norm")(
        dctx.unsqueeze(0), residual.unsqueeze(0), w.weights.wao, w.row0_wao, *base.norm1.first
    )[0]


def layer_from_all(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """A layer whose whole input changed: [S, N, d] -> [S, N, d]."""
    dqkv = backend.operation("delta_linear")(dx, w.wqkv, w.packed_wqkv)
    dctx = backend.operation("delta_attention")(dqkv, *base.attention)
    del dqkv
    dx1 = backend.operation("delta_linear_norm")(dctx, dx, w.weights.wao, w.packed_wao, *base.norm1.rows)
    return feed_forward(backend, w, base, dx1)


def layer_from_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """A layer whose input changed in row 0 alone: [N, d] -> [S, N, d]."""
    dqkv = backend.operation("delta_linear")(dx, w.wqkv, w.row0_wqkv)
    dx1 = backend.operation("delta_attention_low_rank")(
        dqkv,
        dx,
        *base.attention,
        base.context_rows,
        base.value_row,
        w.weights.wao,
        w.row0_wao,
        *base.norm1.rows,
    )
    return feed_forward(backend, w, base, dx1)


def last_layer_from_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """The last layer, read at row 0, after a change of row 0: [N, d] -> [N, d]."""
    dqkv = backend.operation("delta_linear")(dx, w.wqkv, w.row0_wqkv)
    dctx = backend.operation("delta_attention_row0")(dqkv, *base.attention)
    return feed_forward_row0(backend, w, base, attention_output_row0(backend, w, base, dctx, dx))


def last_layer_from_all(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Tensor) -> Tensor:
    """The last layer, read at row 0, after a change of every row: [S, N, d] -> [N, d]."""
    row0 = dx[0]
    dq0 = backend.operation("delta_linear")(row0, w.weights.wq, w.row0_wq)
    dctx = backend.operation("delta_attention_row0_dense")(
        dx, dq0, *base.attention, w.weights.wk, w.packed_wk_transposed, w.weights.wv, w.packed_wv_heads
    )
    return feed_forward_row0(backend, w, base, attention_output_row0(backend, w, base, dctx, row0))


def delta_logits(head: HeadWeights, base: BaseRun, dx: Tensor) -> Tensor:
    """Pooler and classifier: row 0 of the last layer [N, d] -> float64 [N, C].

    With t = tanh(a) and τ = tanh(δ): tanh(a + δ) − t = τ (1 − t²) / (1 + t τ). In float64 from the pooler's product on:
    trained poolers saturate, and 1 − t² has few digits left in fp32.
    """
    tau = torch.tanh((dx @ head.pooler_weight.T).double())
    t = base.pooled
    return (tau * (1 - t * t) / (1 + t * tau)) @ head.classifier_weight.double().T
