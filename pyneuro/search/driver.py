"""The search loop: samples × groups of candidates, streaming moments, partial results on disk, time left.

A tile is one block of samples against one group. The state of a group is the moments of its candidates and the number
of samples behind them; groups are independent, so a stopped search resumes anywhere and gives the same numbers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby
from typing import Any

import numpy as np

from pyneuro.effects import Bootstrap, Moments, Response, Terms
from pyneuro.models.weights import Encoding
from pyneuro.results import CONTRAST, TileStore
from pyneuro.search.evaluator import Evaluator, Float, Launcher
from pyneuro.search.floor import above_floor
from pyneuro.search.progress import Progress
from pyneuro.search.targets import Group, SetGroup

LAYERS_AHEAD = 2  # launched before the first of them is counted, where the evaluator launches
SAVE_SECONDS = 1.0  # finished tiles wait about this long for the disk
SAVE_SHARE = 0.05  # of the time at most goes into saving


@dataclass
class GroupState:
    """Moments of a group's candidates by treatment (and their contrast), and how many samples they hold.

    ``bootstraps`` are by treatment, the contrast's under ``"contrast"``; empty where not asked for.
    """

    treatments: dict[str, Moments]
    contrast: Moments | None
    done: int = 0
    left_out: tuple[int, ...] = ()  # samples below the probability floor
    bootstraps: dict[str, Bootstrap] = field(default_factory=dict)

    @classmethod
    def fresh(cls, names: Sequence[str], size: int, replicates: int = 0) -> GroupState:
        out = cls({name: Moments.zeros(size) for name in names}, Moments.zeros(size) if len(names) >= 2 else None)
        if replicates:
            out.bootstraps = {name: Bootstrap.zeros(replicates, size) for name in out.names}
        return out

    @property
    def names(self) -> list[str]:
        """Of the treatments, and of the contrast where there is one."""
        return [*self.treatments, *([] if self.contrast is None else [CONTRAST])]

    def columns(self, name: str, ci: float) -> dict[str, np.ndarray]:
        """Columns of the result table for a treatment or the contrast, [n]."""
        moments = self.treatments.get(name, self.contrast)
        assert moments is not None  # one of ``names``
        return moments.summary(ci) | (self.bootstraps[name].columns(ci) if self.bootstraps else {})

    def arrays(self) -> dict[str, np.ndarray]:
        parts: dict[str, Moments | Bootstrap] = {f"treatment.{name}": m for name, m in self.treatments.items()}
        if self.contrast is not None:
            parts["contrast"] = self.contrast
        parts |= {f"bootstrap.{name}": b for name, b in self.bootstraps.items()}
        arrays = {f"{part}/{name}": array for part, m in parts.items() for name, array in m.to_arrays().items()}
        return {**arrays, "left_out": np.array(self.left_out, dtype=np.int64)}

    @classmethod
    def from_arrays(cls, names: Sequence[str], done: int, arrays: dict[str, np.ndarray]) -> GroupState:
        def part(prefix: str) -> dict[str, np.ndarray]:
            start = f"{prefix}/"
            return {k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)}

        treatments = {name: Moments.from_arrays(part(f"treatment.{name}")) for name in names}
        contrast = Moments.from_arrays(part("contrast")) if len(names) >= 2 else None
        out = cls(treatments, contrast, done, tuple(arrays["left_out"].tolist()))
        replicated = {name: part(f"bootstrap.{name}") for name in out.names}
        out.bootstraps = {name: Bootstrap.from_arrays(found) for name, found in replicated.items() if found}
        return out

    def copy(self) -> GroupState:
        """An independent state with the same numbers."""
        return GroupState.from_arrays(tuple(self.treatments), self.done, self.arrays())

    def add(self, response: Response, logits: Float, delta: Float, label: str | None, sample: int) -> None:
        """One sample: logits [C], delta [T, n, C]."""
        terms = [response.terms(logits, d) for d in delta]
        for name, found in zip(self.treatments, terms, strict=True):
            self._count(name, self.treatments[name], found, label, sample)
        if self.contrast is not None:
            self._count(CONTRAST, self.contrast, terms[0] - terms[1], label, sample)

    def _count(self, name: str, moments: Moments, terms: Terms, label: str | None, sample: int) -> None:
        moments.update(terms, label, sample)
        if self.bootstraps:
            self.bootstraps[name].update(terms.effect, sample)


@dataclass
class Sweep:
    """One search under way. ``run`` carries it to the end; on any interruption finished tiles are on disk (with a
    store).

    Parameters
    ----------
    evaluator : Evaluator
    encodings : list of Encoding
    groups : list of Group or SetGroup
    treatments : names, [T]
    response : Response
    probability_floor : float or None
        Samples whose base probability of the target is below it are left out.
    store : TileStore or None
    progress : Progress
    bootstrap : int
        Replicates; 0 for none.
    """

    evaluator: Evaluator
    encodings: Sequence[Encoding]
    groups: Sequence[Group | SetGroup]
    treatments: Sequence[str]
    response: Response
    probability_floor: float | None
    store: TileStore | None
    progress: Progress
    bootstrap: int = 0
    states: dict[str, GroupState] = field(default_factory=dict)
    patched_runs: int = 0
    seconds: float = 0.0

    def restore(self) -> int:
        """Load what the store holds; returns the number of (sample, group) tiles already there."""
        for group in self.groups:
            found = None if self.store is None else self.store.read(group.name)
            self.states[group.name] = (
                GroupState.fresh(self.treatments, len(group), self.bootstrap)
                if found is None
                else GroupState.from_arrays(self.treatments, *found)
            )
        return sum(state.done for state in self.states.values())

    def work(self, sample: int, group: Group | SetGroup) -> float:
        """Cost of a sample's tile, in the evaluator's unit."""
        each = self.evaluator.cost(len(self.encodings[sample]), group.layer, group.module)
        return max(each, 1.0) * len(group) * len(self.treatments)

    def calibrate(self) -> float | None:
        """Seconds for all that is left, from a small part of one tile; None where nothing is left."""
        least = min(state.done for state in self.states.values())
        left = sum(self.work(s, g) for g in self.groups for s in range(self.states[g.name].done, len(self.encodings)))
        if not left:
            return None
        sample = sorted(range(len(self.encodings)), key=lambda s: len(self.encodings[s]))[len(self.encodings) // 2]
        group = max(self.groups, key=lambda g: self.work(sample, g) / len(g))
        trial = _first(group, 128)
        for _ in range(2):  # the first warms caches and allocators
            started = time.perf_counter()
            state, _ = self.evaluator.begin([self.encodings[sample]])
            begun = time.perf_counter()
            self._patched(state, trial)
            ended = time.perf_counter()
        bases = (len(self.encodings) - least) * (begun - started)
        return bases + left / self.work(sample, trial) * (ended - begun)

    def run(self) -> None:
        """All tiles that are not done, samples outermost."""
        started = time.perf_counter()
        with self._saving() as dirty:
            for tile in self._tiles():
                self._count(tile, dirty)
                del tile  # its base run goes before the next begins
                self.seconds = time.perf_counter() - started
        self.seconds = time.perf_counter() - started

    def _count(self, tile: _Tile, dirty: _Dirty) -> None:
        block, group = tile.block, tile.group
        kept = [above_floor(self.probability_floor, self.response, logits) for logits in block.logits]
        delta = tile.delta() if any(kept) else None
        # On a copy that takes the old state's place whole: an interruption anywhere leaves one or the other.
        state = self.states[group.name].copy()
        work, runs = 0.0, 0
        for i, sample in enumerate(block.samples):
            if sample < state.done:
                continue
            if kept[i] and delta is not None:
                state.add(self.response, block.logits[i], delta[i], self.encodings[sample].label, sample)
                runs += len(group) * len(self.treatments)
            else:
                state.left_out += (sample,)
            state.done = sample + 1
            work += self.work(sample, group)
        self.states[group.name] = state
        self.patched_runs += runs
        dirty.add(group.name)
        self.progress.advance(work, runs)

    def _tiles(self) -> Iterator[_Tile]:
        """All that are not done; where the evaluator launches, the next layers are under way by then."""
        size, end = self.evaluator.samples_at_once, len(self.encodings)
        todo = [
            (samples, groups)
            for samples in (range(first, min(first + size, end)) for first in range(0, end, size))
            if (groups := [g for g in self.groups if self.states[g.name].done < samples.stop])
        ]
        if isinstance(self.evaluator, Launcher) and self.evaluator.launches:
            yield from self._launched(self.evaluator, todo)
            return
        for samples, groups in todo:
            block = _Block(samples, *self.evaluator.begin([self.encodings[s] for s in samples]))
            yield from (_Tile(block, group, partial(self._patched, block.base, group)) for group in groups)
            del block

    def _launched(
        self, launcher: Launcher, todo: Sequence[tuple[range, Sequence[Group | SetGroup]]]
    ) -> Iterator[_Tile]:
        """Layers ahead of the counting, across samples, and the next base run ahead of them: the device always has
        something to do. The groups of a layer are carried together."""
        bases = (launcher.launch_begin([self.encodings[s] for s in samples]) for samples, _ in todo)
        begun = next(bases, None)
        waiting: deque[list[_Tile]] = deque()
        for samples, groups in todo:
            this, begun = begun, next(bases, None)
            assert this is not None  # one for every entry of `todo`
            try:
                block = _Block(samples, *this())
            except Exception:  # of this sample; what is under way belongs to others
                for tiles in waiting:
                    yield from tiles
                raise
            for _, together in groupby(groups, key=lambda group: group.layer if isinstance(group, Group) else None):
                waiting.append(self._layer(launcher, block, list(together)))
                if len(waiting) > LAYERS_AHEAD:
                    yield from waiting.popleft()
        for tiles in waiting:
            yield from tiles

    def _layer(self, launcher: Launcher, block: _Block, groups: Sequence[Group | SetGroup]) -> list[_Tile]:
        neurons = [(g.layer, g.module, g.index, g.z) for g in groups if isinstance(g, Group)]
        if len(neurons) < len(groups):
            return [_Tile(block, group, partial(self._patched, block.base, group)) for group in groups]
        results = cache(launcher.launch(block.base, neurons))
        return [_Tile(block, group, partial(_nth, results, number)) for number, group in enumerate(groups)]

    def _patched(self, base: Any, group: Group | SetGroup) -> Float:
        if isinstance(group, Group):
            return self.evaluator.neurons(base, group.layer, group.module, group.index, group.z)
        return self.evaluator.sets(base, group.sets, group.z)

    def left_out(self) -> list[str]:
        """Ids of the samples below the probability floor, in the order of the samples."""
        numbers = sorted({number for state in self.states.values() for number in state.left_out})
        return [self.encodings[number].id for number in numbers]

    @contextmanager
    def _saving(self) -> Iterator[_Dirty]:
        """Finished tiles reach the disk in about a second (later where saving itself takes long: SAVE_SHARE), and at
        the latest when the block is left, however it is
        left."""
        dirty = _Dirty(self)
        try:
            yield dirty
        finally:
            dirty.flush()


@dataclass(frozen=True, eq=False)
class _Block:
    """Samples whose base runs are done."""

    samples: range
    base: Any  # the evaluator's
    logits: Float  # [B, C]


@dataclass(frozen=True, eq=False)
class _Tile:
    """A block's samples against a group, and the call that gives the changes of the logits, [B, T, n, C]."""

    block: _Block
    group: Group | SetGroup
    delta: Callable[[], Float]


def _nth(results: Callable[[], list[Float]], number: int) -> Float:
    return results()[number]


class _Dirty:
    """Groups whose state is newer than on disk."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep = sweep
        self._names: set[str] = set()
        self._flushed = time.monotonic()
        self._pause = SAVE_SECONDS

    def add(self, name: str) -> None:
        self._names.add(name)
        if time.monotonic() - self._flushed > self._pause:
            self.flush()

    def flush(self) -> None:
        store, started = self._sweep.store, time.monotonic()
        if store is not None:
            for name in sorted(self._names):
                state = self._sweep.states[name]
                store.write(name, state.done, state.arrays())
        self._names.clear()
        self._flushed = time.monotonic()
        self._pause = max(SAVE_SECONDS, (self._flushed - started) / SAVE_SHARE)


def _first(group: Group | SetGroup, most: int) -> Group | SetGroup:
    """The group's first candidates."""
    if isinstance(group, Group):
        z = None if group.z is None else group.z[:, :most]
        return Group(group.layer, group.module, group.index[:most], z)
    z_sets = None if group.z is None else group.z[:4]
    return SetGroup(group.names[:4], group.sets[:4], z_sets)
