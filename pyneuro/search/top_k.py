"""The k strongest neurons, found without knowing the others well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.plan import Memory
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_number, is_whole
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.results import CONTRAST
from pyneuro.search.estimate.estimate import FIRST_PAIRS, corrected, make_sweep
from pyneuro.search.estimate.sweep import TwoPhaseSweep
from pyneuro.search.evaluator import Float
from pyneuro.search.progress import Progress
from pyneuro.search.request import Request, check_request
from pyneuro.search.targets import Sites

Mask = npt.NDArray[np.bool_]
Order = Literal["absolute", "signed", "negative"]
ORDERS: tuple[Order, ...] = get_args(Order)
SAMPLED_ROUNDS = 3  # after which contenders are evaluated on every sample
GROWTH = 4.0  # a round multiplies the pairs of a contender by this
FEW_CONTENDERS = 3  # times k: as few are evaluated on every sample at once


@dataclass(frozen=True, eq=False)
class TopK:
    """Made by ``top_k``.

    Attributes
    ----------
    neurons : DataFrame
        Those that are among the k strongest, strongest first: ``site, nie, low, high, exact_pairs``. The bounds are of
        what is ranked, |nie| or nie, and hold for all neurons at once.
    undecided : DataFrame
        Those that could not be separated from rank k, by a budget or because they are equal; empty otherwise.
    delta : float
        The chance that a neuron in `neurons` does not belong, or that one in neither table does.
    """

    neurons: pd.DataFrame
    undecided: pd.DataFrame
    delta: float


def top_k(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    k: int = 20,
    *,
    delta: float = 0.05,
    order: Order = "absolute",
    treatment: str | None = None,
    budget: int | None = None,
    seed: int = 0,
    response: str = "probability",
    target: str = "entailment",
    foil: str | None = None,
    sites: Sites = "all",
    convention: str = "linear",
    backend: str | None = None,
    precision: str = "fp32",
    intervention: str | Intervention = "replace",
    strength: float | None = None,
    memory: int | None = None,
    probability_floor: float | None = None,
    progress: bool | None = None,
) -> TopK:
    """The k neurons with the largest mean effect over these samples, with probability at least 1 - `delta`.

    Successive elimination (Even-Dar et al. 2006): every neuron is estimated from a few exact pairs; those whose
    intervals reach over rank k are sampled further, and at last evaluated on every sample. Intervals share `delta`
    among all neurons and rounds (Bonferroni), and rest on Student's t as those of ``search(method="estimate")`` do.

    Parameters
    ----------
    clf, pairs, values
        As for ``search``.
    k : int
    delta : float
        In (0, 1).
    order : "absolute", "signed" or "negative"
        Largest |effect|, largest effect, or smallest.
    treatment : str, optional
        A treatment, or "contrast" (the first minus the second). Default: the contrast where there is one, else the only
        treatment.
    budget : int, optional
        Exact pairs at most, about; what is not separated by then is listed as undecided.
    seed : int
        Of every draw.
    others
        As for ``search``.

    Raises
    ------
    InputError
        As ``search``, and for a k that is not below the number of neurons, a delta outside (0, 1), an unknown order or
        treatment.
    """
    request = Request(
        response=response,
        target=target,
        foil=foil,
        sites=sites,
        convention=convention,
        intervention=intervention,
        strength=strength,
        probability_floor=probability_floor,
        progress=progress,
    )
    checked = check_request(clf, pairs, values, request)
    if not is_number(delta) or not 0 < delta < 1:
        raise InputError(f"delta = {delta!r}; pass a probability between 0 and 1, such as 0.05")
    if order not in ORDERS:
        raise InputError(f"order = {order!r} is not one of {', '.join(ORDERS)}")
    if not is_whole(k) or not 1 <= k < len(checked.sites):
        raise InputError(f"k = {k!r}; pass a number from 1 to {len(checked.sites) - 1}, below the number of neurons")
    names = [*checked.treatments, *([CONTRAST] if len(checked.treatments) > 1 else [])]
    treatment = treatment or names[-1]
    if treatment not in names:
        raise InputError(f"treatment {treatment!r} is not one of {', '.join(names)}")
    chosen = choose_backend(backend, precision)
    engine = ExactEngine.create(clf, chosen, Memory.of(chosen, memory))
    bar = Progress.asked(progress)
    race = _Race(make_sweep(engine, checked, "inside", seed, None, bar), names.index(treatment), k, delta, order)
    race.run(budget)
    labels = [f"L{g.layer}.{g.module}.{i}" for g in race.sweep.predictor.groups for i in g.index.tolist()]
    return race.answer(labels)


@dataclass
class _Race:
    sweep: TwoPhaseSweep
    treatment: int
    k: int
    delta: float
    order: Order

    def run(self, budget: int | None) -> None:
        sweep = self.sweep
        sweep.predict_all()
        expected = np.where(sweep.one.size > 0, FIRST_PAIRS, 0.0)
        everywhere = np.zeros(len(expected), dtype=bool)
        while expected.any():
            cost = expected[~everywhere].sum() + len(sweep.kept) * everywhere.sum()
            if budget is not None and sweep.pairs + cost > budget * 1.05:
                break
            sweep.begin_round(expected, everywhere)
            sweep.sample_round()
            expected, everywhere = self._next()

    def bounds(self) -> tuple[Float, Float, Float]:
        """Estimates, and bounds of the score that hold for all neurons and rounds at once, [N] each."""
        nie = corrected(self.sweep, 0)[self.treatment]
        share = self.delta / (len(nie) * (SAMPLED_ROUNDS + 2))
        half = self.sweep.design_error().half_width(1 - share)[self.treatment]
        half = np.where(np.isnan(half), np.inf, half)
        if self.order == "absolute":
            return nie, np.maximum(np.abs(nie) - half, 0.0), np.abs(nie) + half
        score = nie if self.order == "signed" else -nie
        return nie, score - half, score + half

    def decided(self) -> tuple[Mask, Mask]:
        """Neurons that are among the k, and those that are neither that nor certainly below."""
        _, low, high = self.bounds()
        above = np.partition(high, -self.k - 1)[-self.k - 1]  # (k + 1)-th largest upper bound
        below = np.partition(low, -self.k)[-self.k]  # k-th largest lower bound
        inside = low > above
        return inside, ~inside & (high >= below)

    def _next(self) -> tuple[Float, Mask]:
        inside, contending = self.decided()
        two = self.sweep.two
        open_ = contending & ~two.exact & (self.sweep.one.size > 0)
        none = np.zeros(len(open_), dtype=bool)
        if not (contending & ~inside).any() or not open_.any():
            return np.zeros(len(open_)), none
        if two.round >= SAMPLED_ROUNDS or open_.sum() <= FEW_CONTENDERS * self.k:
            return np.where(open_, 1.0, 0.0), open_
        return np.where(open_, GROWTH * np.maximum(two.corrections.weight, 1.0), 0.0), none

    def answer(self, labels: list[str]) -> TopK:
        nie, low, high = self.bounds()
        inside, contending = self.decided()
        if self.order == "negative":
            low, high = -high, -low
        table = pd.DataFrame(
            {"site": labels, "nie": nie, "low": low, "high": high, "exact_pairs": self.sweep.two.corrections.draws}
        )
        key = -np.abs(nie) if self.order == "absolute" else nie if self.order == "negative" else -nie
        ranked = table.iloc[np.argsort(key, kind="stable")]
        return TopK(
            ranked[inside[ranked.index]].reset_index(drop=True),
            ranked[contending[ranked.index]].reset_index(drop=True),
            self.delta,
        )
