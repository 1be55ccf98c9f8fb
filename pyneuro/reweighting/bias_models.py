"""Bias models: classifiers that can do nothing but the shortcut. Linear ones, by scikit-learn."""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyneuro.data import LABELS, Pair
from pyneuro.data.balance import Classes
from pyneuro.data.overlap import Scorer, words
from pyneuro.errors import InputError, is_number, is_whole
from pyneuro.reweighting.features import Vectors, find_feature_set, overlap_features
from pyneuro.reweighting.predictions import BiasPredictions

MAX_STEPS = 1000


class FittedBiasModel(Protocol):
    """A bias model that has been fitted."""

    def predict(self, pairs: Sequence[Pair]) -> BiasPredictions:
        """Class probabilities of pairs, whose ids differ."""


class BiasModel(Protocol):
    """A recipe for a bias model; ``fit`` leaves it as it is."""

    def fit(self, pairs: Sequence[Pair]) -> FittedBiasModel:
        """Fit to labelled pairs."""


@dataclass(frozen=True, eq=False)
class LinearBias:
    """Made by ``OverlapModel.fit`` and ``HypothesisModel.fit``.

    Attributes
    ----------
    classes : tuple of str [K]
    columns : tuple of str [F]
        Names of the features.
    regression : sklearn.linear_model.LogisticRegression
        Fitted; classes are numbers, in the order of `classes`.
    features : callable
        From pairs to the matrix [n, F] that the regression takes.
    """

    classes: tuple[str, ...]
    columns: tuple[str, ...] = field(repr=False)
    regression: Any
    features: Callable[[Sequence[Pair]], Any] = field(repr=False)

    def predict(self, pairs: Sequence[Pair]) -> BiasPredictions:
        """Class probabilities of pairs, whose ids differ."""
        ids = [pair.id for pair in pairs]
        return BiasPredictions(ids, self.classes, self.regression.predict_proba(self.features(pairs)))


@dataclass(frozen=True, eq=False)
class OverlapModel:
    """Logistic regression on what premise and hypothesis share.

    Classes are weighted so that each counts as much as another.

    Parameters
    ----------
    features : "clark2019", "clark2019_words", "notes" or "overlap"
        As for ``overlap_features``. The first two tell entailment from non-entailment (``three_classes()`` of their
        predictions shares the rest out), the others all labels.
    c : float, optional
        Inverse strength of the L2 penalty. Default: 100 for Clark et al.'s, 0.01 for the others.
    scorer, vectors
        As for ``overlap_features``.

    References
    ----------
    Clark, Yatskar and Zettlemoyer 2019, EMNLP; Udomcharoenchaikit et al. 2022, EMNLP.

    Examples
    --------
    >>> pairs = [Pair("a", "A dog ran.", "A dog ran.", "entailment"), Pair("b", "A dog ran.", "It snows.", "neutral")]
    >>> OverlapModel("overlap", c=10.0).fit(pairs).predict(pairs).probabilities.argmax(1).tolist()
    [0, 1]
    """

    features: str
    c: float | None = None
    scorer: str | Scorer = "whitespace"
    vectors: Vectors | None = None

    def fit(self, pairs: Sequence[Pair]) -> LinearBias:
        """Fit to labelled pairs.

        Raises
        ------
        InputError
            Where scikit-learn is not installed, for pairs without label, fewer than two classes, and as
            ``overlap_features``.

        Warns
        -----
        UserWarning
            A feature is the same for every pair, so that the model does not see it.
        """
        published = find_feature_set(self.features)
        gold, classes = gold_classes(pairs, published.classes)
        regression = _regression(published.c if self.c is None else self.c, published.solver)

        def matrix(some: Sequence[Pair]) -> npt.NDArray[np.float64]:
            return overlap_features(some, self.features, scorer=self.scorer, vectors=self.vectors).to_numpy()

        table = matrix(pairs)
        for name, column in zip(published.columns, table.T, strict=True):
            if np.ptp(column) == 0:
                warnings.warn(f"feature {name!r} is {column[0]:g} for every pair: it tells nothing", stacklevel=2)
        return LinearBias(classes, published.columns, regression.fit(table, gold), matrix)


@dataclass(frozen=True, eq=False)
class HypothesisModel:
    """Logistic regression on which n-grams of words the hypothesis has; the premise is not looked at.

    Parameters
    ----------
    ngrams : int
        Longest n-gram, from 1.
    min_pairs : int
        N-grams of fewer pairs are left out.
    c : float
        Inverse strength of the L2 penalty.

    References
    ----------
    Poliak, Naradowsky, Haldar, Rudinger and Van Durme, "Hypothesis Only Baselines in Natural Language Inference", *SEM
    2018; Gururangan et al., "Annotation Artifacts in Natural Language Inference Data", NAACL 2018.
    """

    ngrams: int = 2
    min_pairs: int = 2
    c: float = 0.1

    def fit(self, pairs: Sequence[Pair]) -> LinearBias:
        """Fit to labelled pairs.

        Raises
        ------
        InputError
            Where scikit-learn is not installed, for pairs without label, fewer than two classes, and hypotheses that
            share no n-gram.
        """
        for name, value in (("ngrams", self.ngrams), ("min_pairs", self.min_pairs)):
            if not is_whole(value) or value < 1:
                raise InputError(f"{name} = {value!r}; pass a whole number from 1")
        gold, classes = gold_classes(pairs, "label")
        regression = _regression(self.c, "lbfgs")
        counter = _sklearn("feature_extraction.text").CountVectorizer(
            analyzer="word",
            tokenizer=words,
            lowercase=False,
            token_pattern=None,
            ngram_range=(1, self.ngrams),
            min_df=self.min_pairs,
            binary=True,
            dtype=np.float64,
        )
        try:
            table = counter.fit_transform([pair.hypothesis for pair in pairs])
        except ValueError as error:
            raise InputError(
                f"no n-gram stands in {self.min_pairs} hypotheses of {len(pairs)}; pass more pairs, or a smaller "
                "min_pairs"
            ) from error

        def matrix(some: Sequence[Pair]) -> Any:
            return counter.transform([pair.hypothesis for pair in some])

        return LinearBias(classes, tuple(counter.get_feature_names_out()), regression.fit(table, gold), matrix)


def gold_classes(pairs: Sequence[Pair], classes: Classes) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Gold class [n] of every pair, and the classes there are, in the order of ``LABELS``.

    Raises InputError for pairs without label, and where there is one class only.
    """
    labels: list[str] = []
    for pair in pairs:
        if pair.label is None:
            raise InputError(f"pair {pair.id!r} has no label to fit to; leave it out")
        labels.append("non-entailment" if classes == "entailment" and pair.label != "entailment" else pair.label)
    present = tuple(label for label in LABELS if label in set(labels))
    if len(present) < 2:
        raise InputError(
            f"{len(pairs)} pairs with label {', '.join(present) or '(none)'}; a bias model needs pairs of two classes "
            "or more"
        )
    return np.array([present.index(label) for label in labels]), present


def _regression(c: float, solver: str) -> Any:
    if not is_number(c) or not 0 < c < math.inf:
        raise InputError(f"c = {c!r}; pass a number above 0, the inverse strength of the penalty")
    made = _sklearn("linear_model").LogisticRegression
    return made(C=c, class_weight="balanced", solver=solver, max_iter=MAX_STEPS)


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise InputError("linear bias models need scikit-learn; pip install 'pyneuro[bias]'") from error
