"""Predictions for training pairs by bias models that have not seen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyneuro.data import Pair
from pyneuro.data.draw import check_seed, draw_key
from pyneuro.data.roles import text_key
from pyneuro.errors import InputError, is_whole
from pyneuro.reweighting.bias_models import BiasModel
from pyneuro.reweighting.predictions import BiasPredictions


def cross_fit(model: BiasModel, pairs: Sequence[Pair], folds: int = 5, seed: int = 0) -> BiasPredictions:
    """Predict every pair by a bias model fitted to the pairs of the other folds (k-fold cross-fitting; Stone 1974).

    A model that saw a pair is surer of it than the shortcut alone would make it; its weights then punish pairs for
    having been in the training set. Pairs with the same texts, case and white space aside, share a fold. Within every
    label the folds are equally large to within one group of such pairs.

    Parameters
    ----------
    model : BiasModel
        ``OverlapModel``, ``HypothesisModel``, ``ShallowModel``, or anything with ``fit(pairs)`` that returns something
        with ``predict(pairs)``.
    pairs : sequence of Pair
        With labels, and with ids that differ.
    folds : int
        2 or more.
    seed : int
        The same seed and pairs give the same folds on any machine, in whatever order the pairs stand.

    Returns
    -------
    BiasPredictions
        In the order of `pairs`.

    Raises
    ------
    InputError
        As ``model.fit``, for repeated ids, more folds than different pairs, and where a fold's model knows other
        classes than the first one's.
    """
    seed = check_seed(seed)
    if not is_whole(folds) or folds < 2:
        raise InputError(f"folds = {folds!r}; pass a whole number from 2")
    if len({pair.id for pair in pairs}) < len(pairs):
        raise InputError("some pairs have the same id; predictions are kept by id, so make ids distinct")
    fold = assign_folds(pairs, folds, seed)
    classes: tuple[str, ...] = ()
    table = np.empty((len(pairs), 0))
    for number in range(folds):
        inside = fold == number
        fitted = model.fit([pair for pair, held_out in zip(pairs, inside, strict=True) if not held_out])
        found = fitted.predict([pair for pair, held_out in zip(pairs, inside, strict=True) if held_out])
        if not classes:
            classes, table = found.classes, np.empty((len(pairs), len(found.classes)))
        if found.classes != classes:
            raise InputError(
                f"without fold {number} the classes are {', '.join(found.classes)}, without fold 0 "
                f"{', '.join(classes)}; pass more pairs of every class, or leave the rare one out"
            )
        table[inside] = found.probabilities
    return BiasPredictions([pair.id for pair in pairs], classes, table)


def assign_folds(pairs: Sequence[Pair], folds: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Fold [n] of every pair, from 0. Raises InputError where a fold would be empty."""
    groups: dict[tuple[str, str], list[int]] = {}
    for position, pair in enumerate(pairs):
        groups.setdefault(text_key(pair), []).append(position)
    if len(groups) < folds:
        raise InputError(f"{len(groups)} different pairs for {folds} folds; pass more pairs, or fewer folds")

    def order(texts: tuple[str, str]) -> tuple[list[str], bytes]:
        # By label first, so that dealing in turn gives every fold its share of each.
        return sorted({pairs[i].label or "" for i in groups[texts]}), draw_key(seed, "folds", *texts)

    out = np.empty(len(pairs), dtype=np.int64)
    for turn, texts in enumerate(sorted(groups, key=order)):
        out[groups[texts]] = turn % folds
    return out
