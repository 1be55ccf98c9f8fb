"""Is the model what its adapter says? Checked once, before anything is analysed.

A wrong answer here would be silent later: a model with a forward, an activation or a LoRA layer of its own would be
analysed as if it had none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.observe import observe
from pyneuro.models.weights import Encoding, head_forward, layer_forward
from pyneuro.sites import MODULES

_MEND = (
    "a forward, activation or layer of this model was customised, or its adapter is wrong: merge adapters, remove "
    "hooks, load the plain architecture"
)


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
            "hooks would see the feed-forward in pieces; set it to 0 in config.json, the result is the same",
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
                f"parameter {name} is {p.dtype}; pyneuro computes from float32 or float64 weights: call "
                "model.float() first, or use load()"
            )
        if not bool(torch.isfinite(p).all()):
            raise InputError(
                f"parameter {name} holds {int((~torch.isfinite(p)).sum())} NaN or infinite values of {p.numel()}; "
                "the checkpoint is damaged: get it again"
            )


def check_adapter(clf: Classifier) -> None:
    """Compare every site and the logits with the HuggingFace forward on two probes. Raises InputError naming the first
    that differs.
    """
    short = replace(clf, max_length=clf.max_length or clf.max_positions)  # the probes must fit any model
    for probe in _PROBES:
        _check_probe(clf, short.encode(probe))


@torch.no_grad()
def _check_probe(clf: Classifier, encoding: Encoding) -> None:
    with observe(clf, "linear") as linear, observe(clf, "hook") as hook:
        logits = clf.logits([encoding])[0]
    weights, x = clf.adapter.weights(clf.model), clf.embed(encoding, torch.float64)
    x_low = x.to(logits.dtype)
    for number, layer in enumerate(weights.layers):
        exact, low = layer_forward(layer, x, clf.shape.heads), layer_forward(layer, x_low, clf.shape.heads)
        for module in MODULES:  # in the order of the computation, so that the first to differ is the cause
            for convention, seen in (("linear", linear), ("hook", hook)):
                what = f"the values of L{number}.{module} ({convention} convention)"
                if (number, module) not in seen:
                    raise InputError(f"{clf.name}: the module of {what} takes no part in the forward; {_MEND}")
                found = seen[number, module][0]
                _compare(clf, what, found, exact.site(module, convention), low.site(module, convention))
        x, x_low = exact.x2, low.x2
    _compare(clf, "the logits", logits, head_forward(weights.head, x[0]), head_forward(weights.head, x_low[0]))


def _compare(clf: Classifier, what: str, found: Tensor, exact: Tensor, low: Tensor) -> None:
    """`found` against the float64 forward; `low`, the same in the model's dtype, says what rounding to expect."""
    scale = float(exact.abs().max())
    rounding = float((low - exact).abs().max())
    bound = 32 * rounding + 1e-5 * (1e-3 + scale)
    error = float((found - exact).abs().max()) if found.shape == exact.shape else float("inf")
    if not error <= bound:
        raise InputError(
            f"{clf.name}: {what} differ from the plain {clf.adapter.name} forward by {error:.2g}; rounding "
            f"explains {bound:.2g}; {_MEND}"
        )
