"""The base run of one sample: computed once in float64, kept in the working dtype, read by every patched run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pyneuro.engine.arrival import Arrival, send
from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.weights import Encoding, LayerTrace, LayerWeights, ModelWeights, head_forward, layer_forward
from pyneuro.sites import MODULES, ModelShape

SITES = tuple((module, convention) for module in MODULES for convention in ("linear", "hook"))


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

    ``sites`` holds, for (module, convention), the site's value in float64: [1, width] for row 0, or all rows.
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
    """A sample's base run. ``launch_base`` gives logits and sites on the CPU."""

    id: str
    tokens: int
    layers: tuple[LayerBase, ...]
    pooled: Tensor  # float64 [d]  tanh output of the pooler
    logits: Tensor  # float64 [C]


@dataclass(frozen=True, eq=False)
class Forward:
    """A base run where it is computed, nothing of it waited for: whoever reads it on the host waits."""

    layers: tuple[LayerBase, ...]  # without sites
    sites: tuple[Tensor, ...]  # of every layer side by side, float64 [1 or S, 2 (5 d + f)]
    pooled: Tensor  # float64 [d]
    logits: Tensor  # float64 [C]
    finite: Tensor  # bool, by where in the forward: ``seen``

    def base_run(self, id: str, shape: ModelShape, logits: Tensor, sites: Iterable[Tensor]) -> BaseRun:
        """With logits and sites as they are here, or as they arrived on the CPU."""
        layers = tuple(
            replace(layer, sites=_by_site(values, shape)) for layer, values in zip(self.layers, sites, strict=True)
        )
        return BaseRun(id, len(self.layers[0].q), layers, self.pooled, logits)


@torch.no_grad()
def run_forward(weights: ModelWeights, x: Tensor, dtype: torch.dtype, *, all_rows: bool = False) -> Forward:
    """The base run of embeddings x, float64 [S, d], which are all it depends on; arguments as ``launch_base``."""
    sums = [x.sum()]  # finite where all is: in float64 a sum does not overflow
    layers, sites = [], []
    for w in weights.layers:
        layer = w.to(torch.float64)
        trace = layer_forward(layer, x, weights.shape.heads)
        sums += [value.sum() for value in (*(trace.site(module, "linear") for module in MODULES), trace.x2)]
        sites.append(_sites(trace, all_rows))
        layers.append(_keep(layer, x, trace, dtype))
        x = trace.x2
    head = weights.head.to(torch.float64)
    pooled = torch.tanh(torch.nn.functional.linear(x[0], head.pooler_weight, head.pooler_bias))
    logits = head_forward(head, x[0])
    finite = torch.isfinite(torch.stack([*sums, pooled.sum(), logits.sum()]))
    return Forward(tuple(layers), tuple(sites), pooled, logits, finite)


def seen(shape: ModelShape) -> list[str]:
    """Where ``Forward.finite`` looks, in the order of the forward."""
    layers = [[*(f"L{n}.{module}" for module in MODULES), f"layer {n}'s output"] for n in range(shape.layers)]
    return ["the embeddings", *(where for layer in layers for where in layer), "the pooler", "the classifier's logits"]


def require_finite(finite: Tensor, shape: ModelShape, sample: str) -> None:
    """Raises InputError with the first place of a forward that is not finite, and the sample's id."""
    for where, good in zip(seen(shape), finite.tolist(), strict=True):
        if not good:
            raise InputError(
                f"sample {sample!r}: activations of {where} are NaN or infinite; check the model's weights and the "
                "sample"
            )


@torch.no_grad()
def launch_base(
    clf: Classifier,
    encoding: Encoding,
    dtype: torch.dtype,
    *,
    all_rows: bool = False,
    weights: ModelWeights | None = None,
) -> Callable[[], BaseRun]:
    """Begin the run of one sample that keeps what differences need; call what is returned for it.

    On a device the work goes on while the caller does something else.

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
        When the run is called for, where an activation is not finite: sample, layer and module named.
    """
    weights = weights or clf.adapter.weights(clf.model)  # a layer at a time goes to float64
    x = send(clf.embed(encoding, torch.float64), weights.head.pooler_weight.device)
    forward = run_forward(weights, x, dtype, all_rows=all_rows)
    finite = Arrival.of(forward.finite)
    answers = [Arrival.of(value) for value in (forward.logits, *forward.sites)]

    def result() -> BaseRun:
        require_finite(finite.result(), clf.shape, encoding.id)
        logits, *sites = (answer.result() for answer in answers)
        return forward.base_run(encoding.id, clf.shape, logits, sites)

    return result


def _sites(trace: LayerTrace, all_rows: bool) -> Tensor:
    """All of a layer's side by side, [1 or S, 2 (5 d + f)]: one tensor to move."""
    kept = slice(None) if all_rows else slice(1)
    return torch.cat([trace.site(m, c)[kept] for m, c in SITES], dim=1)


def _by_site(values: Tensor, shape: ModelShape) -> dict[tuple[str, str], Tensor]:
    return dict(zip(SITES, values.split([shape.width(module) for module, _ in SITES], dim=1), strict=True))


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
        series=torch.ops.pyneuro.gelu_series(trace.i, dtype),
        norm2=norm(trace.o + trace.x1, w.ln2_weight),
        sites={},
    )
