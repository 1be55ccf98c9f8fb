"""The base run of one sample: computed once in float64, kept in the working dtype, read by every patched run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.weights import Encoding, LayerTrace, LayerWeights, ModelWeights, head_forward, layer_forward
from pyneuro.ops.reference import gelu_series
from pyneuro.sites import MODULES


@dataclass(frozen=True, eq=False)
class NormBase:
    """What a LayerNorm's difference needs: u − mean(u) [S, d], 1 / sqrt(var(u) + ε) [S], its weight [d]."""

    centred: Tensor
    rstd: Tensor
    gamma: Tensor

    @property
    def first(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row 0, as arguments of an operation."""
        return self.centred[:1], self.rstd[:1], self.gamma

    @property
    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows, as arguments of an operation."""
        return self.centred, self.rstd, self.gamma


@dataclass(frozen=True, eq=False)
class LayerBase:
    """One layer of a base run, in the working dtype; S tokens, d hidden, f intermediate, H heads.

    ``sites`` holds, for (module, convention), the site's value in float64 on the CPU: [1, width] for row 0, or all
    rows.
    """

    q: Tensor  # [S, d]
    k: Tensor  # [S, d]
    v: Tensor  # [S, d]
    p: Tensor  # [H, S, S]
    context_rows: Tensor  # [S, H, d]  W_AO,h (ctx_h[t] − p_h[t, 0] v_h[0])
    value_row: Tensor  # [H, d]  W_AO,h v_h[0]
    norm1: NormBase  # after the attention
    pre_gelu: Tensor  # [S, f]
    series: Tensor  # [S, 4, f]
    norm2: NormBase  # after the feed-forward
    sites: Mapping[tuple[str, str], Tensor]

    @property
    def attention(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Arguments of the attention operations."""
        return self.q, self.k, self.v, self.p


@dataclass(frozen=True, eq=False)
class BaseRun:
    """A sample's base run."""

    id: str
    tokens: int
    layers: tuple[LayerBase, ...]
    pooled: Tensor  # float64 [d]  tanh output of the pooler
    logits: Tensor  # float64 [C], on the CPU


def run_base(
    clf: Classifier,
    encoding: Encoding,
    dtype: torch.dtype,
    *,
    all_rows: bool = False,
    weights: ModelWeights | None = None,
) -> BaseRun:
    """Run one sample and keep what differences need.

    Parameters
    ----------
    clf : Classifier
    encoding : Encoding
    dtype : torch.float32 or torch.float64
        In which the base values are kept.
    all_rows : bool
        Keep site values of every token, not of token 0 alone (for patches elsewhere).
    weights : ModelWeights, optional
        The classifier's, in float64 already: converting them takes as long as the run itself. The run is done, and its
        values are kept, on the device where they are.

    Raises
    ------
    InputError
        Where an activation is not finite: sample, layer and module named.
    """
    weights = weights or clf.adapter.weights(clf.model)  # a layer at a time goes to float64
    heads = weights.shape.heads
    x = clf.embed(encoding, torch.float64).to(weights.head.pooler_weight.device)
    seen = [("the embeddings", x)]
    layers, sites = [], []
    for number, w in enumerate(weights.layers):
        layer = w.to(torch.float64)
        trace = layer_forward(layer, x, heads)
        seen += [(f"L{number}.{module}", trace.site(module, "linear")) for module in MODULES]
        seen.append((f"layer {number}'s output", trace.x2))
        sites.append(_sites(trace, all_rows))
        layers.append(_keep(layer, x, trace, dtype))
        x = trace.x2
    head = weights.head.to(torch.float64)
    pooled = torch.tanh(torch.nn.functional.linear(x[0], head.pooler_weight, head.pooler_bias))
    logits = head_forward(head, x[0])
    _require_finite([*seen, ("the pooler", pooled), ("the classifier's logits", logits)], encoding.id)
    kept = (replace(layer, sites=on_cpu) for layer, on_cpu in zip(layers, _to_cpu(sites), strict=True))
    return BaseRun(encoding.id, x.shape[0], tuple(kept), pooled, logits.cpu())


_Sites = dict[tuple[str, str], Tensor]


def _sites(trace: LayerTrace, all_rows: bool) -> _Sites:
    kept = slice(None) if all_rows else slice(1)
    return {(m, c): trace.site(m, c)[kept].clone() for m in MODULES for c in ("linear", "hook")}


def _to_cpu(layers: list[_Sites]) -> list[_Sites]:
    """All of them in one move."""
    values = [value for sites in layers for value in sites.values()]
    if all(value.device.type == "cpu" for value in values):
        return layers
    flat = torch.cat([value.flatten() for value in values]).cpu().split([value.numel() for value in values])
    moved = iter(part.view_as(value) for part, value in zip(flat, values, strict=True))
    return [{name: next(moved) for name in sites} for sites in layers]


def _keep(w: LayerWeights, x: Tensor, trace: LayerTrace, dtype: torch.dtype) -> LayerBase:
    heads = trace.p.shape[0]
    v = trace.v.unflatten(-1, (heads, -1))  # [S, H, e]
    wao = w.wao.unflatten(-1, (heads, -1))  # [d, H, e]
    context = torch.einsum("hts,she->the", trace.p, v)
    without_first = context - trace.p[:, :, 0].T.unsqueeze(-1) * v[0]

    def norm(u: Tensor, gamma: Tensor) -> NormBase:
        centred = u - u.mean(-1, keepdim=True)
        rstd = torch.rsqrt((centred * centred).mean(-1) + w.eps)
        return NormBase(centred.to(dtype), rstd.to(dtype), gamma.to(dtype))

    return LayerBase(
        q=trace.q.to(dtype),
        k=trace.k.to(dtype),
        v=trace.v.to(dtype),
        p=trace.p.to(dtype),
        context_rows=torch.einsum("the,dhe->thd", without_first, wao).to(dtype),
        value_row=torch.einsum("he,dhe->hd", v[0], wao).to(dtype),
        norm1=norm(trace.ao + x, w.ln1_weight),
        pre_gelu=trace.i.to(dtype),
        series=gelu_series(trace.i).to(dtype),
        norm2=norm(trace.o + trace.x1, w.ln2_weight),
        sites={},
    )


def _require_finite(seen: Sequence[tuple[str, Tensor]], sample: str) -> None:
    """`seen` in the order of the forward, with names; the first that is not finite is named. One question for all: a
    device answers only when it is done."""
    finite = torch.stack([torch.isfinite(value).all() for _, value in seen]).tolist()
    for (where, _), good in zip(seen, finite, strict=True):
        if not good:
            raise InputError(
                f"sample {sample!r}: activations of {where} are NaN or infinite; check the model's weights and the "
                "sample"
            )
