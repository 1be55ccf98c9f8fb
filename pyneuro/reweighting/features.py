"""What a bias model sees of a pair: few numbers about shared words, nothing of the meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.data import Pair, overlap_scores
from pyneuro.data.balance import Classes
from pyneuro.data.overlap import Scorer, words
from pyneuro.errors import InputError
from pyneuro.reweighting.heuristics import heuristic_flags

Float = npt.NDArray[np.float64]
Vectors = Mapping[str, npt.ArrayLike]


@dataclass(frozen=True)
class FeatureSet:
    """Features of a published bias model, and how it was fitted on them.

    Attributes
    ----------
    columns : tuple of str
    c : float
        Inverse strength of the L2 penalty.
    classes : "label" or "entailment"
        Whether it tells all labels apart, or entailment from the rest.
    solver : str
        Of scikit-learn: "liblinear" penalises the intercept too, "lbfgs" does not.
    """

    columns: tuple[str, ...]
    c: float
    classes: Classes
    solver: str


_WORDS = ("subsequence", "all_in_premise", "share_in_premise", "log_length_difference")
_SIMILARITIES = ("similarity_mean", "similarity_lowest", "similarity_second_lowest")

FEATURE_SETS: Mapping[str, FeatureSet] = MappingProxyType(
    {
        # Clark et al. 2019: C = 100 stands for no penalty.
        "clark2019": FeatureSet((*_WORDS, *_SIMILARITIES), 100.0, "entailment", "liblinear"),
        # The same without word vectors.
        "clark2019_words": FeatureSet(_WORDS, 100.0, "entailment", "liblinear"),
        # Udomcharoenchaikit et al. 2022 as meant, and as released: there the two flags are 0 for every pair.
        "notes": FeatureSet(("subsequence", "constituent", "overlap"), 0.01, "label", "lbfgs"),
        "overlap": FeatureSet(("overlap",), 0.01, "label", "lbfgs"),
    }
)


def find_feature_set(name: str) -> FeatureSet:
    """By name. Raises InputError listing the names."""
    if name not in FEATURE_SETS:
        raise InputError(f"features = {name!r} is not one of {', '.join(FEATURE_SETS)}")
    return FEATURE_SETS[name]


def overlap_features(
    pairs: Sequence[Pair], features: str, *, scorer: str | Scorer = "whitespace", vectors: Vectors | None = None
) -> pd.DataFrame:
    """Features of pairs, float64 [n, F], a column a feature.

    ==========================  =========================================================================
    feature                     p and h: words of premise and hypothesis, lower case, without punctuation
    ==========================  =========================================================================
    subsequence                 1 where h is a run of words in p
    constituent                 1 where the hypothesis is a subtree of the premise's parse
    all_in_premise              1 where every word of h is in p
    share_in_premise            share of h that is in p
    log_length_difference       log max(\\|p\\| − \\|h\\|, 1)
    similarity_mean             s_w = the largest cosine of w in h with a word of p; Σ_w s_w / \\|h\\|
    similarity_lowest           the lowest s_w
    similarity_second_lowest    the lowest but one
    overlap                     of a scorer of ``pyneuro.data``
    ==========================  =========================================================================

    Words without a vector take no part in s; what has no value is 0.

    Parameters
    ----------
    pairs : sequence of Pair
    features : "clark2019", "clark2019_words", "notes" or "overlap"
        One of ``FEATURE_SETS``. "clark2019" needs `vectors`, "notes" parses (see ``heuristic_flags``).
    scorer : str or callable
        Of "overlap". The code of "notes" and "overlap" does not name its score; "whitespace" gives its 95th percentile
        on MNLI train, 0.8.
    vectors : mapping of str to float array [d], optional
        Word vectors, any length. Clark et al. used fastText's crawl-300d-2M.

    Raises
    ------
    InputError
        For unknown features, missing vectors, and as ``heuristic_flags``.

    References
    ----------
    Clark, Yatskar and Zettlemoyer, "Don't Take the Easy Way Out: Ensemble Based Methods for Avoiding Known Dataset
    Biases", EMNLP 2019; their tokens come from NLTK and keep punctuation. Udomcharoenchaikit et al., "Mitigating
    Spurious Correlation in NLU with Counterfactual Inference", EMNLP 2022.
    """
    columns = find_feature_set(features).columns
    if set(_SIMILARITIES) & set(columns) and vectors is None:
        raise InputError(
            f"features = {features!r} compares words by their vectors; pass vectors={{word: vector}}, or choose "
            "'clark2019_words', which does without"
        )
    make: dict[str, Callable[[], npt.ArrayLike]] = {
        "subsequence": lambda: heuristic_flags(pairs, ["subsequence"])["subsequence"],
        "constituent": lambda: heuristic_flags(pairs, ["constituent"])["constituent"],
        "all_in_premise": lambda: overlap_scores(pairs, "full"),
        "share_in_premise": lambda: overlap_scores(pairs, "clark"),
        "log_length_difference": lambda: [_log_length_difference(pair) for pair in pairs],
        "overlap": lambda: overlap_scores(pairs, scorer),
    }
    found = {name: np.asarray(make[name](), dtype=np.float64) for name in columns if name in make}
    if vectors is not None and set(_SIMILARITIES) <= set(columns):
        found |= dict(zip(_SIMILARITIES, _similarities(pairs, vectors).T, strict=True))
    return pd.DataFrame(found, columns=list(columns))


def _log_length_difference(pair: Pair) -> float:
    return float(np.log(max(len(words(pair.premise)) - len(words(pair.hypothesis)), 1)))


def _similarities(pairs: Sequence[Pair], vectors: Vectors) -> Float:
    """[n, 3]"""
    known: dict[str, Float | None] = {}

    def unit(word: str) -> Float | None:
        if word not in known:
            vector = np.asarray(vectors[word], dtype=np.float64) if word in vectors else None
            known[word] = None if vector is None or not vector.any() else vector / np.linalg.norm(vector)
        return known[word]

    out = np.zeros((len(pairs), len(_SIMILARITIES)))
    for row, pair in enumerate(pairs):
        h = words(pair.hypothesis)
        both = [[v for word in part if (v := unit(word)) is not None] for part in (h, words(pair.premise))]
        if all(both):
            best = np.sort((np.stack(both[0]) @ np.stack(both[1]).T).max(1))
            out[row] = best.sum() / len(h), best[0], best[1] if len(best) > 1 else 0.0
    return out
