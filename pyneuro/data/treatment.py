"""Treatment sets: the pairs of high (HOL) and of low (LOL) word overlap, in equal numbers of every class.

The mean activation over each set is the value a neuron is given when it is patched. If HOL held more entailment than
LOL, that value would carry the label and not the overlap; hence the balance.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pyneuro.data.balance import Classes, class_positions, format_counts
from pyneuro.data.draw import check_seed, sample
from pyneuro.data.manifest import describe, write_json
from pyneuro.data.overlap import Scorer, find_scorer, overlap_scores
from pyneuro.data.pairs import Pairs
from pyneuro.errors import InputError, is_whole
from pyneuro.presets import preset as preset_settings

Mode = Literal["percentile", "absolute"]
TREATMENTS: tuple[str, str] = ("HOL", "LOL")


@dataclass(frozen=True)
class Preset:
    """Bounds (percentiles) and balanced classes of a published setting."""

    low: float
    high: float
    classes: Classes


def _bounds(name: str) -> Preset:
    published = preset_settings(name)["data.treatment_sets"]
    return Preset(published["low"], published["high"], published["classes"])


PRESETS: Mapping[str, Preset] = MappingProxyType({name: _bounds(name) for name in ("acl2024", "notes2023")})

# A percentile bound that many pairs share takes all of them. On MNLI most bounds give 1.0 to 1.15 times the nominal
# share; 0.0 as a bound gives 1.23 times, and ties are then all there is in the set.
_TIE_FACTOR = 1.2
_DEFAULT_BOUNDS = (20, 80)


@dataclass(frozen=True, eq=False)
class TreatmentSets(Mapping[str, Pairs]):
    """The two treatment sets, by name: ``sets["HOL"]``, ``sets["LOL"]``; and how they were made.

    Attributes
    ----------
    low, high : float
        The bounds asked for: percentiles, or scores in ``absolute`` mode.
    low_threshold, high_threshold : float
        The scores they come to: LOL is ``score <= low_threshold``, HOL is ``score >= high_threshold``.
    counts_before, counts_after : mapping of set to (mapping of class to int)
        Pairs per class before and after balancing.
    mode, scorer, preset, classes, balance, replacement, seed
        As passed to :func:`treatment_sets`; ``scorer`` by name.
    source, source_digest : str
        The pairs the sets were cut from.
    """

    sets: Mapping[str, Pairs]
    low: float
    high: float
    low_threshold: float
    high_threshold: float
    counts_before: Mapping[str, Mapping[str, int]]
    counts_after: Mapping[str, Mapping[str, int]]
    mode: Mode
    scorer: str
    preset: str | None
    classes: Classes
    balance: bool
    replacement: bool
    seed: int
    source: str
    source_digest: str

    def __getitem__(self, treatment: str) -> Pairs:
        return self.sets[treatment]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    def manifest(self) -> dict[str, Any]:
        """What repeats or checks the sets, in plain JSON types: options, thresholds, counts, ids and sha256."""
        return {
            "kind": "treatment sets",
            "source": self.source,
            "source_sha256": self.source_digest,
            "scorer": self.scorer,
            "mode": self.mode,
            "preset": self.preset,
            "bounds": {"HOL": self.high, "LOL": self.low},
            "thresholds": {"HOL": self.high_threshold, "LOL": self.low_threshold},
            "balance": self.balance,
            "classes": self.classes,
            "replacement": self.replacement,
            "seed": self.seed,
            "counts_before": {name: dict(counts) for name, counts in self.counts_before.items()},
            "counts_after": {name: dict(counts) for name, counts in self.counts_after.items()},
            "sets": {name: describe(pairs) for name, pairs in self.sets.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the manifest as JSON; returns the path. Raises InputError when it cannot be written."""
        return write_json(self.manifest(), path)


