"""A model's weights as an engine keeps them: in the working dtype, packed once for the kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.engine.backend import Backend
from pyneuro.models.weights import HeadWeights, LayerWeights, ModelWeights


@dataclass(frozen=True, eq=False)
class PreparedLayer:
    """One layer. ``packed_*`` belong to the backend and its precision; ``row0_*`` are the same in fp32, for products of
    row 0 alone: little work, and where a patch is largest. The last layer packs what reading row 0 needs."""

    weights: LayerWeights
    wqkv: Tensor  # [3d, d]
    wao_columns: Tensor  # W_AOᵀ [d, d]
    wo_columns: Tensor  # W_Oᵀ [f, d]
    packed_wqkv: Tensor | None
    row0_wqkv: Tensor | None
    row0_wao: Tensor | None
    row0_wi: Tensor | None
    row0_wo: Tensor | None
    row0_wq: Tensor | None  # last layer
    packed_wk_transposed: Tensor | None  # last layer
    packed_wv_heads: Tensor | None  # last layer
    packed_wao: Tensor | None
    packed_wi: Tensor | None
    packed_wo: Tensor | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """All layers and the head."""

    layers: tuple[PreparedLayer, ...]
    head: HeadWeights


def prepare(weights: ModelWeights, backend: Backend) -> Prepared:
    """Pack a model for a backend. Unpacked weights stay views of the model's own where the dtype allows."""
    working = weights.to(backend.dtype, backend.device)
    last = weights.shape.layers - 1
    heads = weights.shape.heads
    layers = []
    for number, w in enumerate(working.layers):
        wqkv = torch.cat([w.wq, w.wk, w.wv])
        at_end = number == last
        packed = {name: backend.pack(t) for name, t in (("wqkv", wqkv), ("wao", w.wao), ("wi", w.wi), ("wo", w.wo))}
        exact = packed
        if backend.precision == "bf16":
            exact = {
                name: backend.pack_exact(t) for name, t in (("wqkv", wqkv), ("wao", w.wao), ("wi", w.wi), ("wo", w.wo))
            }
        layers.append(
            PreparedLayer(
                weights=w,
                wqkv=wqkv,
                wao_columns=w.wao.T.contiguous(),
                wo_columns=w.wo.T.contiguous(),
                packed_wqkv=packed["wqkv"],
                packed_wao=packed["wao"],
                packed_wi=packed["wi"],
                packed_wo=packed["wo"],
                row0_wqkv=exact["wqkv"],
                row0_wao=exact["wao"],
                row0_wi=exact["wi"],
                row0_wo=exact["wo"],
                row0_wq=backend.pack_exact(w.wq) if at_end else None,
                packed_wk_transposed=backend.pack_transposed(w.wk) if at_end else None,
                packed_wv_heads=backend.pack_heads(w.wv, heads) if at_end else None,
            )
        )
    return Prepared(tuple(layers), working.head)
