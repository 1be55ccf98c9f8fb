"""The exact engine as an evaluator of the search loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from pyneuro.engine.arrival import Arrival
from pyneuro.engine.at_once import AtOnce
from pyneuro.engine.base_run import BaseRun
from pyneuro.engine.exact import Candidates, ExactEngine, Patches, changes
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.joint import Patch, joint_delta_logits
from pyneuro.engine.plan import layer_flops, patch_flops
from pyneuro.models.weights import Encoding
from pyneuro.search.evaluator import Float, Neurons
from pyneuro.sites import NeuronSet

Token = int | Literal["all"]
# Searches of fewer candidates than a chunk, by this factor, are launched sample by sample: there the launches are what
# takes the time, and what recordings keep is a small part of the memory that was planned.
FEW = 8


Groups = Sequence[tuple[int, str, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class ExactEvaluator:
    """Samples one at a time. Single neurons at token 0 take the short path, everything else the joint one."""

    engine: ExactEngine
    convention: str
    intervention: Intervention
    token: Token = 0
    joint: bool = False  # whether base runs must serve sets
    samples_at_once: int = 1

    @property
    def _everywhere(self) -> bool:
        return self.joint or self.token != 0

    def admit(self, tokens: int) -> None:
        rows = 2 * tokens if self._everywhere else tokens
        self.engine.memory.candidates(self.engine.shape, tokens, rows, self.engine.backend)

    def begin(self, encodings: Sequence[Encoding]) -> tuple[BaseRun, Float]:
        return self.launch_begin(encodings)()

    def launch_begin(self, encodings: Sequence[Encoding]) -> Callable[[], tuple[BaseRun, Float]]:
        """``begin``, begun: call what is returned for the result."""
        pending = self.engine.launch_begin(encodings[0], all_rows=self._everywhere)

        def result() -> tuple[BaseRun, Float]:
            base = pending()
            return base, base.logits.numpy()[None]

        return result

    def neurons(self, state: BaseRun, layer: int, module: str, index: npt.NDArray[np.int64], z: Float | None) -> Float:
        if self.token != 0:
            shape = self.engine.shape
            alone = [NeuronSet(shape, [shape.offset(layer, module) + int(i)]) for i in index]
            return self.sets(state, alone, None if z is None else [z[:, [i]] for i in range(len(index))])
        (found,) = self.launch(state, [(layer, module, index, z)])()
        return found

    @property
    def launches(self) -> bool:
        return self.token == 0 and self.engine.backend.device.type != "cpu"

    def launch(self, state: BaseRun, groups: Sequence[Neurons]) -> Callable[[], list[Float]]:
        """``neurons`` at token 0 of all these groups, carried together: what is returned gives the results."""
        neurons, z = _joined(groups)
        _, change = changes(state, neurons, z, self.convention, self.intervention)
        treatments = 1 if z is None else len(z)
        numbers = [self.engine.groups.index((layer, module)) for layer, module, _ in neurons]
        sizes = [len(index) for *_, index in neurons]
        site = torch.tensor(numbers).repeat_interleave(torch.tensor(sizes))
        index = torch.cat([index for *_, index in neurons])
        candidates = Candidates(site.repeat(treatments), index.repeat(treatments), change.flatten())
        pending = self.engine.launch(state, candidates, self.convention)

        def results() -> list[Float]:
            delta = pending().view(1, treatments, len(index), -1)
            return [part.numpy() for part in delta.split(sizes, dim=2)]

        return results

    def sets(self, state: BaseRun, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        treatments = 1 if z is None else len(z[0])
        tokens = range(state.tokens) if self.token == "all" else [self.token]
        most = self.engine.memory.candidates(self.engine.shape, state.tokens, 2 * state.tokens, self.engine.backend)
        candidates = [(t, number) for t in range(treatments) for number in range(len(sets))]
        parts = []
        for start in range(0, len(candidates), most):
            chunk = candidates[start : start + most]
            found = joint_delta_logits(
                self.engine,
                state,
                _patches(chunk, sets, z),
                len(chunk),
                tokens=tokens,
                convention=self.convention,
                intervention=self.intervention,
            )
            parts.append(found.numpy())
        return np.concatenate(parts).reshape(1, treatments, len(sets), -1)

    def cost(self, tokens: int, layer: int, module: str) -> float:
        shape = self.engine.shape
        if self._everywhere:
            return (shape.layers - layer) * layer_flops(shape, tokens)
        return patch_flops(shape, tokens, layer, module)


@dataclass(frozen=True, eq=False)
class ExactAtOnce(ExactEvaluator):
    """Few neurons on a device: all patched runs of a sample in one go.

    Parameters
    ----------
    at_once : AtOnce
        By ``ExactEngine.patched_at_once``.
    index : dict
        Neurons int64 [n] of every (layer, module), ascending; in the order of the candidates.
    treatments : int
    """

    at_once: AtOnce = field(kw_only=True)
    index: Mapping[tuple[int, str], npt.NDArray[np.int64]] = field(kw_only=True)
    treatments: int = field(kw_only=True)

    @classmethod
    def of(cls, plain: ExactEvaluator, groups: Sequence[Neurons], encodings: Sequence[Encoding]) -> ExactAtOnce | None:
        """All the work of a search; None where it is not on a device, or fills it."""
        engine, longest = plain.engine, max(map(len, encodings))
        if engine.backend.name != "cuda" or plain.token != 0:
            return None
        neurons, z = _joined(groups)
        treatments = 1 if z is None else len(z)
        candidates = treatments * sum(len(index) for *_, index in neurons)
        if FEW * candidates > engine.memory.candidates(engine.shape, longest, longest, engine.backend):
            return None
        weights = engine.base_weights or engine.clf.weights(torch.float64)
        patches = Patches(neurons, z, plain.convention, plain.intervention).on(engine.backend)
        return cls(
            engine,
            plain.convention,
            plain.intervention,
            at_once=AtOnce(engine, partial(engine.patched_at_once, weights, patches), encodings),
            index={(layer, module): index for layer, module, index, _ in groups},
            treatments=treatments,
        )

    @property
    def launches(self) -> bool:
        return True

    def launch_begin(self, encodings: Sequence[Encoding]) -> Callable[[], tuple[Any, Float]]:
        (encoding,), again = encodings, super().launch_begin
        (ids, found), pending = self.at_once.launch(encoding)
        arriving = Arrival.of(found)

        def result() -> tuple[Any, Float]:
            logits, delta = pending(), arriving.result()
            if not torch.isfinite(delta).all():  # the plain way computes again in fp32, or names what is wrong
                return again(encodings)()
            ordered = torch.empty_like(delta)
            ordered[ids] = delta
            parts = ordered.split([self.treatments * len(index) for index in self.index.values()])
            tiles = {
                site: part.view(1, self.treatments, -1, part.shape[-1]).numpy()
                for site, part in zip(self.index, parts, strict=True)
            }
            return tiles, logits.numpy()[None]

        return result

    def launch(self, state: Any, groups: Sequence[Neurons]) -> Callable[[], list[Float]]:
        if isinstance(state, BaseRun):
            return super().launch(state, groups)

        def of(layer: int, module: str, index: npt.NDArray[np.int64]) -> Float:
            found: Float = state[layer, module][:, :, np.searchsorted(self.index[layer, module], index)]
            return found

        return lambda: [of(layer, module, index) for layer, module, index, _ in groups]


def _joined(groups: Sequence[Neurons]) -> tuple[Groups, torch.Tensor | None]:
    """Neurons of all groups, and their replacement values [T, N]."""
    neurons = [(layer, module, torch.from_numpy(index)) for layer, module, index, _ in groups]
    replacements = [torch.from_numpy(z) for *_, z in groups if z is not None]
    return neurons, torch.cat(replacements, dim=1) if replacements else None


def _patches(
    chunk: Sequence[tuple[int, int]], sets: Sequence[NeuronSet], z: Sequence[Float] | None
) -> dict[tuple[int, str], Patch]:
    """Patches of candidates (treatment, set), gathered by site."""
    rows: dict[tuple[int, str], list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float]]] = {}
    for candidate, (treatment, number) in enumerate(chunk):
        position = 0
        for (layer, module), index in sets[number].groups():
            values = np.zeros(0) if z is None else z[number][treatment, position : position + len(index)]
            rows.setdefault((layer, module), []).append((np.full(len(index), candidate), index, values))
            position += len(index)
    joined = {
        site: [torch.from_numpy(np.concatenate(part)) for part in zip(*e, strict=True)] for site, e in rows.items()
    }
    return {site: Patch(ids, index, None if z is None else values) for site, (ids, index, values) in joined.items()}
