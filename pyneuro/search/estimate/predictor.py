"""All neurons of a search on one sample at once: predicted effects, and exact ones of those that are picked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pyneuro.effects import Response, Terms
from pyneuro.engine.base_run import run_forward
from pyneuro.engine.entry import after_gelu
from pyneuro.engine.exact import Candidates, Patches
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import Depth, LinearEngine, LinearRun
from pyneuro.engine.linear_entry import LayerEntry
from pyneuro.models.weights import Encoding
from pyneuro.search.evaluator import Float
from pyneuro.search.targets import Group

Int = npt.NDArray[np.int64]
STEP = 1e-3  # of a logit, for the response's sensitivity


@dataclass(frozen=True, eq=False)
class Found:
    """A sample's predictions where the engine computes them. N neurons, T treatments, M = T N, C classes."""

    run: LinearRun
    candidates: Sequence[Candidates]  # by group, the treatments one after the other
    moved: Tensor  # float64 [M, C]  changes of logits 1 to C - 1 relative to logit 0, then the size of what is left out


@dataclass(frozen=True, eq=False)
class Prediction:
    """Of N neurons and T treatments on one sample."""

    run: LinearRun
    candidates: Sequence[Candidates]  # as ``Found``
    terms: Sequence[Terms]  # by treatment, [N]; two or more are followed by their contrast, first - second
    size: Float  # [N]  of what the prediction leaves out, up to a factor of each neuron's own
    first_order: Float  # [2, N]  predicted change of the logits, and what bounds it; their ratio scales the size


