"""The kernels of a backend against the reference backend in float64: one pair, the bundled model, every layer and
module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from pyneuro.data import Pair
from pyneuro.engine.backend import Backend, choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.models import Classifier, bundled_model, load
from pyneuro.models.quiet import no_bars

PAIR = Pair("self-check", "The senators near the lawyer slept.", "The lawyer slept.", "non-entailment")
NEURONS = 3  # of every layer and module: the first, a middle one, the last
# Relative L2 difference of the logits' changes, of the worst (layer, module). Measured: fp32 2e-5, fp16 4e-3, bf16
# 3e-2, all where the three effects are small; a wrong kernel is off by 1.
ALLOWED = {"fp32": 5e-4, "fp16": 5e-2, "bf16": 0.2}


@dataclass(frozen=True)
class Agreement:
    """How far two backends are apart, at the layer and module where they differ most."""

    backend: str
    precision: str
    effects: int
    worst: float
    where: str

    @property
    def allowed(self) -> float:
        return ALLOWED[self.precision]

    @property
    def good(self) -> bool:
        return self.worst <= self.allowed


def compare_with_reference(backend: str, precision: str) -> Agreement:
    """Set neurons to 0 and compare the changes of the logits."""
    changes = _changes(choose_backend(backend, precision))
    differences = {site: _relative(changes[site], exact) for site, exact in _reference().items()}
    where = max(differences, key=lambda site: differences[site])
    return Agreement(backend, precision, NEURONS * len(differences), differences[where], where)


@cache
def _classifier() -> Classifier:
    with no_bars():
        return load(bundled_model())


@cache
def _reference() -> dict[str, Tensor]:
    return _changes(choose_backend("reference", "float64"))


def _changes(backend: Backend) -> dict[str, Tensor]:
    """Change of the logits, float64 [NEURONS, C], by site."""
    clf = _classifier()
    engine = ExactEngine.create(clf, backend)
    base = engine.begin(clf.encode(PAIR))
    out = {}
    for layer, module in clf.shape.groups():
        width = clf.shape.width(module)
        index = torch.tensor([0, width // 2, width - 1])
        delta = engine.delta_logits(base, layer, module, index, None, intervention=Intervention("remove"))
        out[f"L{layer}.{module}"] = delta
    return out


def _relative(found: Tensor, exact: Tensor) -> float:
    difference = float((found - exact).norm() / exact.norm())
    return difference if difference == difference else float("inf")  # NaN compares with nothing
