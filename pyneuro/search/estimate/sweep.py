"""The two phases of an estimate: predictions for every pair, then rounds of exact effects for a random few.

Pairs are drawn systematically (Hartley & Rao 1962): a round visits samples in random order, and on each a neuron
gathers credit, its chance of being taken there; when the credit reaches 1 the pair is taken. So it gets the pairs
expected of it and not a Poisson number. Random numbers come from a counter-based generator keyed on (seed, round), so
the answer depends on neither chunking, threads nor where a stopped search went on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, starmap

import numpy as np
import numpy.typing as npt

from pyneuro.effects import Response
from pyneuro.models.weights import Encoding
from pyneuro.results import TileStore
from pyneuro.search.estimate.corrections import Corrections, DesignError, Taken
from pyneuro.search.estimate.phase_one import OnDevice, OnHost, PhaseOne
from pyneuro.search.estimate.predictor import Predictor
from pyneuro.search.evaluator import Float
from pyneuro.search.floor import above_floor, require_samples
from pyneuro.search.progress import Progress

Int = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

DEFENSIVE = 0.2  # of the mean size, added to every size: a size that is wrongly small must not make a weight huge
FEWEST_VISITED = 64  # samples of a round
SAMPLES_PER_PAIR = 5  # visited at least, for every pair expected of a neuron: keeps π below the share visited
SAVE_SECONDS, SAVE_SHARE = 5.0, 0.05


@dataclass
class PhaseTwo:
    """Rounds of exact effects."""

    corrections: Corrections
    expected: Float  # [N]  m of the round under way
    credit: Float  # [N]  towards the next pair, in [0, 1)
    exact: Mask  # [N]  neurons evaluated on every sample
    round: int = 0  # the one under way, or the next
    done: int = 0  # its samples

    def to_arrays(self) -> dict[str, np.ndarray]:
        own = {"expected": self.expected, "credit": self.credit, "exact": self.exact}
        return {**self.corrections.to_arrays(), **own, "where": np.array([self.round, self.done])}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> PhaseTwo:
        expected, credit, exact = (arrays[name].copy() for name in ("expected", "credit", "exact"))
        number, done = arrays["where"].tolist()
        return cls(Corrections.from_arrays(arrays), expected, credit, exact, number, done)


@dataclass
class TwoPhaseSweep:
    """Carries both phases out, and keeps them on disk (with a store) so that a stopped search goes on."""

    predictor: Predictor
    encodings: Sequence[Encoding]
    treatments: int  # J: contrast included
    response: Response
    probability_floor: float | None
    seed: int
    store: TileStore | None
    progress: Progress

    def __post_init__(self) -> None:
        self.one = PhaseOne.fresh(self.predictor.neurons, self.treatments)
        n = self.predictor.neurons
        self.two = PhaseTwo(Corrections.zeros(n, self.treatments), np.zeros(n), np.zeros(n), np.zeros(n, dtype=bool))
        self.seconds = 0.0
        self.pairs, self.exact_seconds = 0, 0.0  # of this process
        self._whole = True  # no sample is half added
        self._saved = time.monotonic()
        self._pause = SAVE_SECONDS
        if self.store is not None:
            if (found := self.store.read("phase-1")) is not None:
                self.one = PhaseOne.from_arrays(self.treatments, *found)
            if (found := self.store.read("phase-2")) is not None:
                self.two = PhaseTwo.from_arrays(found[1])

    @property
    def kept(self) -> list[int]:
        """Samples at or above the probability floor."""
        out = set(self.one.left_out)
        return [i for i in range(len(self.encodings)) if i not in out]

    @property
    def groups(self) -> list[slice]:
        offsets = self.predictor.offsets.tolist()
        return list(starmap(slice, pairwise(offsets)))

    def design_error(self) -> DesignError:
        """Of the estimates as they stand."""
        return DesignError.of(self.two.corrections, self.one.scale, self.groups, self.two.exact)

    def predict_all(self) -> None:
        """Phase 1. Raises InputError where no sample reaches the probability floor."""
        self.progress.start(sum(map(len, self.encodings)), sum(map(len, self.encodings[: self.one.done])))
        counting = (OnDevice if OnDevice.can(self.predictor) else OnHost)(self.predictor, self.encodings, self.one)
        with self._saving("phase-1", lambda: (self.one.done, counting.read().to_arrays())) as save:
            while self.one.done < len(self.encodings):
                number = self.one.done
                logits = counting.predict(number)
                self._whole = False
                if above_floor(self.probability_floor, self.response, logits):
                    counting.add(number)
                else:
                    self.one.left_out.append(number)
                self.one.done += 1
                self._whole = True
                self.progress.advance(len(self.encodings[number]), self.predictor.neurons)
                save()
            self.one = counting.read()
        self.progress.close()
        require_samples(len(self.kept), self.probability_floor)

    def begin_round(self, expected: Float, everywhere: Mask) -> None:
        """Plan a round: pairs expected of each neuron, and neurons to evaluate on every sample, [N] each."""
        self.two.exact |= everywhere
        self.two.corrections.forget(everywhere)
        self.two.expected = np.where(everywhere, 1.0, expected)
        self.two.credit = self._generator(1).random(len(expected))

    def visited(self, expected: Float, everywhere: Mask) -> int:
        """How many samples a round would visit: some for every pair expected of a neuron, or all."""
        samples = len(self.kept)
        wanted = int(np.ceil(SAMPLES_PER_PAIR * float(expected[~everywhere].max(initial=0.0))))
        return samples if everywhere.any() else min(max(FEWEST_VISITED, wanted), samples)

    def samples_of_round(self) -> Int:
        """The samples a round visits, in their order: both random."""
        kept = np.array(self.kept)
        number = self.visited(self.two.expected, self.two.exact & (self.two.expected > 0))
        return self._generator(0).permutation(kept)[:number]

    def sample_round(self) -> None:
        """Phase 2: the round that was begun, or is under way."""
        visited = self.samples_of_round()
        self.progress.start(sum(len(self.encodings[i]) for i in visited), 0)
        share = len(visited) / len(self.kept)
        chosen = np.flatnonzero(self.two.expected)
        predictor = self.predictor.only(chosen)
        with self._saving("phase-2", lambda: (self.two.done, self.two.to_arrays())) as save:
            for number in visited[self.two.done :].tolist():
                found = predictor.predict(self.encodings[number])
                taken, inside, credit = self._draw(found.size, chosen, share)
                started = time.perf_counter()
                exact = predictor.exact(found, inside) if len(inside) else []
                self.exact_seconds += time.perf_counter() - started
                self._whole = False
                if exact:
                    predicted = [terms[inside] for terms in found.terms]
                    self.two.corrections.add(taken, exact, predicted, self.encodings[number].label)
                    self.pairs += len(inside)
                self.two.credit[chosen] = credit
                self.two.done += 1
                self._whole = True
                self.progress.advance(len(self.encodings[number]), 0)
                save()
            # Whole in one step, for whatever an interruption finds.
            self.two = replace(self.two, round=self.two.round + 1, done=0, expected=np.zeros_like(self.two.expected))
        self.progress.close()

    def _draw(self, size: Float, chosen: Int, share: float) -> tuple[Taken, Int, Float]:
        """Of the neurons chosen, with their sizes on a sample: the pairs taken, where they are among the chosen, and
        the credit left."""
        n, m, total = len(self.kept), self.two.expected[chosen], self.one.size[chosen]
        size = (size + DEFENSIVE * total / n) / (1 + DEFENSIVE)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(total > 0, m * size / total, 0.0)
            factor = total / (n * size)
        everywhere = self.two.exact[chosen]
        wanted[everywhere] = factor[everywhere] = 1.0
        pi = np.minimum(share, wanted)
        credit = self.two.credit[chosen] + pi / share
        inside = np.flatnonzero(credit >= 1)
        credit[inside] -= 1
        taken = Taken(chosen[inside], pi[inside], wanted[inside] / pi[inside], factor[inside])
        return taken, inside, credit

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, (self.two.round << 40) + stream]))

    @contextmanager
    def _saving(
        self, name: str, state: Callable[[], tuple[int, dict[str, np.ndarray]]]
    ) -> Iterator[Callable[[], None]]:
        """A function to call after every sample, which now and then writes the state. At the end it is written too,
        however that comes, unless an interruption left a sample half added."""

        def write() -> None:
            if self.store is None:
                return
            started = time.monotonic()
            self.store.write(name, *state())
            self._saved = time.monotonic()
            self._pause = max(SAVE_SECONDS, (self._saved - started) / SAVE_SHARE)

        def now_and_then() -> None:
            if time.monotonic() - self._saved > self._pause:
                write()

        started = time.perf_counter()
        try:
            yield now_and_then
        finally:
            self.seconds += time.perf_counter() - started
            if self._whole:
                write()
