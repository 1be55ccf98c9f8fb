"""The exact engine: patched runs of one sample, as differences to its base run.

Layers below the patch are never touched. A row-0 change goes through one low-rank attention, dense layers, and a last
layer read at row 0; a change of K or V starts dense. Candidates of several layers are carried together, the later ones
joining on the way. Padding does not exist: samples come one at a time, at their own length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from pyneuro.engine import entry, propagate
from pyneuro.engine.arrival import Arrival
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import BaseRun, launch_base, run_forward
from pyneuro.engine.difference import Difference
from pyneuro.engine.intervention import Intervention, replaced_by_itself
from pyneuro.engine.plan import Memory
from pyneuro.engine.prepared import Prepared, prepare
from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.weights import Encoding, ModelWeights
from pyneuro.sites import MODULES, ModelShape

ROW0_MODULES = ("Q", "AO", "I", "O")  # a patch of one changes row 0 of its layer's output and no other

# Candidates by the number of their site: ids int64 [n] on the CPU, index int64 [n] and change float64 [n].
BySite = Mapping[int, tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Candidates:
    """N patches of single neurons at token 0."""

    site: Tensor  # int64 [N], which of shape.groups()
    index: Tensor  # int64 [N], neuron within the (layer, module); repetitions allowed
    change: Tensor  # float64 [N], patched value - base value

    @classmethod
    def cat(cls, parts: Sequence[Candidates]) -> Candidates:
        """All of them, in order."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("site", "index", "change")))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, chosen: Tensor) -> Candidates:
        return Candidates(self.site[chosen], self.index[chosen], self.change[chosen])

    @cached_property
    def by_site(self) -> BySite:
        found = {int(site): torch.nonzero(self.site == site).flatten() for site in self.site.unique()}
        return {site: (ids, self.index[ids], self.change[ids]) for site, ids in found.items()}


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of single neurons at token 0 that are to be made on every sample.

    Parameters
    ----------
    sites : sequence of (layer, module, index int64 [n])
        N neurons by site, no site twice.
    z : float64 Tensor [T, N] or None
        Replacement values by treatment, as the intervention wants them (None: T = 1).
    convention : "linear" or "hook"
    intervention : Intervention
    """

    sites: Sequence[tuple[int, str, Tensor]]
    z: Tensor | None
    convention: str
    intervention: Intervention

    def on(self, backend: Backend) -> Patches:
        """On the backend's device."""
        sites = [(layer, module, backend.move(index)) for layer, module, index in self.sites]
        return replace(self, sites=sites, z=None if self.z is None else backend.move(self.z))

    def changes(self, base: BaseRun) -> tuple[Tensor, Tensor]:
        """As ``changes``, on a base run whose sites are where these are."""
        return changes(base, self.sites, self.z, self.convention, self.intervention)

    def by_site(self, base: BaseRun, groups: Sequence[tuple[int, str]]) -> BySite:
        """Candidates by site, the treatments one after the other within each; numbered in that order."""
        sizes = [len(index) for *_, index in self.sites]
        change = self.changes(base)[1].view(-1, sum(sizes))
        numbers = torch.arange(change.numel()).split([len(change) * size for size in sizes])
        return {
            groups.index((layer, module)): (ids, index.repeat(len(change)), part.flatten())
            for (layer, module, index), ids, part in zip(self.sites, numbers, change.split(sizes, dim=1), strict=True)
        }


def changes(
    base: BaseRun,
    sites: Sequence[tuple[int, str, Tensor]],
    z: Tensor | None,
    convention: str,
    intervention: Intervention,
) -> tuple[Tensor, Tensor]:
    """Values of N neurons at token 0, and what patching each adds to it.

    Parameters
    ----------
    sites : sequence of (layer, module, index int64)
        The neurons, side by side; repetitions allowed.
    z : float64 Tensor [N] or [T, N], or None
        As the intervention wants it.

    Returns
    -------
    float64 Tensor [N], and [N] or [T, N] as `z`
        Where the base run's sites are. The change is 0 where a neuron is replaced by its own value.
    """
    rows = [base.layers[layer].sites[module, convention][0] for layer, module, _ in sites]
    values = torch.cat([row[index] for row, (_, _, index) in zip(rows, sites, strict=True)])
    change = intervention.change(values, z)
    if intervention.kind == "replace" and z is not None:
        sizes = torch.stack([row.square().mean() for row in rows]).sqrt()
        scale = torch.cat([size.expand(len(index)) for size, (_, _, index) in zip(sizes, sites, strict=True)])
        change = change.masked_fill(replaced_by_itself(values, z, scale), 0.0)
    return values, change


@dataclass(frozen=True, eq=False)
class Moved:
    """Changes of a layer's output by candidates: which ones, and dx [S, N, d], or [N, d] of row 0 alone."""

    ids: Tensor  # int64 [N]
    dx: Difference

    @classmethod
    def join(cls, parts: Sequence[Moved]) -> Moved | None:
        """Of all these candidates; None where there are none."""
        if len(parts) < 2:
            return parts[0] if parts else None
        return cls(torch.cat([part.ids for part in parts]), Difference.cat([part.dx for part in parts]))


