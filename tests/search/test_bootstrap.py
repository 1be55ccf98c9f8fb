"""The bootstrap of a search: the weighted means of its samples' effects, and what cannot have one."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.baselines import neurons_in_batch
from pyneuro.effects.bootstrap import poisson_weights
from pyneuro.errors import InputError
from pyneuro.search import search
from pyneuro.sites import NeuronSet
from tests.search.oracle import random_values
from tests.tiny import PAIRS

SITES = ["L1.V.*", "L2.I.*"]
COLUMNS = ["boot_se", "boot_low", "boot_high"]


def by_hand(effects: np.ndarray, ci: float, kept: list[int], replicates: int = 50) -> np.ndarray:
    """Columns [3, N] of effects [samples, N]."""
    weights = np.stack([poisson_weights(replicates, 0, sample) for sample in kept])
    weights = weights[:, weights.sum(axis=0) > 0]
    means = weights.T @ effects[kept] / weights.sum(axis=0)[:, None]
    return np.stack([means.std(axis=0, ddof=1), *np.quantile(means, [0.5 - ci / 2, 0.5 + ci / 2], axis=0)])


@pytest.mark.parametrize("kind", ["neurons", "sets"])
def test_every_treatment_and_the_contrast_have_one(kind, clf):
    sites = SITES if kind == "neurons" else {name: NeuronSet.parse(name, clf.shape) for name in SITES}
    values = random_values(clf, "HOL", "LOL")
    options = {"sites": sites, "backend": "reference", "precision": "float64"}
    found = search(clf, PAIRS, values, bootstrap=50, ci=0.8, **options)
    alone = [search(clf, pair, values, **options) for pair in PAIRS]
    tables = [(found.top(10**6, name, by="n"), [a.top(10**6, name, by="n") for a in alone]) for name in ("HOL", "LOL")]
    for table, single in [*tables, (found.contrast(), [a.contrast() for a in alone])]:
        effects = np.stack([one["nie"] for one in single])
        expected = by_hand(effects, 0.8, list(range(len(PAIRS))))
        np.testing.assert_allclose(table[COLUMNS].to_numpy().T, expected, rtol=1e-9, atol=1e-15)


def test_samples_below_the_floor_are_not_drawn(clf):
    values = random_values(clf, "HOL")
    options = {"sites": SITES, "backend": "reference", "precision": "float64"}
    alone = [search(clf, pair, values, **options).frame() for pair in PAIRS]
    base = np.array([np.abs(one["diff"] / one["nie"]).median() for one in alone])
    kept = np.flatnonzero(base > np.median(base)).tolist()
    found = search(clf, PAIRS, values, bootstrap=50, probability_floor=float(np.median(base)), **options).frame()
    expected = by_hand(np.stack([one["nie"] for one in alone]), 0.95, kept)
    np.testing.assert_allclose(found[COLUMNS].to_numpy().T, expected, rtol=1e-9, atol=1e-15)


def test_baselines_take_it_too(clf):
    values = random_values(clf, "HOL", "LOL")
    found = neurons_in_batch(clf, PAIRS[:3], values, sites=SITES, bootstrap=30).frame()
    exact = search(clf, PAIRS[:3], values, sites=SITES, bootstrap=30).frame()
    np.testing.assert_allclose(found["boot_se"], exact["boot_se"], rtol=1e-2, atol=1e-6)


def test_without_one_there_are_no_columns_and_the_manifest_says_which(clf):
    values = random_values(clf, "HOL")
    plain = search(clf, PAIRS[:2], values, sites=SITES)
    assert not set(COLUMNS) & set(plain.frame().columns)
    assert plain.manifest["settings"]["bootstrap"] == 0
    assert search(clf, PAIRS[:2], values, sites=SITES, bootstrap=20).manifest["settings"]["bootstrap"] == 20


@pytest.mark.parametrize("wrong", [-1, 1, 19, 2.5, 100.0, "100", None, True, False])
def test_what_is_no_number_of_replicates_is_refused(wrong, clf):
    with pytest.raises(InputError, match=r"bootstrap = .* from 20"):
        search(clf, PAIRS, random_values(clf, "HOL"), sites=SITES, bootstrap=wrong)


def test_one_sample_and_estimates_have_none(clf):
    values = random_values(clf, "HOL")
    with pytest.raises(InputError, match="single sample"):
        search(clf, PAIRS[:1], values, sites=SITES, bootstrap=20)
    for method in ("estimate", "linear"):
        with pytest.raises(InputError, match="use method='exact'"):
            search(clf, PAIRS, values, sites=SITES, bootstrap=20, method=method)
