"""From one layer to the next as differences. Each function is one case of docs/method.md; differences [S, N, d] or, for
row 0, [N, d]."""

from __future__ import annotations

from torch import Tensor

from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import BaseRun, LayerBase
from pyneuro.engine.difference import Difference
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.models.weights import HeadWeights


def feed_forward(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """After the attention block to the layer's output, every row: [S, N, d] -> [S, N, d]. Row 0 in fp32 where the rest
    is bf16: see PreparedLayer."""
    out = backend.operation("delta_feed_forward")(
        dx.stored,
        w.weights.wi,
        w.packed_wi,
        w.weights.wo,
        w.packed_wo,
        base.pre_gelu,
        base.series,
        *base.norm2.rows,
        dx.unit,
    )
    if backend.precision == "bf16":
        out[0] = feed_forward_row0(backend, w, base, dx.row0).stored
    return dx.to(out)


def feed_forward_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """The same for row 0 alone: [N, d] -> [N, d]."""
    out = backend.operation("delta_feed_forward")(
        dx.stored.unsqueeze(0),
        w.weights.wi,
        w.row0_wi,
        w.weights.wo,
        w.row0_wo,
        base.pre_gelu[:1],
        base.series[:1],
        *base.norm2.first,
        dx.unit,
    )
    return dx.to(out[0])


def norm1_row0(backend: Backend, base: LayerBase, du: Difference) -> Difference:
    """LayerNorm after the attention, row 0: [N, d] -> [N, d]."""
    return du.to(backend.operation("delta_layernorm")(du.stored.unsqueeze(0), *base.norm1.first, du.unit)[0])


def norm2_row0(backend: Backend, base: LayerBase, du: Difference) -> Difference:
    """LayerNorm after the feed-forward, row 0: [N, d] -> [N, d]."""
    return du.to(backend.operation("delta_layernorm")(du.stored.unsqueeze(0), *base.norm2.first, du.unit)[0])


def attention_output_row0(
    backend: Backend, w: PreparedLayer, base: LayerBase, dctx: Difference, residual: Difference
) -> Difference:
    """Context of row 0 through W_AO, residual and LayerNorm: [N, d] -> [N, d]."""
    return dctx.to(
        backend.operation("delta_linear_norm")(
            dctx.stored.unsqueeze(0),
            residual.stored.unsqueeze(0),
            w.weights.wao,
            w.row0_wao,
            *base.norm1.first,
            dctx.unit,
        )[0]
    )


def layer_from_all(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """A layer whose whole input changed: [S, N, d] -> [S, N, d]."""
    dqkv = backend.operation("delta_linear")(dx.stored, w.wqkv, w.packed_wqkv)
    dctx = backend.operation("delta_attention")(dqkv, *base.attention, dx.unit)
    del dqkv
    dx1 = backend.operation("delta_linear_norm")(
        dctx, dx.stored, w.weights.wao, w.packed_wao, *base.norm1.rows, dx.unit
    )
    return feed_forward(backend, w, base, dx.to(dx1))


def layer_from_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """A layer whose input changed in row 0 alone: [N, d] -> [S, N, d]."""
    dqkv = backend.operation("delta_linear")(dx.stored, w.wqkv, w.row0_wqkv)
    dx1 = backend.operation("delta_attention_low_rank")(
        dqkv,
        dx.stored,
        *base.attention,
        base.context_rows,
        base.value_row,
        w.weights.wao,
        w.row0_wao,
        *base.norm1.rows,
        dx.unit,
    )
    return feed_forward(backend, w, base, dx.to(dx1))


def last_layer_from_row0(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """The last layer, read at row 0, after a change of row 0: [N, d] -> [N, d]."""
    dqkv = backend.operation("delta_linear")(dx.stored, w.wqkv, w.row0_wqkv)
    dctx = backend.operation("delta_attention_row0")(dqkv, *base.attention, dx.unit)
    return feed_forward_row0(backend, w, base, attention_output_row0(backend, w, base, dx.to(dctx), dx))


def last_layer_from_all(backend: Backend, w: PreparedLayer, base: LayerBase, dx: Difference) -> Difference:
    """The last layer, read at row 0, after a change of every row: [S, N, d] -> [N, d]."""
    row0 = dx.row0
    dq0 = backend.operation("delta_linear")(row0.stored, w.weights.wq, w.row0_wq)
    dctx = backend.operation("delta_attention_row0_dense")(
        dx.stored,
        dq0,
        *base.attention,
        w.weights.wk,
        w.packed_wk_transposed,
        w.weights.wv,
        w.packed_wv_heads,
        dx.unit,
    )
    return feed_forward_row0(backend, w, base, attention_output_row0(backend, w, base, dx.to(dctx), row0))


def delta_logits(backend: Backend, head: HeadWeights, base: BaseRun, dx: Difference) -> Tensor:
    """Pooler and classifier: row 0 of the last layer [N, d] -> float64 [N, C].

    With t = tanh(a) and τ = tanh(δ): tanh(a + δ) − t = τ (1 − t²) / (1 + t τ). In float64 from the pooler's product on:
    trained poolers saturate, and 1 − t² has few digits left in fp32.
    """
    pooler = dx.true() @ head.pooler_weight.T
    found: Tensor = backend.operation("delta_head")(pooler, base.pooled, head.classifier_weight.double())
    return found
