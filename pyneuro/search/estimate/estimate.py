"""``method="linear"`` and ``method="estimate"`` of ``search``: planning, rounds, and the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pyneuro.data.pairs import LABELS
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.linear import Depth, LinearEngine
from pyneuro.engine.plan import forward_flops, patch_flops
from pyneuro.errors import InputError, is_whole
from pyneuro.results import Result, TileStore
from pyneuro.search.estimate.corrections import DesignError
from pyneuro.search.estimate.predictor import Predictor
from pyneuro.search.estimate.sweep import TwoPhaseSweep
from pyneuro.search.estimate.tolerance import Tolerance
from pyneuro.search.evaluator import Float
from pyneuro.search.progress import Progress
from pyneuro.search.request import Checked
from pyneuro.search.targets import Group
from pyneuro.sites import NeuronSet

FIRST_PAIRS = 3.0  # expected of every neuron in the first round
GROWTH = 16.0  # a round multiplies what is known of a neuron by this at most
MARGIN = 1.25  # sampled beyond what the variance so far asks for
GENEROUS = 2.0  # more of it, and a lower bar for evaluation on all, where a round visits all samples anyway
MOST_ROUNDS = 12
PAIRS_A_SAMPLE = 10  # exact in the time of a sample's predictions: a guess before the first round
REMAINDER = 0.02  # of a budget: not worth another round
EXACT_SHARE = 0.25  # of the samples: a neuron that needs more is evaluated on all
FEWEST_DRAWS = 16  # that tell so; a round on all samples is as dear as all predictions
FEWEST_SAMPLES = 8  # of which a random few tell anything


@dataclass(frozen=True)
class Budget:
    """Where phase 2 ends at the latest.

    Parameters
    ----------
    tolerance : Tolerance
    pairs : int, optional
        (neuron, sample) pairs evaluated exactly, all treatments of a pair together.
    seconds : float, optional
        Of both phases. An answer under a time limit is not reproducible to the digit.
    seed : int
        Of every draw.
    """

    tolerance: Tolerance
    pairs: int | None = None
    seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs is not None and (not is_whole(self.pairs) or self.pairs < 1):
            raise InputError(f"budget = {self.pairs!r} pairs; pass a positive number, or None for no limit")
        if self.seconds is not None and not 0 < self.seconds < np.inf:
            raise InputError(f"seconds = {self.seconds!r}; pass a positive number, or None for no limit")
        if not is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise InputError(f"seed = {self.seed!r}; pass a whole number from 0")


def run_estimate(
    engine: ExactEngine, checked: Checked, settings: dict[str, Any], store: TileStore | None, how: Budget | Depth
) -> Result:
    """An estimate within a budget; or predictions alone, by where their adjoint takes over.

    Raises InputError for sets, for patches at other tokens than [CLS], for too few samples, and where no sample is
    above the probability floor.
    """
    progress = Progress.asked(checked.request.progress)
    budget = how if isinstance(how, Budget) else None
    depth: Depth = "inside" if isinstance(how, Budget) else how
    sweep = make_sweep(engine, checked, depth, 0 if budget is None else budget.seed, store, progress)
    progress.say(
        f"plan: predict {len(checked.sites):,} neurons x {len(checked.encodings):,} samples x "
        f"{len(checked.treatments)} treatments" + ("" if budget is None else ", then exact effects of a random few")
    )
    try:
        run: dict[str, Any] = {}
        if budget is None:
            sweep.predict_all()
        else:
            run = run_rounds(sweep, budget, checked.request.ci)
    except KeyboardInterrupt:
        progress.close()
        if store is not None:
            progress.say(
                f"stopped; what is done is kept in {store.folder}: run again with resume=True (--resume) to go on"
            )
        raise
    finally:
        progress.close()
    tables = tabulate(sweep, checked)
    names = list(checked.treatments)
    run |= {
        "seconds": sweep.seconds,
        "forward_equivalents": forward_equivalents(sweep),
        "threads": torch.get_num_threads(),
        "left_out_below_floor": [sweep.encodings[i].id for i in sweep.one.left_out],
    }
    manifest = {"settings": settings, "ids": [e.id for e in checked.encodings], "run": run}
    contrast = tables[-1] if len(tables) > len(names) else None
    return Result.from_columns(
        checked.sites, dict(zip(names, tables, strict=False)), contrast, manifest, checked.request.ci
    )


def make_sweep(
    engine: ExactEngine, checked: Checked, depth: Depth, seed: int, store: TileStore | None, progress: Progress
) -> TwoPhaseSweep:
    """Both phases of a request, not yet begun. Raises InputError for what estimates cannot do."""
    if not isinstance(checked.sites, NeuronSet):
        raise InputError("sites is a mapping of named sets and estimates are of single neurons; use method='exact'")
    if checked.request.token != 0:
        raise InputError(f"estimates patch token 0 ([CLS]), not {checked.request.token!r}; use method='exact'")
    longest = max(map(len, checked.encodings))
    engine.memory.candidates(engine.shape, longest, longest, engine.backend)
    groups = [g for g in checked.groups if isinstance(g, Group)]
    predictor = Predictor(
        LinearEngine.create(engine),
        groups,
        checked.request.convention,
        checked.intervention,
        checked.response,
        [depth] * len(groups),
    )
    columns = len(checked.treatments) + (len(checked.treatments) >= 2)
    floor = checked.request.probability_floor
    return TwoPhaseSweep(predictor, checked.encodings, columns, checked.response, floor, seed, store, progress)


def run_rounds(sweep: TwoPhaseSweep, budget: Budget, ci: float) -> dict[str, Any]:
    """Both phases, until the tolerance is met or the budget spent. Returns what goes into the manifest.

    Raises InputError for too few samples; a tolerance that the budget does not reach is no error.
    """
    if len(sweep.encodings) < FEWEST_SAMPLES:
        raise InputError(
            f"{len(sweep.encodings)} samples are too few to estimate from a part of them; pass at least "
            f"{FEWEST_SAMPLES}, or use method='exact'"
        )
    clock = _Clock(budget.seconds)
    sweep.predict_all()
    clock.predicted(sweep)
    ended = "tolerance met"
    while True:
        if sweep.two.done == 0:
            error = sweep.design_error()
            met = tolerance_met(sweep, error, budget.tolerance, ci)
            if met.all():
                break
            if sweep.two.round == MOST_ROUNDS:
                ended = f"{MOST_ROUNDS} rounds"
                break
            round_ = _next_round(sweep, error, budget.tolerance, met, ci)
            round_ = clock.within(round_.within(_pairs_left(sweep, budget), len(sweep.kept)), sweep)
            if round_.pairs(len(sweep.kept)) < 1:
                ended = "budget spent"
                break
            sweep.begin_round(round_.expected, round_.everywhere)
        clock.round(sweep, _round)
    two = sweep.two
    return {
        "ended": ended,
        "rounds": two.round,
        "exact_pairs": int(two.corrections.taken.sum()),
        "neurons_on_every_sample": int(two.exact.sum()),
        "tolerance_met": float(met.mean()),
    }


@dataclass(frozen=True)
class _Round:
    """What to evaluate next: expected pairs of each neuron [N], and neurons to evaluate on every sample [N]."""

    expected: Float
    everywhere: npt.NDArray[np.bool_]

    def pairs(self, samples: int) -> float:
        """Expected number of pairs."""
        return float(self.expected.sum() + samples * self.everywhere.sum())

    def within(self, pairs: float, samples: int) -> _Round:
        """As much of it as so many pairs allow: all neurons alike, those on every sample last."""
        if self.pairs(samples) <= pairs:
            return self
        sampled = self.expected.sum()
        left = max(pairs - sampled, 0.0) // samples
        return _Round(
            self.expected * min(1.0, pairs / max(sampled, 1.0)), self.everywhere & (np.cumsum(self.everywhere) <= left)
        )


@dataclass
class _Clock:
    """What fits into the time left, going by what samples and pairs have taken so far."""

    limit: float | None
    started: float = field(default_factory=time.monotonic)
    a_sample: float = 0.0
    a_pair: float = 0.0

    def predicted(self, sweep: TwoPhaseSweep) -> None:
        self.a_sample = (time.monotonic() - self.started) / len(sweep.encodings)
        self.a_pair = self.a_sample / PAIRS_A_SAMPLE

    def round(self, sweep: TwoPhaseSweep, run: Callable[[TwoPhaseSweep], int]) -> None:
        pairs, exact, started = sweep.pairs, sweep.exact_seconds, time.monotonic()
        visited = run(sweep)
        exact = sweep.exact_seconds - exact
        self.a_pair = exact / max(sweep.pairs - pairs, 1)
        self.a_sample = (time.monotonic() - started - exact) / max(visited, 1)

    def within(self, round_: _Round, sweep: TwoPhaseSweep) -> _Round:
        """As much of a round as the time left allows; neurons on every sample are left first."""
        if self.limit is None:
            return round_
        left = self.limit - (time.monotonic() - self.started)
        while round_.pairs(len(sweep.kept)) >= 1:
            visited = sweep.visited(round_.expected, round_.everywhere)
            takes = visited * self.a_sample + round_.pairs(len(sweep.kept)) * self.a_pair
            if takes <= left:
                break
            if round_.everywhere.any():
                round_ = _Round(round_.expected, np.zeros_like(round_.everywhere))
            else:
                round_ = _Round(round_.expected / 2, round_.everywhere)
        return round_


def _pairs_left(sweep: TwoPhaseSweep, budget: Budget) -> float:
    if budget.pairs is None:
        return np.inf
    left = float(budget.pairs - sweep.two.corrections.taken.sum())
    return left if left > REMAINDER * budget.pairs else 0.0


def _round(sweep: TwoPhaseSweep) -> int:
    """Runs the round that is planned; returns the number of samples visited."""
    visited, two = sweep.samples_of_round(), sweep.two
    on_all = int((two.exact & (two.expected > 0)).sum())
    sweep.progress.say(
        f"round {two.round + 1}: about {two.expected[~two.exact].sum():,.0f} exact pairs on {len(visited):,} samples"
        + (f", {on_all:,} neurons on all" if on_all else "")
    )
    sweep.sample_round()
    return len(visited)


def _next_round(
    sweep: TwoPhaseSweep, error: DesignError, tolerance: Tolerance, met: npt.NDArray[np.bool_], ci: float
) -> _Round:
    """A few pairs of every neuron first; then what the variance so far asks for, or every sample where that is known
    not to be much more."""
    two, weight, samples = sweep.two, sweep.two.corrections.weight, len(sweep.kept)
    if two.round == 0:
        expected = np.where(sweep.one.size > 0, FIRST_PAIRS, 0.0)
        return _Round(expected, np.zeros(len(expected), dtype=bool))
    target = tolerance.target(corrected(sweep, 0), sampling_errors(sweep), ci)
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.nan_to_num(MARGIN * (error.unit / np.square(target)).max(0), nan=np.inf)
    open_ = ~met.all(0) & ~two.exact
    known = two.corrections.draws >= min(FEWEST_DRAWS, EXACT_SHARE * samples)
    everywhere = open_ & known & ((needed > EXACT_SHARE * samples) | error.surprising.any(0))
    if everywhere.any():
        needed = GENEROUS * needed
        everywhere = open_ & known & ((needed > EXACT_SHARE * samples) | error.surprising.any(0))
    more = np.clip(needed - weight, 1.0, GROWTH * np.maximum(weight, FIRST_PAIRS))
    return _Round(np.where(open_ & ~everywhere, more, 0.0), everywhere)


def tolerance_met(sweep: TwoPhaseSweep, error: DesignError, tolerance: Tolerance, ci: float) -> npt.NDArray[np.bool_]:
    """Whether each estimate is good enough, [J, N]."""
    target = tolerance.target(corrected(sweep, 0), sampling_errors(sweep), ci)
    return np.nan_to_num(error.se, nan=np.inf) <= target


def corrected(sweep: TwoPhaseSweep, quantity: int) -> Float:
    """Estimated means [J, N]: 0 the effect, 1 the log-ratio, 2 the difference."""
    c = sweep.two.corrections
    return np.stack([m.mean[quantity] + c.mean(t[quantity]) for m, t in zip(sweep.one.moments, c.total, strict=True)])


def sampling_errors(sweep: TwoPhaseSweep) -> Float:
    """Standard errors of the means over texts, [J, N]: predictions' variance, corrected as far as it may be."""
    out = []
    c = sweep.two.corrections
    for moments, square, nie in zip(sweep.one.moments, c.square, corrected(sweep, 0), strict=True):
        n = np.maximum(moments.count, 1)
        predicted = moments.m2[0] / n
        shifted = predicted + c.mean(square) - (np.square(nie) - np.square(moments.mean[0]))
        variance = np.where(sweep.two.exact, shifted, np.clip(shifted, predicted / 4, predicted * 4))
        with np.errstate(divide="ignore", invalid="ignore"):
            out.append(np.where(n > 1, np.sqrt(np.maximum(variance, 0.0) / (n - 1)), np.nan))
    return np.stack(out)


