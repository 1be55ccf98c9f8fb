"""Ablation curves: what a classifier still does as more and more neurons are taken from it, beside random ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pyneuro.data import Pair
from pyneuro.engine.intervention import Intervention, Kind
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_whole
from pyneuro.evaluation.intervened import intervened
from pyneuro.evaluation.metrics import Metric, find_metric, metric_name
from pyneuro.models import Classifier
from pyneuro.results.figures import new_figure, save_png
from pyneuro.search import Ranking, beside_controls, matched_rankings
from pyneuro.search.controls import CONTROLS

# As the code of Lim et al. 2024 steps: ⌊10 · 10^(i / 5)⌋, i = 0..19.
COUNTS = tuple(int(10 * 10 ** (i / 5)) for i in range(20))


@dataclass(frozen=True, eq=False)
class AblationCurve:
    """Made by ``ablation_curve``.

    Attributes
    ----------
    curve : DataFrame
        A row a number of neurons, 0 first: ``neurons, score, control_mean, control_low, control_high, p_value``. The
        last four are of ``BesideControls``; missing at 0.
    runs : DataFrame
        ``neurons, ranking`` ("ranking", "control 0" and so on) ``, score``.
    settings : dict
    """

    curve: pd.DataFrame
    runs: pd.DataFrame
    settings: dict[str, object]

    def save_figure(self, path: str | os.PathLike[str]) -> Path:
        """Score by number of neurons, and where 95 % of such controls lie (or another `ci`), as PNG. Raises InputError
        where matplotlib is missing or the file cannot be written."""
        figure, points = new_figure(6.4, 4.0), self.curve[self.curve["neurons"] > 0]
        axes = figure.subplots()
        axes.axhline(float(self.curve["score"].iloc[0]), color="#BBBBBB", linewidth=1, label="as it is")
        axes.fill_between(
            points["neurons"], points["control_low"], points["control_high"], color="#D55E00", alpha=0.2, linewidth=0
        )
        axes.plot(points["neurons"], points["control_mean"], "s-", color="#D55E00", label="matched random neurons")
        axes.plot(points["neurons"], points["score"], "o-", color="#0072B2", label="strongest neurons")
        axes.set_xscale("log")
        axes.set_xlabel(f"neurons at [CLS], {self.settings['intervention']}")
        axes.set_ylabel(str(self.settings["metric"]))
        axes.legend(frameon=False)
        return save_png(figure, path)


def ablation_curve(
    clf: Classifier,
    ranking: Ranking,
    pairs: Sequence[Pair],
    counts: Sequence[int] | None = None,
    *,
    metric: str | Metric = "accuracy",
    intervention: Kind | Intervention = "remove",
    strength: float | None = None,
    values: Values | None = None,
    treatment: str | None = None,
    controls: int = CONTROLS,
    seed: int = 0,
    ci: float = 0.95,
) -> AblationCurve:
    """Score of a classifier against the number of neurons ablated at [CLS], strongest first, beside matched controls.

    Every control takes, at every number, as many neurons of every layer and module as the ranking does.

    Parameters
    ----------
    clf : Classifier
        Left as it was.
    ranking : Ranking
        From ``pyneuro.rank``; neurons are patched in its convention.
    pairs : sequence of Pair
        Others than the ranking was found on.
    counts : sequence of int, optional
        Numbers of neurons, from 1. Default: ⌊10 · 10^(i/5)⌋ (Lim et al. 2024) as far as the ranking goes.
    metric : "accuracy", "overlap_balanced", "hans", or callable
        From (classifier, pairs) to a number; see ``pyneuro.evaluation.METRICS``.
    intervention, strength
        As for ``pyneuro.search``; "remove" sets neurons to 0.
    values, treatment
        As for ``intervened``.
    controls : int
        Random rankings.
    seed : int
        Of the controls.
    ci : float
        Coverage of the prediction interval of a control.

    Raises
    ------
    InputError
        As ``intervened`` and ``matched_rankings``; for pairs that the ranking was found on, counts beyond the ranking,
        and a metric that is not finite.
    """
    measure = find_metric(metric)
    how = intervention if isinstance(intervention, Intervention) else Intervention(intervention, strength)
    if isinstance(intervention, Intervention) and strength is not None:
        raise InputError(f"strength = {strength} beside {intervention}; give it once")
    check_unseen(ranking, pairs)
    numbers = _counts(ranking, counts)
    short = Ranking(ranking.shape, ranking.ids[: numbers[-1]], ranking.convention, ranking.model_digest)
    rankings = {"ranking": short}
    rankings |= {f"control {i}": control for i, control in enumerate(matched_rankings(short, controls, seed))}

    def score(of: Ranking, k: int) -> float:
        with intervened(clf, of.first(k), how, convention=ranking.convention, values=values, treatment=treatment):
            return measure(clf, pairs)

    whole = score(short, 0)
    rows: list[dict[str, object]] = [{"neurons": 0, "ranking": "ranking", "score": whole}]
    curve: list[dict[str, float]] = [{"neurons": 0, "score": whole}]
    for k in numbers:
        scores = {name: score(of, k) for name, of in rankings.items()}
        rows += [{"neurons": k, "ranking": name, "score": value} for name, value in scores.items()]
        own = scores.pop("ranking")
        found = beside_controls(own, list(scores.values()), ci)
        row = {"control_mean": found.mean, "control_low": found.low, "control_high": found.high}
        curve.append({"neurons": k, "score": own, **row, "p_value": found.p_value})
    settings: dict[str, object] = {
        "metric": metric_name(metric),
        "intervention": how.kind,
        "strength": how.strength,
        "treatment": treatment,
        "convention": ranking.convention,
        "controls": controls,
        "seed": seed,
        "pairs": len(pairs),
    }
    return AblationCurve(pd.DataFrame(curve), pd.DataFrame(rows), settings)


def check_unseen(ranking: Ranking, pairs: Sequence[Pair]) -> None:
    """Raises InputError for pairs that a ranking was found on: what is chosen on them looks good on them."""
    if seen := [pair.id for pair in pairs if pair.id in ranking.samples]:
        raise InputError(
            f"{len(seen)} of {len(pairs)} pairs ({seen[0]!r}, ...) are among those that the ranking was found on; pass "
            "others, such as the roles tune and test of pyneuro.data.split_roles"
        )


def _counts(ranking: Ranking, counts: Sequence[int] | None) -> list[int]:
    numbers = [k for k in COUNTS if k <= len(ranking)] if counts is None else list(counts)
    if not numbers:
        raise InputError(f"{len(ranking)} neurons are ranked, fewer than the first count, {COUNTS[0]}; pass counts")
    for k in numbers:
        if not is_whole(k) or not 1 <= k <= len(ranking):
            raise InputError(f"counts hold {k!r}; pass whole numbers from 1 to {len(ranking)}, the neurons ranked")
    return sorted(set(numbers))