@dataclass(frozen=True, eq=False)
class _Placed:
    """What a predictor reads for every sample alike, on the engine's device."""

    patches: Patches  # of the groups
    columns: Tensor  # ``Predictor._columns``
    index: list[Tensor]  # of each group's candidates
    through_gelu: Tensor  # int64, rows whose change goes through GELU before the adjoint


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

    def name(self, neuron: int) -> str:
        """Such as L3.I.17."""
        number = int(np.searchsorted(self.offsets, neuron, side="right")) - 1
        group = self.groups[number]
        return f"L{group.layer}.{group.module}.{int(group.index[neuron - self.offsets[number]])}"

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
        found = self.find(self.engine.begin(encoding))
        logits = found.run.base.logits.numpy()
        moved = found.moved.cpu()[self._where]  # [T, N, C]
        delta = nn.functional.pad(moved[..., :-1], (1, 0)).numpy()
        terms = with_contrast([self.response.terms(logits, d) for d in delta])
        reach = np.ptp(delta, axis=-1).sum(0)
        sensitivity = self.sensitivity(logits) * (reach if self.response.name == "kl" else np.ones_like(reach))
        size = sensitivity * moved[..., -1].sum(0).numpy()
        first_order = np.stack([sensitivity * reach, np.sqrt(sensitivity * size)])
        if self.response.is_ratio:
            size *= 1 + np.abs([t.effect for t in terms]).max(0)
        size[self.exact_neurons] = 0.0
        return Prediction(found.run, found.candidates, terms, size, first_order)

    @torch.no_grad()
    def find(self, run: LinearRun) -> Found:
        """Predictions of every neuron. On a device nothing is waited for but exact parts, which come first."""
        move = self.engine.exact.backend.move
        values, change = self._patches.changes(run.base)
        change = change.flatten()[self._columns]
        candidates = [
            Candidates(site, index, part)
            for (site, index), part in zip(self._candidates, change.split(self._rows), strict=True)
        ]
        pending = self._launch_exact(run, candidates)
        moved = self._entered(run.entries, move(values), move(change))
        for number, found in pending().items():
            part, delta = moved[number], move(found[:, 1:] - found[:, :1])
            moved[number] = (
                nn.functional.pad(delta, (0, 1)) if part is None else torch.cat([delta, part[:, -1:]], dim=1)
            )
        return Found(run, candidates, torch.cat([part for part in moved if part is not None]))

    @property
    def inside(self) -> bool:
        """Whether every adjoint takes over inside the patched layer."""
        return all(depth == "inside" for depth in self.depths)

    @torch.no_grad()
    def moved_inside(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions of the sample whose embeddings are x, float64 [S, d] on the engine's device, where every adjoint
        takes over inside its layer.

        Nothing is waited for, and nothing is read that changes from sample to sample but x: a device may record it.

        Returns
        -------
        ``Found.moved`` [M, C], and ``logits`` [C] and ``finite`` of ``Forward``, all on the device.
        """
        engine, placed = self.engine, self._placed
        forward = run_forward(engine.weights, x, engine.exact.backend.dtype)
        run = engine.backward(forward.base_run("", engine.exact.shape, forward.logits, forward.sites))
        values, change = placed.patches.changes(run.base)
        moved = self._entered(run.entries, values, change.flatten()[placed.columns])
        return torch.cat([part for part in moved if part is not None]), forward.logits, forward.finite

    def _entered(self, entries: Sequence[LayerEntry], values: Tensor, change: Tensor) -> list[Tensor | None]:
        """Rows of ``Found.moved`` by group, None for exact ones; values [N] and changes [M] on the engine's device."""
        placed = self._placed
        if len(placed.through_gelu):
            own = values[placed.columns[placed.through_gelu] % self.neurons]
            change = change.index_put((placed.through_gelu,), after_gelu(own, change[placed.through_gelu]))
        return [
            None if exact else entries[group.layer].moved(group.module, self.convention, index, part)
            for exact, group, index, part in zip(
                self._exact, self.groups, placed.index, change.split(self._rows), strict=True
            )
        ]

    def _launch_exact(self, run: LinearRun, candidates: Sequence[Candidates]) -> Callable[[], dict[int, Tensor]]:
        """Changes of the logits [T n, C], on the CPU, of the groups whose adjoint takes over behind their own layer."""
        exact = [number for number, is_exact in enumerate(self._exact) if is_exact]
        carried = {
            number: self.engine.launch(run, candidates[number], self.convention, depth)
            for number, depth in enumerate(self.depths)
            if not isinstance(depth, str) and not self._exact[number]
        }
        if not exact:
            return lambda: {number: result() for number, result in carried.items()}
        together = Candidates.cat([candidates[number] for number in exact])
        pending = self.engine.exact.launch(run.base, together, self.convention)
        sizes = [len(candidates[number]) for number in exact]

        def results() -> dict[int, Tensor]:
            found = {number: result() for number, result in carried.items()}
            return found | dict(zip(exact, pending().split(sizes), strict=True))

        return results

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

    def sensitivity(self, logits: Float) -> float:
        """Largest change of the response a unit of one logit makes; 1 for a response that jumps."""
        moved = self.response.terms(logits, STEP * np.eye(len(logits))).effect
        return float(np.abs(moved).max()) / STEP or 1.0

    @cached_property
    def exact_neurons(self) -> npt.NDArray[np.bool_]:
        """[N]: of whose predictions nothing is left out."""
        return np.repeat(self._exact, [len(group) for group in self.groups])

    @cached_property
    def where(self) -> Tensor:
        """int64 [T, N]: row of ``Found.moved`` of every treatment and neuron, on the engine's device."""
        return self.engine.exact.backend.move(self._where)

    @cached_property
    def _where(self) -> Tensor:
        return self._columns.argsort().view(self.treatments, -1)

    @cached_property
    def _columns(self) -> Tensor:
        """int64 [M]: for every row of ``Found.moved``, where its treatment and neuron are in [T, N] flattened."""
        every = torch.arange(self.treatments * self.neurons).view(self.treatments, -1)
        return torch.cat([part.flatten() for part in every.split([len(group) for group in self.groups], dim=1)])

    @cached_property
    def _rows(self) -> list[int]:
        """Rows of every group, T n."""
        return [self.treatments * len(group) for group in self.groups]

    @cached_property
    def _patches(self) -> Patches:
        sites = [(group.layer, group.module, torch.from_numpy(group.index)) for group in self.groups]
        parts = [torch.from_numpy(group.z) for group in self.groups if group.z is not None]
        return Patches(sites, torch.cat(parts, dim=1) if parts else None, self.convention, self.intervention)

    @cached_property
    def _candidates(self) -> list[tuple[Tensor, Tensor]]:
        """Site and index of each group's candidates."""
        numbers = self.engine.exact.groups
        tiled = [(numbers.index((layer, m)), index.repeat(self.treatments)) for layer, m, index in self._patches.sites]
        return [(torch.full_like(index, number), index) for number, index in tiled]

    @cached_property
    def _placed(self) -> _Placed:
        move = self.engine.exact.backend.move
        through = [group.module == "I" and self.convention == "linear" for group in self.groups]
        return _Placed(
            patches=self._patches.on(self.engine.exact.backend),
            columns=move(self._columns),
            index=[move(index) for _, index in self._candidates],
            through_gelu=move(torch.from_numpy(np.flatnonzero(np.repeat(through, self._rows)))),
        )

    @cached_property
    def _exact(self) -> list[bool]:
        return [self.is_exact(group, depth) for group, depth in zip(self.groups, self.depths, strict=True)]

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
