"""All neurons of a search on one sample at once: predicted effects, and exact ones of those that are picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyneuro.effects import Response, Terms
from pyneuro.engine.exact import Candidates
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import Depth, LinearEngine, LinearRun
from pyneuro.models.weights import Encoding
from pyneuro.search.evaluator import Float
from pyneuro.search.targets import Group

Int = npt.NDArray[np.int64]
STEP = 1e-3  # of a logit, for the response's sensitivity


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of N neurons and T treatments on one sample."""

    run: LinearRun
    candidates: Sequence[Candidates]  # by group, the treatments one after the other
    terms: Sequence[Terms]  # by treatment, [N]; two or more are followed by their contrast, first - second
    size: Float  # [N]  of what the prediction leaves out, up to a factor of each neuron's own
    first_order: Float  # [2, N]  predicted change of the logits, and what bounds it; their ratio scales the size


@dataclass(frozen=True, eq=False)
class Predictor:
    """Predictions by the linear engine, exact effects by the one beside it.

    Parameters
    ----------
    depths : by group, where the adjoint takes over
    """

    engine: LinearEngine
    groups: Sequence[Group]
    convention: str
    intervention: Intervention
    response: Response
    depths: Sequence[Depth]

    @property
    def neurons(self) -> int:
        return sum(map(len, self.groups))

    @property
    def treatments(self) -> int:
        """T, the contrast not counted."""
        return 1 if self.groups[0].z is None else len(self.groups[0].z)

    @property
    def offsets(self) -> Int:
        """Where each group begins among the neurons, and their number: [groups + 1]."""
        return np.cumsum([0, *map(len, self.groups)])

    def only(self, chosen: Int) -> Predictor:
        """Of some neurons, in ascending order."""
        parts = []
        for group, depth, start, stop in zip(self.groups, self.depths, self.offsets, self.offsets[1:], strict=False):
            inside = chosen[(chosen >= start) & (chosen < stop)] - start
            if len(inside):
                z = None if group.z is None else group.z[:, inside]
                parts.append((replace(group, index=group.index[inside], z=z), depth))
        groups, depths = zip(*parts, strict=True)
        return replace(self, groups=groups, depths=depths)

    def predict(self, encoding: Encoding) -> Prediction:
        """Effects of every neuron to first order.

        size = sensitivity of the response × what the logits' prediction leaves out, summed over treatments. KL is of
        second order in the logits' change: its sensitivity is in proportion to that change.
        """
        run = self.engine.begin(encoding)
        logits = run.base.logits.numpy()
        candidates = [self._candidates(run, group) for group in self.groups]
        # All begun before any is asked for: a device answers when it is done with everything.
        begun = [
            self.engine.launch(run, c, self.convention, depth) for c, depth in zip(candidates, self.depths, strict=True)
        ]
        left_out = [self.engine.launch_left_out(run, c, self.convention) for c in candidates]
        delta = np.concatenate([self._by_treatment(result()) for result in begun], axis=1)
        terms = with_contrast([self.response.terms(logits, d) for d in delta])
        reach = np.ptp(delta, axis=-1).sum(0)
        sensitivity = self._sensitivity(logits) * (reach if self.response.name == "kl" else np.ones_like(reach))
        size = sensitivity * np.concatenate([self._summed(result()) for result in left_out])
        first_order = np.stack([sensitivity * reach, np.sqrt(sensitivity * size)])
        if self.response.is_ratio:
            size *= 1 + np.abs([t.effect for t in terms]).max(0)
        size[self._exact_neurons()] = 0.0
        return Prediction(run, candidates, terms, size, first_order)

    def exact(self, prediction: Prediction, picked: Int) -> list[Terms]:
        """Exact effects of some neurons, by treatment (and contrast): [len(picked)] each."""
        group_of = np.searchsorted(self.offsets, picked, side="right") - 1
        parts, columns = [], []
        for g in np.unique(group_of):
            where = np.flatnonzero(group_of == g)
            each = np.arange(self.treatments)[:, None]
            inside = picked[where] - self.offsets[g] + len(self.groups[g]) * each
            parts.append(prediction.candidates[g][torch.from_numpy(inside.ravel())])
            columns.append((where + len(picked) * each).ravel())
        base = prediction.run.base
        found = self.engine.exact.patched(base, Candidates.cat(parts), self.convention).numpy()
        delta = np.empty_like(found)
        delta[np.concatenate(columns)] = found
        delta = delta.reshape(-1, len(picked), found.shape[-1])
        return with_contrast([self.response.terms(base.logits.numpy(), d) for d in delta])

    def _candidates(self, run: LinearRun, group: Group) -> Candidates:
        index = torch.from_numpy(np.tile(group.index, self.treatments))
        z = None if group.z is None else torch.from_numpy(np.ascontiguousarray(group.z)).flatten()
        return self.engine.exact.candidates(
            run.base, group.layer, group.module, index, z, self.convention, self.intervention
        )

    def _summed(self, sizes: Tensor) -> Float:
        """[n], over treatments."""
        found: Float = sizes.view(self.treatments, -1).sum(0).numpy()
        return found

    def _by_treatment(self, delta: Tensor) -> Float:
        found: Float = delta.view(self.treatments, -1, delta.shape[-1]).numpy()
        return found

    def _sensitivity(self, logits: Float) -> float:
        """Largest change of the response a unit of one logit makes; 1 for a response that jumps."""
        moved = self.response.terms(logits, STEP * np.eye(len(logits))).effect
        return float(np.abs(moved).max()) / STEP or 1.0

    def _exact_neurons(self) -> npt.NDArray[np.bool_]:
        exact = [self.is_exact(g, d) for g, d in zip(self.groups, self.depths, strict=True)]
        return np.repeat(exact, [len(g) for g in self.groups])

    def is_exact(self, group: Group, depth: Depth) -> bool:
        """Whether nothing is left out."""
        exact = self.engine.exact
        if depth == "inside":
            return False
        if depth == "planned":
            return bool(exact.never_dense[exact.groups.index((group.layer, group.module))])
        return group.layer + depth >= exact.shape.layers - 1


def with_contrast(terms: list[Terms]) -> list[Terms]:
    """The treatments' terms, and the contrast of the first two after them where there are as many."""
    return [*terms, terms[0] - terms[1]] if len(terms) >= 2 else terms
