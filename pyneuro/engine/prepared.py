"""A model's weights as an engine keeps them: in the working dtype, packed once for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.engine.backend import Backend
from pyneuro.models.weights import HeadWeights, LayerWeights, ModelWeights


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """One layer. ``packed_*`` belong to the backend; the last layer packs what reading row 0 alone needs."""

    weights: LayerWeights
    wqkv: Tensor  # [3d, d]
    packed_wqkv: Tensor | None
    packed_wq: Tensor | None  # last layer
    packed_wk_transposed: Tensor | None  # last layer
    packed_wv_heads: Tensor | None  # last layer
    packed_wao: Tensor | None
    packed_wao_exact: Tensor | None
    packed_wi: Tensor | None
    packed_wo: Tensor | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """All layers and the head."""

    layers: tuple[PreparedLayer, ...]
    head: HeadWeights


def prepare(weights: ModelWeights, backend: Backend) -> Prepared:
    """Pack a model for a backend. Unpacked weights stay views of the model's own where the dtype allows."""
    working = weights.to(backend.dtype)
    last = weights.shape.layers - 1
    heads = weights.shape.heads
    layers = []
    for number, w in enumerate(working.layers):
        wqkv = torch.cat([w.wq, w.wk, w.wv])
        at_end = number == last
        layers.append(
            PreparedLayer(
                weights=w,
                wqkv=wqkv,
                packed_wqkv=backend.pack(wqkv),
                packed_wq=backend.pack(w.wq) if at_end else None,
                packed_wk_transposed=backend.pack_exact(w.wk.T) if at_end else None,
                packed_wv_heads=backend.pack_heads(w.wv, heads) if at_end else None,
                packed_wao=backend.pack(w.wao),
                packed_wao_exact=None if at_end else backend.pack_exact(w.wao),
                packed_wi=backend.pack(w.wi),
                packed_wo=backend.pack(w.wo),
            )
        )
    return Prepared(tuple(layers), working.head)