def treatment_sets(
    pairs: Pairs,
    low: float = 20,
    high: float = 80,
    *,
    mode: Mode = "percentile",
    scorer: str | Scorer = "whitespace",
    preset: str | None = None,
    classes: Classes | None = None,
    balance: bool = True,
    replacement: bool = False,
    seed: int = 0,
    min_per_class: int = 1,
) -> TreatmentSets:
    """Cut the high- and low-overlap sets out of labelled pairs.

    HOL holds the pairs with ``score >= high``'s threshold, LOL those with ``score <= low``'s, bounds included; the rest
    is left out.

    Parameters
    ----------
    pairs : Pairs
        Their own score distribution gives the percentiles, so pass the whole role, not a sample chosen by overlap.
    low, high : float
        Percentiles (0..100), or scores when ``mode="absolute"``.
    mode : "percentile" or "absolute"
        "80 percent overlap" in the source code is the 80th percentile, about 0.6 on MNLI, not a score of 0.8.
    scorer : str or callable
        A name of ``OVERLAP_SCORERS`` or a function of (premise, hypothesis).
    preset : "acl2024" or "notes2023", optional
        Published bounds and classes: 95/5 over three labels, or 80/20 over entailment and the rest. Theirs drew with
        replacement; ask for that separately if wanted.
    classes : "label" or "entailment", optional
        What is balanced: every label (default), or entailment against the rest.
    balance : bool
        Reduce every (set, class) to the smallest count over all of them.
    replacement : bool
        Draw the balanced sets with replacement, as the published code does.
    seed : int
        The same seed, pairs and options give the same sets on any machine, in whatever order the pairs stand.
    min_per_class : int
        Fewest pairs that balancing may leave in a (set, class).

    Returns
    -------
    TreatmentSets
        A mapping with the keys ``"HOL"`` and ``"LOL"``; the pairs of a set stand in corpus order.

    Raises
    ------
    InputError
        Bounds out of range or order, thresholds that coincide (the sets would overlap), an empty set, a (set, class)
        with too few pairs (all counts are named), a pair without a label when balancing, an unknown mode, preset or
        scorer.

    Warns
    -----
    UserWarning
        Many pairs score exactly a percentile's threshold, so that the set is more than 20 % larger than the percentile
        says (the 5th percentile of MNLI is 0.0, which 6 % of its pairs score).

    References ---------- Lim et al., "Identifying and Mitigating Annotation Bias in Natural Language Understanding
    using Causal Mediation Analysis", Findings of ACL 2024.

    Examples
    --------
    >>> from pyneuro.data.pairs import Pair
    >>> pairs = Pairs(
    ...     Pair(f"{label}{n}", "a b c d", " ".join("abcdvwxyz"[n : n + 4]), label)
    ...     for label in ("entailment", "neutral", "contradiction") for n in range(5)
    ... )
    >>> sets = treatment_sets(pairs, 0.2, 0.8, mode="absolute")
    >>> sets.high_threshold, len(sets["HOL"]), sets.counts_after["LOL"]["neutral"]
    (0.8, 3, 1)
    """
    if not len(pairs):
        raise InputError(f"{pairs.source} holds no pairs to cut treatment sets from")
    low, high, classes = _resolve_preset(preset, low, high, mode, classes)
    _check_bounds(low, high, mode)
    seed = check_seed(seed)
    if not is_whole(min_per_class) or min_per_class < 1:
        raise InputError(f"min_per_class must be a positive integer, got {min_per_class!r}")

    scorer_name, _ = find_scorer(scorer)
    scores = overlap_scores(pairs, scorer)
    low_threshold, high_threshold = _thresholds(scores, low, high, mode, scorer_name)
    inside = {"HOL": np.flatnonzero(scores >= high_threshold), "LOL": np.flatnonzero(scores <= low_threshold)}
    for name, threshold in (("HOL", high_threshold), ("LOL", low_threshold)):
        if not len(inside[name]):
            side = ">=" if name == "HOL" else "<="
            raise InputError(
                f"set {name} is empty: no pair of {pairs.source} scores {side} {threshold:.4g} "
                f"(scores run {scores.min():.4g}..{scores.max():.4g}); move the bound, or use mode='percentile'"
            )

    kept = {name: [int(position) for position in positions] for name, positions in inside.items()}
    if balance:
        before = _count_classes(pairs, kept, classes)
        kept = _balance(pairs, kept, classes, min_per_class, replacement=replacement, seed=seed)
        after = _count_classes(pairs, kept, classes)
    else:
        before = after = {name: _label_counts(pairs.subset(positions)) for name, positions in kept.items()}
    if mode == "percentile":
        _warn_of_ties("HOL", scores, high_threshold, len(inside["HOL"]), 100 - high)
        _warn_of_ties("LOL", scores, low_threshold, len(inside["LOL"]), low)
    sets = {name: pairs.subset(kept[name], f"{pairs.source} ({name})") for name in TREATMENTS}
    return TreatmentSets(
        sets=MappingProxyType(sets),
        low=float(low),
        high=float(high),
        low_threshold=low_threshold,
        high_threshold=high_threshold,
        counts_before=MappingProxyType(before),
        counts_after=MappingProxyType(after),
        mode=mode,
        scorer=scorer_name,
        preset=preset,
        classes=classes,
        balance=balance,
        replacement=replacement,
        seed=seed,
        source=pairs.source,
        source_digest=pairs.digest(),
    )


