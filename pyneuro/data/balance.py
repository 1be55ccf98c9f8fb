"""Equal numbers of every class."""

from __future__ import annotations

from typing import Literal, get_args

from pyneuro.data.draw import check_seed, sample, shuffled
from pyneuro.data.pairs import LABELS, Pairs
from pyneuro.errors import InputError

Classes = Literal["label", "entailment"]
"""What is balanced: the labels as they are, or entailment against everything else."""


def class_positions(pairs: Pairs, classes: Classes) -> dict[str, list[int]]:
    """Positions of the pairs of every class that occurs, in the order of ``LABELS``.

    Parameters
    ----------
    pairs : Pairs
    classes : "label" or "entailment"
        ``"entailment"`` merges neutral, contradiction and non-entailment into ``non-entailment``.

    Raises
    ------
    InputError
        ``classes`` is neither, a pair has no label, or HANS's two labels are mixed with MNLI's three without a merge.
    """
    if classes not in get_args(Classes):
        raise InputError(f"classes must be one of {', '.join(get_args(Classes))}, got {classes!r}")
    unlabelled = [pair.id for pair in pairs if pair.label is None]
    if unlabelled:
        raise InputError(
            f"{len(unlabelled)} of {len(pairs)} pairs of {pairs.source} have no label (first: {unlabelled[0]!r}) and "
            "belong to no class; leave them out, or do not balance"
        )
    found: dict[str, list[int]] = {label: [] for label in LABELS}
    for position, label in enumerate(pairs.labels):
        merged = "non-entailment" if classes == "entailment" and label != "entailment" else label
        found[merged or ""].append(position)
    present = {label: positions for label, positions in found.items() if positions}
    if "non-entailment" in present and ("neutral" in present or "contradiction" in present):
        raise InputError(
            f"{pairs.source} mixes 'non-entailment' with 'neutral' or 'contradiction', which it contains; "
            "balance with classes='entailment', or separate the corpora"
        )
    return present


def balanced_sample(
    pairs: Pairs, n: int, *, classes: Classes = "label", replacement: bool = False, seed: int = 0
) -> Pairs:
    """``n // k`` pairs of each of the ``k`` classes, shuffled.

    The NIE sets of Lim et al. are such samples: 2000 pairs of two classes in their code of early 2023, 300 of three in
    the released configuration. Theirs are in class order; a prefix of this one is a fair sample too.

    Parameters
    ----------
    pairs : Pairs
    n : int
        Pairs in all. What does not divide evenly is left out.
    classes : "label" or "entailment"
        Balance the labels, or entailment against the rest.
    replacement : bool
        Draw with replacement, as the published code does. Repeated pairs carry no new evidence: intervals must count
        distinct ids.
    seed : int
        The same seed, pairs and options give the same sample on any machine.

    Raises
    ------
    InputError
        A class has fewer pairs than needed (the counts are named), or ``n`` gives no pair to a class; a pair has no
        label.

    References
    ----------
    Lim et al., "Identifying and Mitigating Annotation Bias in Natural Language Understanding using Causal Mediation
    Analysis", Findings of ACL 2024.
    """
    seed = check_seed(seed)
    found = class_positions(pairs, classes)
    each = n // len(found) if found else 0
    if each < 1:
        raise InputError(f"n = {n} gives no pair to each of the {len(found)} classes of {pairs.source}; ask for more")
    counts = {label: len(positions) for label, positions in found.items()}
    small = min(counts, key=lambda label: counts[label])
    if counts[small] < each and not replacement:
        raise InputError(
            f"{n} pairs need {each} of each class, but {pairs.source} has {counts[small]} of {small!r} "
            f"({format_counts(counts)}); ask for at most {counts[small] * len(counts)}, or pass replacement=True"
        )
    picked: list[int] = []
    for label, positions in found.items():
        picked += sample(pairs, positions, each, replacement=replacement, seed=seed, purpose=f"balanced/{label}")
    chosen = pairs.subset(picked)
    return chosen.subset(shuffled(chosen, range(len(chosen)), seed, "balanced/order"))


def format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{label} {count}" for label, count in counts.items())