def forward_equivalents(sweep: TwoPhaseSweep) -> float:
    """Operations a sample over those of a forward: a forward and a backward a logit difference, and the exact pairs."""
    predictor, shape = sweep.predictor, sweep.predictor.engine.exact.shape
    tokens = round(np.mean([len(e) for e in sweep.encodings]))
    taken = np.add.reduceat(sweep.two.corrections.taken, predictor.offsets[:-1])
    exact = sum(
        int(pairs) * predictor.treatments * patch_flops(shape, tokens, group.layer, group.module)
        for pairs, group in zip(taken, predictor.groups, strict=True)
    )
    classes = len(predictor.engine.exact.clf.label_index)
    return 1.0 + 2.0 * (classes - 1) + exact / forward_flops(shape, tokens) / len(sweep.encodings)


def tabulate(sweep: TwoPhaseSweep, checked: Checked) -> list[dict[str, np.ndarray]]:
    """Columns by treatment (and contrast)."""
    ci = checked.request.ci
    error = sweep.design_error()
    half = error.half_width(ci)
    nie, log, diff = (corrected(sweep, k) for k in range(3))
    sampling = sampling_errors(sweep)
    c = sweep.two.corrections
    tables = []
    for j, moments in enumerate(sweep.one.moments):
        table = moments.summary(ci)
        n = moments.count
        se = np.sqrt(np.square(sampling[j]) + np.square(error.se[j]))
        spread = np.divide(table["ci_high"] - table["nie"], table["se"], out=np.ones(len(n)), where=table["se"] > 0)
        table |= {"nie": nie[j], "se": se, "ci_low": nie[j] - spread * se, "ci_high": nie[j] + spread * se}
        ratio = table["ratio_of_means"] * np.divide(
            diff[j], table["diff"], out=np.ones(len(n)), where=table["diff"] != 0
        )
        table |= {"log_nie": log[j], "diff": diff[j], "ratio_of_means": ratio}
        for k, label in enumerate(LABELS):
            name = f"nie_{label.replace('-', '_')}"
            share = np.divide(n, moments.class_count[k], out=np.zeros(len(n)), where=moments.class_count[k] > 0)
            table[name] = table[name] + share * c.mean(c.class_total[j, k])
        effect = moments.m2[0] / np.maximum(n, 1) + np.square(moments.mean[0])
        left_out = np.maximum(c.mean(c.residual[j]), 0.0)
        table |= {
            "design_se": error.se[j],
            "design_low": nie[j] - np.where(error.se[j] > 0, half[j], error.se[j]),
            "design_high": nie[j] + np.where(error.se[j] > 0, half[j], error.se[j]),
            "exact_pairs": c.draws.copy(),
            "nonlinearity": np.sqrt(np.divide(left_out, effect, out=np.zeros(len(n)), where=effect > 0)),
            "surprising": error.surprising[j],
        }
        tables.append(table)
    return tables
