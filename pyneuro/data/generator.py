"""A controlled NLI set of our own: every label at every word overlap, each label settled by how the pair is built.

Ordinary NLI corpora have few pairs of full overlap that are not entailed, and few of no overlap that are, so label and
overlap cannot be told apart in their treatment sets. Here both are drawn independently.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator

from pyneuro.data.grammar import CONSTRUCTIONS, Construction, Draw, sentence
from pyneuro.data.grammar.phrases import BAND_OF_LEVEL, level_of
from pyneuro.data.grammar.scenes import SCENES
from pyneuro.data.overlap import whitespace_overlap
from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.errors import InputError

CAPACITY = 30_000
"""The most pairs of one seed. The grammar has more, but beyond this its rarer constructions run out."""

# Of the low and high thirds, this share lies at 0 and 1 exactly. Each is then more than a fifth of all pairs, so that
# the 20th and 80th percentile fall on them, and their sets are as balanced over labels as the cells are.
_EXTREME = 7 / 8
_MIN_WORDS = 4  # of a premise
_SCENE = 0.3  # share of premises that open with an unrelated clause
_PATIENCE = 200  # draws without a new pair before a construction counts as used up for its cell


def embedded_pairs(n: int = 2000, seed: int = 0) -> Pairs:
    """Generate ``n`` different English NLI pairs that come with pyneuro, balanced over label x word overlap.

    The label follows from the construction (who did what to whom, embedding, negation, quantities, converses,
    paraphrase), never from a judgement on the finished pair. Punctuation stands apart ("dog ."), so that the whitespace
    overlap score sees whole words.

    Parameters
    ----------
    n : int, 1..30,000
        Pairs to make. Not a prefix: another n with the same seed gives other pairs.
    seed : int
        Same n and seed, same pairs, on every machine.

    Returns
    -------
    Pairs [n]
        In random order, ids ``embedded-<seed>-<i>``. The nine label x band counts differ by at most 1. ``meta`` has

        - ``construction``: name of the rule that made the pair;
        - ``overlap``: whitespace score in 0..1;
        - ``band``: "low" (<= 1/3), "middle", or "high" (>= .8). Of every eight pairs, seven of the low band have
          overlap 0, and seven of the high band have 1;
        - ``heuristic``: HANS's classes, narrowest first. "constituent" where the hypothesis is a whole clause of the
          premise, "subsequence" where it is a run of its words, "overlap" where all its words occur in it, else "none".

    Raises
    ------
    InputError
        n or seed is not an integer, or n is outside 1..30,000.

    Notes
    -----
    Cut treatment sets with ``treatment_sets(pairs, 0.0, 1.0, mode="absolute")``. The 20th and 80th percentile give the
    same sets, with a warning that the ties make them larger than a fifth.

    References
    ----------
    The heuristics are those of McCoy, Pavlick and Linzen, "Right for the Wrong Reasons: Diagnosing Syntactic Heuristics
    in Natural Language Inference", ACL 2019. None of HANS's sentences, templates or word lists is used.

    Examples
    --------
    >>> pairs = embedded_pairs(900)
    >>> pairs.label_counts
    {'entailment': 300, 'neutral': 300, 'contradiction': 300}
    """
    count, seed = _integer("n", n), _integer("seed", seed)
    if not 1 <= count <= CAPACITY:
        raise InputError(f"n must be 1 to {CAPACITY} pairs, got {count}; join several seeds for more")
    rng = random.Random(f"embedded {seed} {count}")
    seen: set[tuple[str, str]] = set()
    made = [made for label, level, size in _cells(count) for made in _fill(label, level, size, rng, seen)]
    rng.shuffle(made)
    return Pairs(
        (
            Pair(f"embedded-{seed}-{i}", premise, hypothesis, rule.label, _meta(rule, premise, hypothesis))
            for i, (rule, premise, hypothesis) in enumerate(made)
        ),
        source=f"embedded_pairs(n={count}, seed={seed})",
    )


def _integer(name: str, value: object) -> int:
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise InputError(f"{name} must be an integer, got {type(value).__name__} {value!r}")


def _cells(n: int) -> Iterator[tuple[str, str, int]]:
    """(label, level, size) of all cells; sizes sum to n, those of the nine label x band cells differ by at most 1."""
    nine = [(label, band) for band in ("high", "low", "middle") for label in LABELS[:3]]
    for at, (label, band) in enumerate(nine):
        size = n // 9 + (at < n % 9)
        extreme = round(size * _EXTREME)
        if band == "middle":
            yield label, "middle", size
        else:
            yield label, "full" if band == "high" else "none", extreme
            yield label, band, size - extreme


def _fill(
    label: str, level: str, size: int, rng: random.Random, seen: set[tuple[str, str]]
) -> list[tuple[Construction, str, str]]:
    """New pairs of one cell, the constructions that reach it taking turns."""
    rules = [rule for rule in CONSTRUCTIONS if rule.label == label and level in rule.levels]
    rng.shuffle(rules)
    made: list[tuple[Construction, str, str]] = []
    while len(made) < size:
        for rule in tuple(rules):
            if len(made) == size:
                break
            drawn = _draw_new(rule, level, rng, seen)
            if drawn is None:
                rules.remove(rule)
            else:
                made.append((rule, *drawn))
        if not rules:
            raise InputError(
                f"the grammar makes only {len(made)} of {size} pairs of {label} at {level} overlap; lower n"
            )
    return made


def _draw_new(rule: Construction, level: str, rng: random.Random, seen: set[tuple[str, str]]) -> tuple[str, str] | None:
    """A pair of the construction at this overlap level that is not in ``seen``, added to it; None if none turns up."""
    draw = Draw(rng)
    for _ in range(_PATIENCE):
        premise, hypothesis = rule.build(draw)
        if rule.scene and draw.chance(_SCENE):
            premise = f"{draw.one(SCENES)} and {premise}"
        premise, hypothesis = sentence(premise), sentence(hypothesis)
        fits = premise.count(" ") >= _MIN_WORDS and level_of(whitespace_overlap(premise, hypothesis)) == level
        if fits and (premise, hypothesis) not in seen:
            seen.add((premise, hypothesis))
            return premise, hypothesis
    return None


def _meta(rule: Construction, premise: str, hypothesis: str) -> dict[str, object]:
    overlap = whitespace_overlap(premise, hypothesis)
    level = level_of(overlap)
    heuristic = "none"
    if level == "full":
        # Between spaces, so that runs of whole words are found; the hypothesis without its full stop.
        run = f" {hypothesis[:-2].lower()} " in f" {premise.lower()} "
        heuristic = ("constituent" if rule.clause else "subsequence") if run else "overlap"
    return {
        "construction": rule.name,
        "overlap": overlap,
        "band": BAND_OF_LEVEL[level],
        "heuristic": heuristic,
    }