def _resolve_preset(
    preset: str | None, low: float, high: float, mode: Mode, classes: Classes | None
) -> tuple[float, float, Classes]:
    if preset is None:
        return low, high, "label" if classes is None else classes
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known; use one of {', '.join(PRESETS)}, or None")
    chosen = PRESETS[preset]
    if (low, high) not in (_DEFAULT_BOUNDS, (chosen.low, chosen.high)) or mode != "percentile":
        raise InputError(
            f"preset {preset!r} means percentiles {chosen.low:g} and {chosen.high:g}, but low={low!r}, high={high!r} "
            f"and mode={mode!r} were given; leave these out, or the preset"
        )
    return chosen.low, chosen.high, chosen.classes if classes is None else classes


def _check_bounds(low: float, high: float, mode: Mode) -> None:
    if mode not in get_args(Mode):
        raise InputError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
    numbers = all(isinstance(bound, (int, float, np.number)) and math.isfinite(bound) for bound in (low, high))
    if not numbers or low >= high:
        raise InputError(f"low and high must be numbers, low below high; got low={low!r}, high={high!r}")
    if mode == "percentile" and (low < 0 or high > 100):
        raise InputError(f"percentiles run from 0 to 100, got low={low!r}, high={high!r}")
    if mode == "percentile" and high <= 1:
        raise InputError(f"high={high!r} is a percentile; write {100 * high:g}, or pass mode='absolute' for scores")


def _thresholds(
    scores: npt.NDArray[np.float64], low: float, high: float, mode: Mode, scorer: str
) -> tuple[float, float]:
    if mode == "absolute":
        return float(low), float(high)
    low_threshold, high_threshold = (float(value) for value in np.percentile(scores, [low, high]))
    if low_threshold >= high_threshold:
        share = np.mean(scores == low_threshold)
        raise InputError(
            f"HOL and LOL would overlap: percentiles {low:g} and {high:g} of scorer {scorer!r} are both "
            f"{low_threshold:.4g}, which {share:.1%} of {len(scores)} pairs score; choose wider bounds, another scorer "
            "or mode='absolute'"
        )
    return low_threshold, high_threshold


def _warn_of_ties(name: str, scores: npt.NDArray[np.float64], threshold: float, size: int, share: float) -> None:
    nominal = share / 100 * len(scores)
    if size > _TIE_FACTOR * nominal + 1:
        ties = int(np.sum(scores == threshold))
        warnings.warn(
            f"{ties} of {len(scores)} pairs ({ties / len(scores):.1%}) score exactly {threshold:.4g}, the bound of "
            f"{name}, so the set holds {size} pairs ({size / len(scores):.1%}) where the percentile says {share:g} %",
            UserWarning,
            stacklevel=3,
        )


def _label_counts(pairs: Pairs) -> dict[str, int]:
    return {label or "unlabelled": count for label, count in pairs.label_counts.items()}


def _count_classes(pairs: Pairs, kept: Mapping[str, list[int]], classes: Classes) -> dict[str, dict[str, int]]:
    """Pairs per set and class, absent classes as 0, so that a class that one set lacks is seen."""
    expected = class_positions(pairs, classes)
    counts = {}
    for name in TREATMENTS:
        found = class_positions(pairs.subset(kept[name]), classes)
        counts[name] = {label: len(found.get(label, [])) for label in expected}
    return counts


def _balance(
    pairs: Pairs, kept: Mapping[str, list[int]], classes: Classes, fewest: int, *, replacement: bool, seed: int
) -> dict[str, list[int]]:
    members = {label: set(positions) for label, positions in class_positions(pairs, classes).items()}
    cells = {
        (name, label): [at for at in kept[name] if at in members[label]] for name in TREATMENTS for label in members
    }
    (name, label), smallest = min(cells.items(), key=lambda cell: len(cell[1]))
    if len(smallest) < fewest:
        counts = "; ".join(
            f"{name}: {format_counts({label: len(cells[name, label]) for label in members})}" for name in TREATMENTS
        )
        raise InputError(
            f"set {name} has {len(smallest)} pairs of class {label!r}, and balancing needs {fewest} ({counts}); "
            "widen the bounds, pass more pairs, classes='entailment' or balance=False"
        )
    balanced: dict[str, list[int]] = {name: [] for name in TREATMENTS}
    for (name, label), positions in cells.items():
        balanced[name] += sample(
            pairs, positions, len(smallest), replacement=replacement, seed=seed, purpose=f"treatment/{name}/{label}"
        )
    return {name: sorted(positions) for name, positions in balanced.items()}
