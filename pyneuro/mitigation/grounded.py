"""Causal-grounded masking (Lim et al. 2024): neurons with large effects are weakened at [CLS], nothing is trained.

A chosen neuron's activation a becomes ε a in every forward. Which share of the neurons and which ε are chosen on pairs
that took no part in finding the neurons.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyneuro.data import Pair
from pyneuro.data.pairs import pairs_digest
from pyneuro.engine.intervention import Intervention
from pyneuro.errors import InputError
from pyneuro.evaluation.ablation import check_unseen
from pyneuro.evaluation.intervened import intervened
from pyneuro.evaluation.metrics import Metric, find_metric, metric_name
from pyneuro.models import Classifier
from pyneuro.results.files import read_json, to_json, writable_folder, write_atomic
from pyneuro.search import Ranking
from pyneuro.sites import CONVENTIONS, ModelShape, NeuronSet

FORMAT = "pyneuro weakening 1"
# The grids of Lim et al.'s code, before it refines ε around the best.
STRENGTHS = tuple(i / 10 for i in range(11))
SHARES = tuple(i / 100 for i in range(1, 21))


@dataclass(frozen=True, eq=False)
class Weakening:
    """Which neurons of which model are weakened, and how much. Made by ``fit_weakening``, ``Weakening.of`` and
    ``Weakening.load``.

    Attributes
    ----------
    neurons : NeuronSet
    strength : float
        ε in [0, 1]: 0 silences, 1 changes nothing.
    convention : str
    model_digest : str
        Of the only model that it is for.
    settings : mapping
        What is known of how it was found, in plain JSON types.
    """

    neurons: NeuronSet
    strength: float
    convention: str
    model_digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, clf: Classifier, neurons: str | Iterable[str] | NeuronSet, strength: float, *, convention: str = "linear"
    ) -> Weakening:
        """Of a classifier. Raises InputError as ``weakened``."""
        if convention not in CONVENTIONS:
            raise InputError(f"convention {convention!r} is not one of {', '.join(CONVENTIONS)}")
        return cls(_members(clf, neurons), check_strength(strength), convention, clf.digest)

    @contextmanager
    def on(self, clf: Classifier) -> Iterator[None]:
        """Weaken a classifier for the length of a ``with`` block, see ``weakened``. Raises InputError for another model
        than the one that this is for."""
        if (digest := clf.digest) != self.model_digest:
            raise InputError(
                f"this weakening belongs to a model with digest {self.model_digest[:12]}, and {clf.name} has "
                f"{digest[:12]}; load the model that it was fitted on"
            )
        with intervened(clf, self.neurons, Intervention("weaken", self.strength), convention=self.convention):
            yield

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file, whole or not at all; returns the path."""
        content = {
            "format": FORMAT,
            "strength": self.strength,
            "convention": self.convention,
            "model_digest": self.model_digest,
            "shape": asdict(self.neurons.shape),
            "settings": dict(self.settings),
            "neurons": [str(neuron) for neuron in self.neurons],
        }
        target = Path(path).expanduser()
        write_atomic(writable_folder(target.parent) / target.name, to_json(content, "setting").encode())
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Weakening:
        """Read what ``save`` wrote. Raises InputError for anything else."""
        source = Path(path).expanduser()
        mend = "pass a file written by Weakening.save or 'pyneuro mitigate weaken'"
        content = read_json(source, mend)
        if content.get("format") != FORMAT:
            raise InputError(f"{str(source)!r} has format {content.get('format')!r}, not {FORMAT!r}; {mend}")
        try:
            shape = ModelShape(**content["shape"])
            neurons = NeuronSet.parse(content["neurons"], shape)
            strength = check_strength(content["strength"])
            convention, digest, settings = content["convention"], content["model_digest"], content["settings"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{str(source)!r} is damaged: {type(error).__name__} {error}; {mend}") from error
        except InputError as error:
            raise InputError(f"{str(source)!r}: {error}") from error
        if convention not in CONVENTIONS or not isinstance(digest, str) or not isinstance(settings, dict):
            raise InputError(f"{str(source)!r} is damaged: look at convention, model_digest and settings; {mend}")
        return cls(neurons, strength, convention, digest, settings)

    def __repr__(self) -> str:
        return f"Weakening({len(self.neurons)} neurons by {self.strength:g}, {self.convention})"


@dataclass(frozen=True, eq=False)
class WeakeningFit:
    """Made by ``fit_weakening``.

    Attributes
    ----------
    table : DataFrame
        Every point of the grid: ``share, neurons, strength, score``.
    chosen : Weakening
        The point of the largest score; of equal ones the mildest, with the largest strength, then the fewest neurons.
    baseline : float
        Score of the classifier as it is. No more than the baseline means that weakening did not help.
    """

    table: pd.DataFrame
    chosen: Weakening
    baseline: float


@contextmanager
def weakened(
    clf: Classifier, neurons: str | Iterable[str] | NeuronSet, strength: float, *, convention: str = "linear"
) -> Iterator[None]:
    """Multiply neurons at [CLS] by a factor in every forward, for the length of a ``with`` block (Lim et al. 2024).

    The hooks are gone after the block, also after an error; see ``pyneuro.evaluation.intervened``.

    Parameters
    ----------
    clf : Classifier
    neurons : names or NeuronSet
    strength : float
        ε in [0, 1]: 0 silences, 1 changes nothing.
    convention : "linear" or "hook"
        Where a neuron is, see ``pyneuro.sites``.

    Raises
    ------
    InputError
        For a strength outside [0, 1], an unknown convention, and neurons that the model has not.
    """
    how = Intervention("weaken", check_strength(strength))
    with intervened(clf, _members(clf, neurons), how, convention=convention):
        yield


def fit_weakening(
    clf: Classifier,
    ranking: Ranking,
    tune_pairs: Sequence[Pair],
    strengths: Sequence[float] = STRENGTHS,
    shares: Sequence[float] = SHARES,
    *,
    metric: str | Metric = "accuracy",
) -> WeakeningFit:
    """Choose ε and the share of neurons on a grid, by a metric on tune pairs and on nothing else.

    Costs a pass over the tune pairs for every point, except those of ε = 1, which change nothing. Report the choice on
    other pairs still, beside its controls: ``pyneuro.measure_beside_controls``.

    Parameters
    ----------
    clf : Classifier
        The model that the ranking is of; left as it was.
    ranking : Ranking
        From ``pyneuro.rank``. The neurons are weakened in its convention.
    tune_pairs : sequence of Pair
        The role tune of ``pyneuro.data.split_roles``.
    strengths : sequence of float
        ε, in [0, 1]. Default: 0, 0.1, ..., 1 (Lim et al. 2024).
    shares : sequence of float
        Shares of the ranking, in (0, 1]. Default: 0.01, 0.02, ..., 0.2 (Lim et al. 2024, of all neurons).
    metric : "accuracy", "overlap_balanced", "hans", or callable
        From (classifier, pairs) to a number, larger being better. Accuracy on pairs where the shortcut helps rarely
        rises; "overlap_balanced" weighs the pairs on which it misleads.

    Raises
    ------
    InputError
        For a strength outside [0, 1], a share outside (0, 1], an empty grid, a ranking of another model, pairs that the
        ranking was found on, and as the metric.
    """
    if ranking.model_digest is not None and ranking.model_digest != clf.digest:
        raise InputError(
            f"the ranking is of a model with digest {ranking.model_digest[:12]}, and {clf.name} has "
            f"{clf.digest[:12]}; search the model that is to be weakened"
        )
    factors, counts = _grid(strengths, shares, ranking)
    check_unseen(ranking, tune_pairs)
    measure = find_metric(metric)
    baseline = measure(clf, tune_pairs)
    rows = []
    for share, count in counts.items():
        members = ranking.first(count)
        for strength in factors:
            score = baseline
            if strength != 1.0:
                with weakened(clf, members, strength, convention=ranking.convention):
                    score = measure(clf, tune_pairs)
            rows.append({"share": share, "neurons": count, "strength": strength, "score": score})
    table = pd.DataFrame(rows)
    best = table.sort_values(["score", "strength", "neurons"], ascending=[False, False, True], kind="stable").iloc[0]
    settings = {
        "share": float(best["share"]),
        "metric": metric_name(metric),
        "score": float(best["score"]),
        "baseline": baseline,
        "tune_pairs": {"n": len(tune_pairs), "sha256": pairs_digest(tune_pairs)},
        "model": clf.name,
    }
    chosen = Weakening(
        ranking.first(int(best["neurons"])), float(best["strength"]), ranking.convention, clf.digest, settings
    )
    return WeakeningFit(table, chosen, baseline)


def check_strength(strength: float) -> float:
    """Raises InputError for a number outside [0, 1], or no number."""
    if isinstance(strength, bool) or not isinstance(strength, int | float | np.number) or not 0 <= strength <= 1:
        raise InputError(f"strength = {strength!r}; pass a factor from 0 (silence) to 1 (no change)")
    return float(strength)


def _members(clf: Classifier, neurons: str | Iterable[str] | NeuronSet) -> NeuronSet:
    members = neurons if isinstance(neurons, NeuronSet) else NeuronSet.parse(neurons, clf.shape)
    if members.shape != clf.shape:
        raise InputError(f"the neurons are of a model of {members.shape} and this one is {clf.shape}")
    return members


def _grid(
    strengths: Sequence[float], shares: Sequence[float], ranking: Ranking
) -> tuple[list[float], dict[float, int]]:
    """ε, and neurons by share."""
    factors = [check_strength(strength) for strength in strengths]
    counts = {float(share): ranking.count(share) for share in shares}
    if not factors or not counts or not len(ranking):
        raise InputError(
            f"{len(factors)} strengths, {len(counts)} shares and {len(ranking)} neurons ranked; pass at least one each"
        )
    return factors, counts