@dataclass(frozen=True, eq=False)
class MovedLogits:
    """Changes of the logits by candidates: which ones, and float64 [N, C] on the engine's device."""

    ids: Tensor  # int64 [N], on the CPU
    delta: Tensor


@dataclass(frozen=True, eq=False)
class ExactEngine:
    """Exact effects by delta propagation. Made by ``ExactEngine.create``; holds no state between samples."""

    clf: Classifier
    backend: Backend
    prepared: Prepared
    memory: Memory
    base_weights: ModelWeights | None = None  # in float64 on the backend's device, where that is not the CPU

    @classmethod
    def create(cls, clf: Classifier, backend: Backend, memory: Memory | None = None) -> ExactEngine:
        """Pack the classifier's weights for the backend."""
        weights = clf.adapter.weights(clf.model)
        kept = None if backend.device.type == "cpu" else weights.to(torch.float64, backend.device)
        prepared = prepare(weights, backend)
        return cls(clf, backend, prepared, memory or Memory.of(backend), kept)

    @property
    def shape(self) -> ModelShape:
        return self.clf.shape

    def begin(self, encoding: Encoding, *, all_rows: bool = False, weights: ModelWeights | None = None) -> BaseRun:
        """The base run of one sample, for ``delta_logits``; `weights` as ``launch_base`` takes them."""
        return self.launch_begin(encoding, all_rows=all_rows, weights=weights)()

    def launch_begin(
        self, encoding: Encoding, *, all_rows: bool = False, weights: ModelWeights | None = None
    ) -> Callable[[], BaseRun]:
        """``begin``, begun, as ``launch``."""
        weights = weights or self.base_weights
        return launch_base(self.clf, encoding, self.backend.dtype, all_rows=all_rows, weights=weights)

    def delta_logits(
        self,
        base: BaseRun,
        layer: int,
        module: str,
        index: Tensor,
        z: Tensor | None,
        *,
        convention: str = "linear",
        intervention: Intervention | None = None,
    ) -> Tensor:
        """Change of the logits when one neuron is patched at token 0, for N candidates of one (layer, module).

        Parameters
        ----------
        base : BaseRun
        layer : int
        module : str
        index : int64 Tensor [N]
            Neurons; repetitions allowed, as for several treatments in one call.
        z : float64 Tensor [N] or None
            Replacement values, for ``replace`` and ``add``.
        convention : "linear" or "hook"
        intervention : Intervention, optional
            Default: replace.

        Returns
        -------
        float64 Tensor [N, C]
            Exactly 0 where a neuron is replaced by its own value.

        Raises
        ------
        InputError
            Where a result is NaN or infinite: neuron and sample named.
        """
        return self.patched(base, self.candidates(base, layer, module, index, z, convention, intervention), convention)

    def candidates(
        self,
        base: BaseRun,
        layer: int,
        module: str,
        index: Tensor,
        z: Tensor | None,
        convention: str = "linear",
        intervention: Intervention | None = None,
    ) -> Candidates:
        """What ``delta_logits`` patches; the change is 0 where a neuron is replaced by its own value."""
        _, change = changes(base, [(layer, module, index)], z, convention, intervention or Intervention())
        return Candidates(torch.full_like(index, self.groups.index((layer, module))), index, change)

    def patched(self, base: BaseRun, candidates: Candidates, convention: str = "linear") -> Tensor:
        """Change of the logits, float64 [N, C], for candidates of any layers and modules. Raises InputError as
        ``delta_logits``."""
        return self.launch(base, candidates, convention)()

    @torch.no_grad()
    def launch(self, base: BaseRun, candidates: Candidates, convention: str = "linear") -> Callable[[], Tensor]:
        """``patched``, begun: on a device the work goes on while the caller does something else; call what is returned
        for the result."""
        parts = []
        for ids in self.chunks(base, candidates):
            moved = self._logits(base, candidates[ids].by_site, convention)
            parts.append((ids[moved.ids], Arrival.of(moved.delta)))
        return lambda: self._gathered(base, candidates, convention, parts)

    def _gathered(
        self, base: BaseRun, candidates: Candidates, convention: str, parts: Sequence[tuple[Tensor, Arrival]]
    ) -> Tensor:
        out = torch.zeros(len(candidates), len(base.logits), dtype=torch.float64)
        for ids, part in parts:
            out[ids] = part.result()
        if self.backend.in_units and bool((lost := ~torch.isfinite(out).all(-1)).any()):
            # Grown beyond what fp16 holds: again as they are.
            wide = replace(self, backend=self.backend.exactly())
            out[lost] = wide.patched(base, candidates[lost], convention)
        bad = ~torch.isfinite(out).all(-1)
        if bool(bad.any()):
            first = int(torch.nonzero(bad)[0])
            layer, module = self.groups[int(candidates.site[first])]
            raise InputError(
                f"patching L{layer}.{module}.{int(candidates.index[first])} of sample {base.id!r} by "
                f"{float(candidates.change[first]):.3g} gives a NaN or infinite output; check the replacement value"
            )
        return out

    def chunks(self, base: BaseRun, candidates: Candidates) -> Iterator[Tensor]:
        """Numbers of the candidates that move, in lists that fit the memory; layers that differ little together."""
        live = torch.nonzero(candidates.change).flatten()
        live = live[candidates.site[live].argsort(stable=True)]
        short = self.never_dense[candidates.site[live]]
        for part, rows in ((live[~short], base.tokens), (live[short], 1)):
            if len(part):
                yield from part.split(self.memory.candidates(self.shape, base.tokens, rows, self.backend))

    @torch.no_grad()
    def patched_at_once(self, weights: ModelWeights, patches: Patches, x: Tensor) -> tuple[Tensor, ...]:
        """Patched runs of the sample whose embeddings are x, float64 [S, d] on the engine's device, in one chunk.

        Nothing is waited for, and nothing is read that changes from sample to sample but x: a device may record it.

        Parameters
        ----------
        weights : ModelWeights
            As ``launch_base`` takes them.

        Returns
        -------
        ids : int64 Tensor [M]
            On the CPU: which candidates these are, by the numbers of ``Patches.by_site``.
        delta : float64 Tensor [M, C]
            Change of the logits; what is not finite is for the caller to find.
        logits, finite
            Of ``Forward``.
        """
        forward = run_forward(weights, x, self.backend.dtype)
        base = forward.base_run("", self.shape, forward.logits, forward.sites)
        moved = self._logits(base, patches.by_site(base, self.groups), patches.convention)
        return moved.ids, moved.delta, forward.logits, forward.finite

    def carry(self, base: BaseRun, candidates: BySite, convention: str, stop: int) -> tuple[Moved | None, ...]:
        """Carry candidates of layers up to `stop` < L - 1 to the output of layer `stop`.

        Returns
        -------
        dense, row0 : Moved or None
            Of the candidates that changed every row [S, N, d], and of those that changed row 0 alone [N, d].
        """
        dense = row0 = None
        for layer in range(self.groups[min(candidates)][0], stop + 1):
            w, b = self.prepared.layers[layer], base.layers[layer]
            moved = []
            if dense is not None:
                moved.append(Moved(dense.ids, propagate.layer_from_all(self.backend, w, b, dense.dx)))
            if row0 is not None:
                moved.append(Moved(row0.ids, propagate.layer_from_row0(self.backend, w, b, row0.dx)))
            for module, ids, index, change in self._entering(candidates, layer, ("K", "V")):
                moved.append(Moved(ids, entry.enter_all(self.backend, w, b, module, index, change)))
            dense, row0 = Moved.join(moved), self._enter_row0(base, candidates, layer, ROW0_MODULES, convention)
        return dense, row0

    def _logits(self, base: BaseRun, candidates: BySite, convention: str) -> MovedLogits:
        last = self.shape.layers - 1
        w, b = self.prepared.layers[last], base.layers[last]
        dense, row0 = self.carry(base, candidates, convention, last - 1)
        parts = []
        if dense is not None:
            parts.append(Moved(dense.ids, propagate.last_layer_from_all(self.backend, w, b, dense.dx)))
        if row0 is not None:
            parts.append(Moved(row0.ids, propagate.last_layer_from_row0(self.backend, w, b, row0.dx)))
        if (entered := self._enter_row0(base, candidates, last, MODULES, convention)) is not None:
            parts.append(entered)
        moved = Moved.join(parts)
        assert moved is not None
        return MovedLogits(moved.ids, propagate.delta_logits(self.backend, self.prepared.head, base, moved.dx))

    def _enter_row0(
        self, base: BaseRun, candidates: BySite, layer: int, modules: Sequence[str], convention: str
    ) -> Moved | None:
        w, b = self.prepared.layers[layer], base.layers[layer]
        return Moved.join(
            [
                Moved(ids, entry.enter_row0(self.backend, w, b, module, convention, index, change))
                for module, ids, index, change in self._entering(candidates, layer, modules)
            ]
        )

    def _entering(
        self, candidates: BySite, layer: int, modules: Sequence[str]
    ) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Candidates of a layer by module: (module, ids, index, change), none of them empty."""
        for module in modules:
            found = candidates.get(self.groups.index((layer, module)))
            if found is not None:
                yield module, *found

    @cached_property
    def groups(self) -> list[tuple[int, str]]:
        return list(self.shape.groups())

    @cached_property
    def never_dense(self) -> Tensor:
        """bool, by site: whether a patch changes row 0 alone all the way."""
        last = self.shape.layers - 1
        return torch.tensor([layer >= (last if module in ("K", "V") else last - 1) for layer, module in self.groups])
