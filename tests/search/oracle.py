"""What a search must find, by the plainest means: a float64 copy of the HuggingFace model, a forward hook at every
patched site, the softmax before and after. Shares no code with ``pyneuro``."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from pyneuro.engine.values import Values
from pyneuro.models import Classifier
from pyneuro.sites import MODULES, Neuron
from tests.tiny import SamplePair

#: One neuron and what it is set to; a candidate is a tuple of them, patched together.
Entry = tuple[Neuron, float]

#: The patched activation from the one that arrives, a, the value z and the strength s.
FORMULAS: dict[str, Callable[..., object]] = {
    "replace": lambda a, z, s: z,
    "weaken": lambda a, z, s: s * a,
    "negate": lambda a, z, s: -a,
    "remove": lambda a, z, s: 0.0 * a,
    "add": lambda a, z, s: a + s * z,
}


@dataclass(frozen=True)
class Patching:
    """What is done to a neuron, as the options of ``search`` of the same names."""

    convention: str = "linear"
    intervention: str = "replace"
    strength: float | None = None
    token: int | str = 0

    def formula(self, a: torch.Tensor, z: float) -> object:
        return FORMULAS[self.intervention](a, z, 1.0 if self.strength is None else self.strength)


@dataclass(frozen=True)
class Answer:
    """The number read off the logits, as the options of ``search`` of the same names."""

    response: str = "probability"
    target: int = 0
    foil: int | None = None

    def effects(self, base: np.ndarray, patched: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(effect, log-ratio, difference), [N] each, from logits [C] and [N, C]."""
        p, q, c = softmax(base), softmax(patched), self.target
        if self.response in ("probability", "odds"):
            before, after = (p[c], q[:, c]) if self.response == "probability" else (odds(p, c), odds(q, c))
            return after / before - 1, np.log(after / before), after - before
        if self.response == "log_odds":
            change = np.log(odds(q, c)) - np.log(odds(p, c))
        elif self.response == "logit_difference":
            others = [j for j in range(len(base)) if j != c] if self.foil is None else [self.foil]
            change = (patched[:, c] - patched[:, others].mean(1)) - (base[c] - base[others].mean())
        elif self.response == "kl":
            change = (p * (np.log(p) - np.log(q))).sum(1)
        else:
            change = (patched.argmax(1) != base.argmax()).astype(float)
        return change, np.full(len(change), np.nan), change


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def odds(p: np.ndarray, c: int) -> np.ndarray:
    others = [j for j in range(p.shape[-1]) if j != c]
    return p[..., c] / p[..., others].sum(-1)


@dataclass
class Hooked:
    """A float64 copy of a classifier's model that takes patches through forward hooks."""

    clf: Classifier
    model: torch.nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.clf.model).double().eval()
        # The embeddings are pyneuro's starting point, in the model's own dtype; everything after them is float64.
        own = self.clf.model.base_model.embeddings
        self.model.base_model.embeddings.register_forward_hook(
            lambda _, args, kwargs, out: own(*args, **kwargs).double(), with_kwargs=True
        )

    def place(self, layer: int, module: str, convention: str) -> torch.nn.Module:
        """The module whose output is the site."""
        block = self.model.base_model.encoder.layer[layer]
        dense = convention == "linear"
        return {
            "Q": block.attention.self.query,
            "K": block.attention.self.key,
            "V": block.attention.self.value,
            "AO": block.attention.output.dense if dense else block.attention.output,
            "I": block.intermediate.dense if dense else block.intermediate,
            "O": block.output.dense if dense else block.output,
        }[module]

    @torch.no_grad()
    def run(self, pair: SamplePair, copies: int = 1) -> np.ndarray:
        """Logits [copies, C] under whatever hooks there are."""
        out = self.clf.tokenizer(pair.premise, pair.hypothesis, return_tensors="pt")
        return self.model(**{name: rows.expand(copies, -1) for name, rows in out.items()}).logits.numpy()

    def patched(self, pair: SamplePair, candidates: Sequence[Sequence[Entry]], how: Patching) -> np.ndarray:
        """Logits [N, C]: candidate i is patched in row i of one batch."""
        edits: dict[tuple[int, str], list[tuple[int, int, float]]] = defaultdict(list)
        for row, candidate in enumerate(candidates):
            for neuron, z in candidate:
                edits[neuron.layer, neuron.module].append((row, neuron.index, z))

        def editor(site: tuple[int, str]) -> Callable[..., torch.Tensor]:
            def hook(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
                new = out.clone()
                for row, index, z in edits[site]:
                    for token in range(out.shape[1]) if how.token == "all" else [how.token]:
                        new[row, token, index] = how.formula(out[row, token, index], z)
                return new

            return hook

        handles = [self.place(*site, how.convention).register_forward_hook(editor(site)) for site in edits]
        try:
            return self.run(pair, len(candidates))
        finally:
            for handle in handles:
                handle.remove()

    def activation(self, pair: SamplePair, layer: int, module: str, convention: str, token: int = 0) -> np.ndarray:
        """The site's value [width] at one token."""
        seen: list[np.ndarray] = []
        handle = self.place(layer, module, convention).register_forward_hook(
            lambda _, __, out: seen.append(out[0, token].numpy().copy())
        )
        self.run(pair)
        handle.remove()
        return seen[0]


def expected(
    clf: Classifier,
    pairs: Sequence[SamplePair],
    candidates: Sequence[Sequence[Entry]],
    how: Patching | None = None,
    answer: Answer | None = None,
) -> pd.DataFrame:
    """``nie log_nie diff se n`` of N candidates over the pairs, one row a candidate."""
    effects = samples(clf, pairs, candidates, how or Patching(), answer or Answer())
    n = len(pairs)
    return pd.DataFrame(
        {
            "nie": effects[:, 0].mean(0),
            "log_nie": effects[:, 1].mean(0),
            "diff": effects[:, 2].mean(0),
            "se": effects[:, 0].std(0, ddof=1) / n**0.5 if n > 1 else np.nan,
            "n": n,
        }
    )


def samples(
    clf: Classifier, pairs: Sequence[SamplePair], candidates: Sequence[Sequence[Entry]], how: Patching, answer: Answer
) -> np.ndarray:
    """Effect, log-ratio and difference of every sample, [pairs, 3, N]."""
    hooked = Hooked(clf)
    return np.array([answer.effects(hooked.run(pair)[0], hooked.patched(pair, candidates, how)) for pair in pairs])


def random_values(clf: Classifier, *treatments: str, convention: str = "linear", seed: int = 0) -> Values:
    """Values of order 1 for every site, with the model they are for."""
    rng = np.random.default_rng(seed)
    arrays = {
        (treatment, layer, module): rng.normal(size=clf.shape.width(module))
        for treatment in treatments or ("HOL",)
        for layer in range(clf.shape.layers)
        for module in MODULES
    }
    return Values.from_arrays(arrays, convention=convention, model_digest=clf.digest, model_name=clf.name)


def one_by_one(values: Values | None, treatment: str, neurons: Sequence[Neuron]) -> list[list[Entry]]:
    """Candidates of a single neuron each, with its value of a treatment."""
    return [[entry] for entry in together(values, treatment, neurons)]


def together(values: Values | None, treatment: str, neurons: Sequence[Neuron]) -> list[Entry]:
    """One candidate of all these neurons."""
    return [(n, 0.0 if values is None else float(values.array(treatment, n.layer, n.module)[n.index])) for n in neurons]
