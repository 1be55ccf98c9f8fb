"""Is the model what its adapter says? Checked once, before anything is analysed.

A wrong answer here would be silent later: a model with a forward, an activation or a LoRA layer of its own would be analysed as if it had none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.weights import Encoding, head_forward, layer_forward
from pyneuro.sites import CONVENTIONS, MODULES


@dataclass(frozen=True)
class _Probe:
    id: str
    premise: str
    hypothesis: str


_PROBES = (
    _Probe("probe-1", "The author near the senators called the lawyer.", "The senators called the lawyer."),
    _Probe("probe-2", "Nobody answered.", "Somebody in the office answered the phone."),
)


def check_config(config: Any) -> None:
    """Refuse settings that change the layer's formula. Raises InputError naming the setting and its value."""
    wanted = {
        "hidden_act": ("gelu", "the difference forms are those of the erf GELU"),
        "position_embedding_type": ("absolute", "relative positions add a term to the attention scores"),
        "is_decoder": (False, "causal attention is not an encoder's"),
        "add_cross_attention": (False, "cross-attention is not an encoder's"),
        "chunk_size_feed_forward": (
            0,
            "a hook would see the feed-forward in pieces; set config.chunk_size_feed_forward = 0, the result is the same",
        ),
    }
    for setting, (value, why) in wanted.items():
        found = getattr(config, setting, value)
        if found != value:
            raise InputError(
                f"the model's config has {setting}={found!r}; pyneuro supports {value!r} only, because {why}"
            )


def check_parameters(model: nn.Module) -> None:
    """Refuse half precision and non-finite parameters. Raises InputError naming the first such parameter."""
    for name, p in model.named_parameters():
        if p.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"parameter {name} is {p.dtype}; pyneuro computes from float32 or float64 weights: call model.float() first, or use load()"
            )
        if not bool(torch.isfinite(p).all()):
            raise InputError(
                f"parameter {name} holds {int((~torch.isfinite(p)).sum())} NaN or infinite values of {p.numel()}; the checkpoint is damaged: get it again"
            )


def check_adapter(clf: Classifier) -> None:
    """Compare logits and every site with the HuggingFace forward, on two probe pairs. Raises InputError naming what differs."""
    short = replace(clf, max_length=clf.max_length or clf.max_positions)  # the probes must fit any model
    for probe in _PROBES:
        _check_probe(clf, short.encode(probe))


@torch.no_grad()
def _check_probe(clf: Classifier, encoding: Encoding) -> None:
    seen, logits = _observe(clf, encoding)
    weights, x = clf.adapter.weights(clf.model), clf.embed(encoding, torch.float64)
    x_low = x.to(logits.dtype)
    for number, layer in enumerate(weights.layers):
        exact, low = layer_forward(layer, x, clf.shape.heads), layer_forward(layer, x_low, clf.shape.heads)
        for convention in CONVENTIONS:
            for module in MODULES:
                what = f"site L{number}.{module} ({convention} convention)"
                _compare(
                    clf,
                    what,
                    seen[number, module, convention],
                    exact.site(module, convention),
                    low.site(module, convention),
                )
        x, x_low = exact.x2, low.x2
    _compare(clf, "the logits", logits, head_forward(weights.head, x[0]), head_forward(weights.head, x_low[0]))


def _observe(clf: Classifier, encoding: Encoding) -> tuple[dict[tuple[int, str, str], Tensor], Tensor]:
    """Every site's value [S, width] and the logits [C] of the HuggingFace forward."""
    seen: dict[tuple[int, str, str], Tensor] = {}
    handles = []

    def watch(key: tuple[int, str, str]) -> None:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen[key] = (output[0] if isinstance(output, tuple) else output)[0].detach()

        handles.append(clf.adapter.module(clf.model, *key).register_forward_hook(hook))

    try:
        for layer, module in clf.shape.groups():
            for convention in CONVENTIONS:
                watch((layer, module, convention))
        logits = clf.logits([encoding])[0]
    finally:
        for handle in handles:
            handle.remove()
    return seen, logits


def _compare(clf: Classifier, what: str, found: Tensor, exact: Tensor, low: Tensor) -> None:
    """`found` against the float64 forward; the same forward in the model's dtype says how much rounding is to be expected."""
    scale = float(exact.abs().max())
    rounding = float((low - exact).abs().max())
    bound = 32 * rounding + 1e-5 * (1e-3 + scale)
    error = float((found - exact).abs().max()) if found.shape == exact.shape else float("inf")
    if not error <= bound:
        raise InputError(
            f"{clf.name}: {what} differs from the {clf.adapter.name} layer pyneuro computes by {error:.2g} (rounding explains {bound:.2g}); the model's "
            "forward, activation or layers were customised (merge adapters, remove hooks), or its adapter is wrong: it can't be analysed as it is"
        )
