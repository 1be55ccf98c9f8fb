"""Agreement of two halves of the samples, against numpy, pandas and counting."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pyneuro.effects import Moments, Terms
from pyneuro.errors import InputError
from pyneuro.results import Result
from pyneuro.results.reliability import correlation, recall, spearman_brown
from pyneuro.sites import MODULES, ModelShape, NeuronSet

SHAPE = ModelShape(layers=3, hidden=40, heads=4, intermediate=80)
N = SHAPE.n_neurons
SETS = {f"set {i}": NeuronSet(SHAPE, [i, i + 1]) for i in range(12)}


def result_of(noise: float = 1.0, samples: int = 40, sites: NeuronSet | dict[str, NeuronSet] | None = None) -> Result:
    """True effects of unit variance; HOL and LOL are independent."""
    rng = np.random.default_rng(0)
    sites = sites or NeuronSet.all(SHAPE)
    n = len(sites)
    mean, moments = rng.standard_normal((2, n)), [Moments.zeros(n) for _ in range(3)]
    for sample in range(samples):
        hol, lol = (Terms(e, e, e, 0.5) for e in mean + noise * np.sqrt(samples / 2) * rng.standard_normal((2, n)))
        for target, terms in zip(moments, (hol, lol, hol - lol), strict=True):
            target.update(terms, None, sample)
    return Result.from_moments(sites, {"HOL": moments[0], "LOL": moments[1]}, moments[2], {})


def top_of(values: pd.Series, percent: float) -> set[int]:
    return set(values.sort_values(ascending=False).index[: max(1, round(percent / 100 * len(values)))])


def test_every_module_and_all_of_them_against_pandas() -> None:
    result = result_of()
    found, frame = result.reliability(), result.frame()
    assert found["module"].tolist() == [*MODULES, "all"] * 2
    assert found["treatment"].tolist() == ["HOL"] * 7 + ["LOL"] * 7
    for row in found.to_dict("records"):
        mine = frame[frame["treatment"] == row["treatment"]]
        mine = mine if row["module"] == "all" else mine[mine["module"] == row["module"]]
        a, b = mine["nie_half_1"], mine["nie_half_2"]
        assert row["rows"] == len(mine)
        assert row["pearson"] == pytest.approx(a.corr(b), rel=1e-12)
        assert row["spearman"] == pytest.approx(a.corr(b, method="spearman"), rel=1e-12)
        assert row["reliability"] == pytest.approx(2 * a.corr(b) / (1 + a.corr(b)), rel=1e-12)
        for percent in (0.1, 1, 5):
            for kind, x, y in (("absolute", a.abs(), b.abs()), ("signed", a, b)):
                first, second = top_of(x, percent), top_of(y, percent)
                assert row[f"recall_{kind}_{percent}"] == pytest.approx(len(first & second) / len(first), abs=1e-12)


def test_the_correction_tells_how_a_whole_run_agrees_with_another() -> None:
    """Halves have noise of variance 1 on effects of variance 1; all samples have half of it."""
    found = result_of().reliability("HOL").set_index("module").loc["all"]
    assert found["pearson"] == pytest.approx(1 / 2, abs=0.06)
    assert found["reliability"] == pytest.approx(1 / (1 + 1 / 2), abs=0.06)


def test_without_noise_the_halves_agree_and_with_nothing_else_they_do_not() -> None:
    clear, blind = (result_of(noise).reliability("LOL").set_index("module").loc["all"] for noise in (1e-9, 1e9))
    for name in ("pearson", "spearman", "reliability", "recall_absolute_5", "recall_signed_1"):
        assert clear[name] > 0.999
        assert abs(blind[name]) < 0.2


def test_the_contrast_and_sets_have_a_reliability_too() -> None:
    contrast = result_of().reliability("contrast")
    assert set(contrast["treatment"]) == {"HOL - LOL"}
    sets = result_of(sites=SETS).reliability()
    assert sets["module"].tolist() == ["all", "all"]
    assert sets["rows"].tolist() == [12, 12]


def test_ties_at_the_cut_count_by_their_expectation() -> None:
    """Brute force: both orders at random, many times."""
    a, b = np.array([3.0, 1, 1, 1, 0, 0]), np.array([0.0, 0, 0, 2, 2, 0])
    rng, k, shared = np.random.default_rng(0), 3, []
    for _ in range(4000):
        first, second = (set(np.lexsort((rng.random(6), -v))[:k]) for v in (a, b))
        shared.append(len(first & second) / k)
    assert recall(a, b, 0.5) == pytest.approx(np.mean(shared), abs=0.02)
    assert recall(np.zeros(100), np.zeros(100), 0.05) == pytest.approx(0.05)


def test_too_little_to_compare_is_nan() -> None:
    assert np.isnan(correlation(np.ones(2), np.arange(2.0)))
    assert np.isnan(correlation(np.full(9, 0.1), np.arange(9.0)))
    assert np.isnan(recall(np.zeros(0), np.zeros(0), 0.01))
    assert np.isnan(spearman_brown(np.nan))
    assert spearman_brown(-1.0) == -np.inf
    one = result_of(samples=1).reliability("HOL")  # a half is empty
    assert one["module"].tolist() == ["all"]
    assert one["rows"].tolist() == [0]
    assert one.drop(columns=["treatment", "module", "rows"]).isna().all(axis=None)


def test_an_old_folder_is_told_apart() -> None:
    result = result_of()
    old = Result(result.manifest, result.frame().drop(columns=["nie_half_1", "nie_half_2"]), None)
    with pytest.raises(InputError, match=r"lacks the columns nie_half_1, nie_half_2; .* run the search again"):
        old.reliability()
