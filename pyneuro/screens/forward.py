"""A classifier's forward that gradients are taken through, with every site open to a visitor.

The formulas are those of ``pyneuro.models.weights``, on padded batches of samples. A screen that wants another backward
overrides a method of ``Forward``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pyneuro.models.weights import ModelWeights, head_forward

Site = tuple[int, str]

#: Called with each site's value [B, S, width] as it is computed; the forward goes on with what it returns.
Visit = Callable[[Site, Tensor], Tensor]

#: In the place of a module: attention probabilities [B, H, S, S], query by key.
PATTERN = "P"


@dataclass(frozen=True, eq=False)
class Batch:
    """Embedded samples, padded at the right."""

    samples: tuple[str, ...]
    x: Tensor  # [B, S, d]
    mask: Tensor  # [B, 1, 1, S], added to attention scores: 0 for a token, -inf for padding


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward of one model; a site's value is visited where the convention has it."""

    weights: ModelWeights
    convention: str

    def logits(self, x: Tensor, mask: Tensor, visit: Visit, first: int = 0) -> Tensor:
        """Logits [B, C] from the input x [B, S, d] of layer `first`."""
        for number in range(first, self.weights.shape.layers):
            x = self.layer(number, x, mask, visit)
        return self.head(x)

    def layer(self, number: int, x: Tensor, mask: Tensor, visit: Visit) -> Tensor:
        """Output [B, S, d] of an encoder layer."""
        w, heads = self.weights.layers[number], self.weights.shape.heads
        dense = self.convention == "linear"

        def at(module: str, value: Tensor, here: bool = True) -> Tensor:
            return visit((number, module), value) if here else value

        q, k, v = at("Q", F.linear(x, w.wq, w.bq)), at("K", F.linear(x, w.wk, w.bk)), at("V", F.linear(x, w.wv, w.bv))
        qh, kh, vh = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # [B, H, S, e]
        p = at(PATTERN, self.pattern(qh @ kh.mT / math.sqrt(qh.shape[-1]) + mask))
        context = (p @ vh).transpose(1, 2).flatten(-2)
        ao = at("AO", F.linear(context, w.wao, w.bao), dense)
        x1 = at("AO", self.norm(self.branch(number, ao) + x, w.ln1_weight, w.ln1_bias, w.eps), not dense)
        i = at("I", F.linear(x1, w.wi, w.bi), dense)
        g = at("I", self.gelu(i), not dense)
        o = at("O", F.linear(g, w.wo, w.bo), dense)
        return at("O", self.norm(self.branch(number, o) + x1, w.ln2_weight, w.ln2_bias, w.eps), not dense)

    def pattern(self, scores: Tensor) -> Tensor:
        """Attention probabilities."""
        return scores.softmax(-1)

    def norm(self, u: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """LayerNorm."""
        return F.layer_norm(u, weight.shape, weight, bias, eps)

    def gelu(self, i: Tensor) -> Tensor:
        """The feed-forward's activation."""
        return F.gelu(i)

    def branch(self, layer: int, value: Tensor) -> Tensor:
        """What a layer's attention or feed-forward adds to the residual stream."""
        return value

    def head(self, x: Tensor) -> Tensor:
        """Logits [B, C]."""
        return head_forward(self.weights.head, x[:, 0])


def keep(wanted: Collection[Site], seen: dict[Site, Tensor]) -> Visit:
    """A visitor that notes the values of `wanted` in `seen` and changes nothing."""

    def visit(site: Site, value: Tensor) -> Tensor:
        if site in wanted:
            seen[site] = value
        return value

    return visit


def slopes(logits: Tensor, inputs: Sequence[Tensor], rows: Sequence[slice]) -> list[Tensor]:
    """Gradients of every class's logit [B, C] with respect to rows of the inputs: [C, B, P, ...] each.

    One backward a class serves all inputs, of which the i-th [B, S, ...] counts at ``rows[i]``.
    """
    found = []
    for total in logits.sum(0):  # samples of a batch do not see each other: the sum's gradient is each sample's own
        whole = torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)
        found.append([gradient[:, at].clone() for gradient, at in zip(whole, rows, strict=True)])
    return [torch.stack(of) for of in zip(*found, strict=True)]
