"""Patched forwards written out by hand, one neuron, one sample, one forward at a time. Shares no code with
``pyneuro.baselines``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from pyneuro.engine.values import Values
from pyneuro.models import Classifier
from pyneuro.sites import MODULES
from tests.tiny import SamplePair

#: Patched activation from the one found, a, the value z and the strength s.
FORMULAS: dict[str, Callable[[torch.Tensor, float, float], object]] = {
    "replace": lambda a, z, s: z,
    "weaken": lambda a, z, s: s * a,
    "negate": lambda a, z, s: -a,
    "remove": lambda a, z, s: 0.0,
    "add": lambda a, z, s: a + s * z,
}


def find(model: torch.nn.Module, layer: int, module: str, convention: str) -> torch.nn.Module:
    """The module whose output the site is, by its name in HuggingFace BERT and RoBERTa."""
    names = {
        "Q": "attention.self.query",
        "K": "attention.self.key",
        "V": "attention.self.value",
        "AO": "attention.output",
        "I": "intermediate",
        "O": "output",
    }
    dense = ".dense" if convention == "linear" and module in ("AO", "I", "O") else ""
    return model.base_model.encoder.layer[layer].get_submodule(names[module] + dense)


@torch.no_grad()
def logits(clf: Classifier, pair: SamplePair, patch: Callable[[], object] = lambda: None) -> np.ndarray:
    """Logits [C] of one unpadded sample; `patch` registers hooks and returns their handles."""
    handles = patch() or ()
    try:
        out = clf.model(**clf.tokenizer(pair.premise, pair.hypothesis, return_tensors="pt")).logits[0]
        return out.double().numpy().copy()
    finally:
        for handle in handles:
            handle.remove()


def changes(
    clf: Classifier,
    pairs: Sequence[SamplePair],
    names: Sequence[str],
    value_of: Callable[[str], float],
    *,
    convention: str = "linear",
    intervention: str = "replace",
    strength: float = 1.0,
    token: int | str = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Base logits [B, C] and patched logits [N, B, C] of neurons called "L0.Q.3"."""

    def patch(name: str) -> list[torch.utils.hooks.RemovableHandle]:
        layer, module, index = name[1:].split(".")

        def hook(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
            new = out.clone()
            for t in range(out.shape[1]) if token == "all" else [token]:
                new[0, t, int(index)] = FORMULAS[intervention](out[0, t, int(index)], value_of(name), strength)
            return new

        return [find(clf.model, int(layer), module, convention).register_forward_hook(hook)]

    base = np.array([logits(clf, pair) for pair in pairs])
    patched = np.array([[logits(clf, pair, lambda n=name: patch(n)) for pair in pairs] for name in names])
    return base, patched


def probability_effects(base: np.ndarray, patched: np.ndarray, target: int = 0) -> np.ndarray:
    """NIE [N] of the target's probability: the mean over samples of p' / p − 1."""

    def p(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(-1, keepdims=True))
        return (e / e.sum(-1, keepdims=True))[..., target]

    return (p(patched) / p(base) - 1).mean(-1)


def random_values(clf: Classifier, *treatments: str, convention: str = "linear", scale: float = 1.0) -> Values:
    """Values of order `scale` for every site."""
    rng = np.random.default_rng(0)
    arrays = {
        (treatment, layer, module): scale * rng.normal(size=clf.shape.width(module))
        for treatment in treatments or ("HOL",)
        for layer in range(clf.shape.layers)
        for module in MODULES
    }
    return Values.from_arrays(arrays, convention=convention)
