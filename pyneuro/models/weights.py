"""What an encoder classifier is made of, and its forward written out in plain torch.

The forward here is the definition every engine answers to: post-LayerNorm BERT layers, erf GELU, softmax attention
scaled by 1/sqrt(head width), tanh pooler on token 0. ``pyneuro.models.verify`` compares it with the HuggingFace model
before that model is analysed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pyneuro.sites import ModelShape


@dataclass(frozen=True, eq=False)
class Encoding:
    """One tokenised pair, without padding. Both tensors are int64 [S] on the CPU."""

    id: str
    input_ids: Tensor
    token_type_ids: Tensor
    label: str | None = None

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One encoder layer; d = hidden, f = intermediate. Weights are [out, in] as in ``torch.nn.Linear``."""

    wq: Tensor  # [d, d]
    bq: Tensor  # [d]
    wk: Tensor  # [d, d]
    bk: Tensor  # [d]
    wv: Tensor  # [d, d]
    bv: Tensor  # [d]
    wao: Tensor  # [d, d]
    bao: Tensor  # [d]
    ln1_weight: Tensor  # [d], after attention
    ln1_bias: Tensor  # [d]
    wi: Tensor  # [f, d]
    bi: Tensor  # [f]
    wo: Tensor  # [d, f]
    bo: Tensor  # [d]
    ln2_weight: Tensor  # [d], after the feed-forward
    ln2_bias: Tensor  # [d]
    eps: float

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> LayerWeights:
        """These weights in `dtype`, on `device` where it is given: the same tensors where they already are, copies
        otherwise."""
        moved = {f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self) if f.name != "eps"}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """``classifier(tanh(pooler(x[0])))``; C = labels."""

    pooler_weight: Tensor  # [d, d]
    pooler_bias: Tensor  # [d]
    classifier_weight: Tensor  # [C, d]
    classifier_bias: Tensor  # [C]

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> HeadWeights:
        """As ``LayerWeights.to``."""
        return replace(self, **{f.name: getattr(self, f.name).to(device=device, dtype=dtype) for f in fields(self)})


@dataclass(frozen=True, eq=False)
class ModelWeights:
    """Encoder layers and head of a classifier; the embeddings stay with the model (``Classifier.embed``)."""

    layers: tuple[LayerWeights, ...]
    head: HeadWeights
    shape: ModelShape

    def to(self, dtype: torch.dtype, device: torch.device | None = None) -> ModelWeights:
        """As ``LayerWeights.to``."""
        layers = tuple(layer.to(dtype, device) for layer in self.layers)
        return replace(self, layers=layers, head=self.head.to(dtype, device))


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """Every intermediate value of one layer on one sample; S = tokens, H = heads."""

    q: Tensor  # [S, d]
    k: Tensor  # [S, d]
    v: Tensor  # [S, d]
    p: Tensor  # [H, S, S], attention probabilities, query by key
    ao: Tensor  # [S, d], before the residual
    x1: Tensor  # [S, d], after residual and LayerNorm
    i: Tensor  # [S, f], before GELU
    g: Tensor  # [S, f], after GELU
    o: Tensor  # [S, d], before the residual
    x2: Tensor  # [S, d], the layer's output

    def site(self, module: str, convention: str) -> Tensor:
        """Value [S, width] of a module's neurons; see ``pyneuro.sites`` for the two conventions."""
        dense = convention == "linear"
        return {
            "Q": self.q,
            "K": self.k,
            "V": self.v,
            "AO": self.ao if dense else self.x1,
            "I": self.i if dense else self.g,
            "O": self.o if dense else self.x2,
        }[module]


def layer_forward(w: LayerWeights, x: Tensor, heads: int) -> LayerTrace:
    """One encoder layer on one sample, x [S, d]. Weights are used in x's dtype."""
    w = w.to(x.dtype)
    tokens, hidden = x.shape
    q, k, v = F.linear(x, w.wq, w.bq), F.linear(x, w.wk, w.bk), F.linear(x, w.wv, w.bv)
    qh, kh, vh = (t.view(tokens, heads, hidden // heads).transpose(0, 1) for t in (q, k, v))  # [H, S, e]
    p = (qh @ kh.transpose(1, 2) / math.sqrt(hidden // heads)).softmax(-1)
    ao = F.linear((p @ vh).transpose(0, 1).reshape(tokens, hidden), w.wao, w.bao)
    x1 = F.layer_norm(ao + x, (hidden,), w.ln1_weight, w.ln1_bias, w.eps)
    i = F.linear(x1, w.wi, w.bi)
    g = F.gelu(i)
    o = F.linear(g, w.wo, w.bo)
    x2 = F.layer_norm(o + x1, (hidden,), w.ln2_weight, w.ln2_bias, w.eps)
    return LayerTrace(q, k, v, p, ao, x1, i, g, o, x2)


def head_forward(w: HeadWeights, x0: Tensor) -> Tensor:
    """Logits [..., C] from the last layer's token 0, x0 [..., d]. Weights are used in x0's dtype."""
    w = w.to(x0.dtype)
    return F.linear(torch.tanh(F.linear(x0, w.pooler_weight, w.pooler_bias)), w.classifier_weight, w.classifier_bias)


def forward(weights: ModelWeights, x: Tensor) -> Tensor:
    """Logits [C] of one sample from its embeddings x [S, d], in x's dtype: weights are cast one layer at a time."""
    for layer in weights.layers:
        x = layer_forward(layer, x, weights.shape.heads).x2
    return head_forward(weights.head, x[0])
