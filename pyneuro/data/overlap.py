"""How much of the hypothesis is already in the premise: word-overlap scores.

The default, ``whitespace``, is the score of Lim et al. (Findings of ACL 2024), from which the high-overlap (HOL) and
low-overlap (LOL) treatment sets are cut. The others are what related work uses, so that a finding can be checked
against another ruler.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from pyneuro.data.pairs import Pair
from pyneuro.errors import InputError

Scorer = Callable[[str, str], float]
"""(premise, hypothesis) -> score; larger means more overlap."""

_SCORERS: dict[str, Scorer] = {}
OVERLAP_SCORERS: MappingProxyType[str, Scorer] = MappingProxyType(_SCORERS)
"""The scorers by name, read-only; :func:`register_scorer` adds to it."""

# Lim et al. and HANS drop only these three, and only where whitespace sets them apart: "dog." stays "dog.".
_LONE_PUNCTUATION = frozenset({".", "?", "!"})
_WORD = re.compile(r"\w+(?:['’]\w+)*")


def register_scorer(name: str) -> Callable[[Scorer], Scorer]:
    """Decorator that makes a scorer known by name to :func:`overlap` and ``treatment_sets``.

    Parameters
    ----------
    name : str
        Must be new: a score that changes its meaning would make saved manifests lie.

    Raises
    ------
    InputError
        The name is taken.
    """

    def add(scorer: Scorer) -> Scorer:
        if name in _SCORERS:
            raise InputError(f"overlap scorer {name!r} exists already; register yours under another name")
        _SCORERS[name] = scorer
        return scorer

    return add


def _whitespace_words(text: str) -> list[str]:
    return [word.lower() for word in text.split() if word not in _LONE_PUNCTUATION]


def words(text: str) -> list[str]:
    """Lower-cased runs of letters or digits with inner apostrophes ("isn't"), in order; punctuation is left out."""
    return [word.lower() for word in _WORD.findall(text)]


def _share_found(tokens: list[str], known: frozenset[str]) -> float:
    return sum(token in known for token in tokens) / len(tokens) if tokens else 0.0


@register_scorer("whitespace")
def whitespace_overlap(premise: str, hypothesis: str) -> float:
    """Share of the hypothesis's whitespace tokens that occur in the premise, in 0..1.

    ``#{w in words(hypothesis) : w in words(premise)} / len(words(hypothesis))``, where words are lower-cased whitespace
    tokens other than a lone ``.``, ``?`` or ``!``. A repeated hypothesis word counts each time; a hypothesis without
    words scores 0. Punctuation stays attached, so "dog." and "dog" differ.

    References
    ----------
    Lim et al., "Identifying and Mitigating Annotation Bias in Natural Language Understanding using Causal Mediation
    Analysis", Findings of ACL 2024.
    """
    return _share_found(_whitespace_words(hypothesis), frozenset(_whitespace_words(premise)))


@register_scorer("clark")
def clark_overlap(premise: str, hypothesis: str) -> float:
    """Share of the hypothesis's words that occur in the premise, punctuation set aside, in 0..1; 0 without words.

    The "percent in premise" feature of Clark et al. A word is a run of letters or digits with inner apostrophes
    ("isn't"); their NLTK tokenizer is not needed, and splits contractions differently.

    References
    ----------
    Clark, Yatskar and Zettlemoyer, "Don't Take the Easy Way Out: Ensemble Based Methods for Avoiding Known Dataset
    Biases", EMNLP 2019.
    """
    return _share_found(words(hypothesis), frozenset(words(premise)))


@register_scorer("jaccard")
def jaccard_overlap(premise: str, hypothesis: str) -> float:
    """Distinct words in both over distinct words in either, ``|P ∩ H| / |P ∪ H|``, in 0..1; 0 when neither has words.

    Unlike the other scores it is symmetric, and falls as the premise grows.

    References
    ----------
    Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11, 1912. As a bias feature: He, Zha
    and Wang, "Unlearn Dataset Bias in Natural Language Inference by Fitting the Residual" (DRiFt), DeepLo 2019.
    """
    p, h = set(words(premise)), set(words(hypothesis))
    either = len(p | h)
    return len(p & h) / either if either else 0.0


@register_scorer("full")
def full_overlap(premise: str, hypothesis: str) -> float:
    """1 when every hypothesis word occurs in the premise, else 0; 0 without words. HANS's lexical-overlap heuristic.

    References
    ----------
    McCoy, Pavlick and Linzen, "Right for the Wrong Reasons: Diagnosing Syntactic Heuristics in NLI", ACL 2019.
    """
    h = words(hypothesis)
    return float(bool(h) and set(h) <= set(words(premise)))


@register_scorer("qqp")
def qqp_overlap(premise: str, hypothesis: str) -> float:
    """Shared distinct words over those of the text with fewer, ``|P ∩ H| / min(|P|, |H|)``; 2 when P and H are equal.

    Made for question pairs (QQP), where neither side is the premise. The 2 tells equal word sets from mere containment.
    0 without words.
    """
    p, h = set(words(premise)), set(words(hypothesis))
    if not p or not h:
        return 0.0
    return 2.0 if p == h else len(p & h) / min(len(p), len(h))


@register_scorer("matches")
def matches_overlap(premise: str, hypothesis: str) -> float:
    """Pairs of equal words, one from each text, over the longer text's word count; 0 without words.

    Repeats multiply, so the score can exceed 1.

    References
    ----------
    Udomcharoenchaikit et al., "Mitigating Spurious Correlation in NLU with Counterfactual Inference", EMNLP 2022.
    """
    p, h = Counter(words(premise)), Counter(words(hypothesis))
    longer = max(p.total(), h.total())
    return sum(count * p[word] for word, count in h.items()) / longer if longer else 0.0


def find_scorer(scorer: str | Scorer) -> tuple[str, Scorer]:
    """(name, function) of a scorer given by name or as a function.

    Raises
    ------
    InputError
        No scorer has this name, or it is neither a name nor callable.
    """
    if isinstance(scorer, str):
        if scorer not in _SCORERS:
            known = ", ".join(_SCORERS)
            raise InputError(f"overlap scorer {scorer!r} is not known; use one of {known}, or register_scorer")
        return scorer, _SCORERS[scorer]
    if not callable(scorer):
        raise InputError(f"scorer must be a name or a function of (premise, hypothesis), got {scorer!r}")
    return getattr(scorer, "__qualname__", type(scorer).__qualname__), scorer


def overlap(pair: Pair | tuple[str, str], scorer: str | Scorer = "whitespace") -> float:
    """Word overlap of one pair.

    Parameters
    ----------
    pair : Pair or (premise, hypothesis)
    scorer : str or callable
        A name of ``OVERLAP_SCORERS`` or a function of (premise, hypothesis).

    Returns
    -------
    float
        0..1 for ``whitespace``, ``clark``, ``jaccard`` and ``full``; up to 2 for ``qqp``; unbounded for ``matches``.

    Raises
    ------
    InputError
        The scorer is not known, the pair is neither a Pair nor two texts, or the score is not finite.

    Examples
    --------
    >>> overlap(("The dog sleeps .", "The cat sleeps !"))
    0.6666666666666666
    >>> overlap(("A big dog sleeps", "A dog sleeps"), "full")
    1.0
    """
    return float(overlap_scores([pair], scorer)[0])


def overlap_scores(
    pairs: Iterable[Pair | tuple[str, str]], scorer: str | Scorer = "whitespace"
) -> npt.NDArray[np.float64]:
    """Word overlap of every pair, float64 [n]. Parameters and errors as :func:`overlap`."""
    name, score = find_scorer(scorer)
    scores = []
    for at, pair in enumerate(pairs):
        if isinstance(pair, Pair):
            premise, hypothesis = pair.premise, pair.hypothesis
        elif isinstance(pair, tuple) and [type(text) for text in pair] == [str, str]:
            premise, hypothesis = pair
        else:
            raise InputError(f"element {at} is neither a Pair nor a tuple (premise, hypothesis): {pair!r}")
        scores.append(float(score(premise, hypothesis)))
        if not np.isfinite(scores[-1]):
            raise InputError(
                f"scorer {name!r} gave {scores[-1]} for premise {premise!r} and hypothesis {hypothesis!r}; "
                "it must return a finite number"
            )
    return np.array(scores, dtype=np.float64)
