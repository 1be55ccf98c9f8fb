"""p- and q-values of a result against hand-made tests, and the rankings that use them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from pyneuro.effects import Moments, Terms
from pyneuro.errors import InputError
from pyneuro.results import Result
from pyneuro.results.significance import p_values, q_values
from pyneuro.sites import ModelShape, NeuronSet

SHAPE = ModelShape(layers=2, hidden=8, heads=2, intermediate=16)
N = SHAPE.n_neurons


def result_of(effects: np.ndarray, ci: float = 0.95) -> Result:
    """Of effects [samples, N] under HOL, their squares under LOL, and the contrast."""
    treatments = {"HOL": effects, "LOL": effects**2, "contrast": effects - effects**2}
    moments = {name: Moments.zeros(N) for name in treatments}
    for name, values in treatments.items():
        for sample, row in enumerate(values):
            moments[name].update(Terms(row, row, row, 0.5), None, sample)
    contrast = moments.pop("contrast")
    return Result.from_moments(NeuronSet.all(SHAPE), moments, contrast, {}, ci)


def effects(samples: int = 12, seed: int = 0) -> np.ndarray:
    """A quarter of the neurons have a true effect; one has none whatever."""
    rng = np.random.default_rng(seed)
    mean = np.where(np.arange(N) % 4 == 0, 2.0, 0.0) * rng.uniform(0.2, 1, N)
    out = mean + rng.standard_normal((samples, N))
    out[:, 5] = 0.0
    return out


def by_hand(p: np.ndarray) -> np.ndarray:
    """Benjamini & Hochberg (1995): the smallest rate at which each test is rejected."""
    m, out = len(p), np.ones(len(p))
    order = sorted(range(m), key=lambda i: p[i])
    least = 1.0
    for rank in range(m, 0, -1):
        least = min(least, p[order[rank - 1]] * m / rank)
        out[order[rank - 1]] = least
    return out


@pytest.mark.parametrize("seed", range(5))
def test_q_values_are_those_of_benjamini_and_hochberg(seed: int) -> None:
    p = np.random.default_rng(seed).uniform(size=40) ** 2
    np.testing.assert_allclose(q_values(p), by_hand(p), rtol=1e-12)


def test_missing_tests_do_not_count() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.5, np.nan])
    q = q_values(p)
    np.testing.assert_array_equal(np.isnan(q), np.isnan(p))
    np.testing.assert_allclose(q[~np.isnan(p)], by_hand(p[~np.isnan(p)]), rtol=1e-12)
    assert np.isnan(q_values(np.full(3, np.nan))).all()
    assert len(q_values(np.zeros(0))) == 0


def test_p_values_are_those_of_the_t_test() -> None:
    data = effects()
    found = result_of(data).significance("HOL")
    moving = np.arange(N) != 5
    np.testing.assert_allclose(found["p"][moving], stats.ttest_1samp(data[:, moving], 0.0).pvalue, rtol=1e-9)
    assert found["p"][5] == 1.0


def test_p_values_agree_with_the_intervals() -> None:
    result = result_of(effects(), ci=0.9)
    frame, found = result.frame(), result.significance()
    clear = (frame["ci_low"] > 0) | (frame["ci_high"] < 0)
    np.testing.assert_array_equal(found["p"] < 0.1, clear)


@pytest.mark.parametrize(
    ("nie", "se", "n", "p"),
    [(0.0, 0.0, 5, 1.0), (0.1, 0.0, 5, 0.0), (0.1, np.nan, 1, np.nan), (np.nan, np.nan, 0, np.nan)],
    ids=["no effect", "no spread", "one sample", "no sample"],
)
def test_edges(nie: float, se: float, n: int, p: float) -> None:
    np.testing.assert_array_equal(p_values(np.array([nie]), np.array([se]), np.array([n])), [p])


def test_each_treatment_is_a_family_of_its_own() -> None:
    result = result_of(effects())
    both = result.significance()
    assert list(both) == ["site", "treatment", "nie", "se", "n", "p", "q", "significant"]
    for name in ("HOL", "LOL"):
        alone = result.significance(name)
        mine = both[both["treatment"] == name].reset_index(drop=True)
        np.testing.assert_allclose(alone["q"], by_hand(alone["p"].to_numpy()), rtol=1e-12)
        assert alone.equals(mine)
        assert set(alone["treatment"]) == {name}
    contrast = result.significance("contrast")
    assert set(contrast["treatment"]) == {"HOL - LOL"}
    np.testing.assert_allclose(contrast["q"], by_hand(contrast["p"].to_numpy()), rtol=1e-12)


def test_alpha_decides_what_is_significant_and_top_ranks_only_that() -> None:
    result = result_of(effects())
    few, many = (result.significance("HOL", alpha) for alpha in (0.01, 0.2))
    assert 0 < few["significant"].sum() < many["significant"].sum() < N
    for alpha, found in ((0.01, few), (0.2, many)):
        np.testing.assert_array_equal(found["significant"], found["q"] <= alpha)
        top = result.top(N, "HOL", absolute=True, significant=alpha)
        assert sorted(top["site"]) == sorted(found.loc[found["significant"], "site"])
        assert top["nie"].abs().is_monotonic_decreasing
    assert len(result.top(3, "HOL", significant=0.2)) == 3
    together = result.top(2 * N, significant=0.2)
    assert len(together) == result.significance(alpha=0.2)["significant"].sum()


def test_under_the_null_few_are_found() -> None:
    noise = np.random.default_rng(3).standard_normal((20, N))
    assert result_of(noise).significance("HOL")["significant"].sum() == 0
    assert not len(result_of(noise).top(5, "HOL", significant=0.05))


def test_one_sample_is_significant_of_nothing() -> None:
    found = result_of(effects(samples=1)).significance()
    assert found["p"].isna().all()
    assert found["q"].isna().all()
    assert not found["significant"].any()


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, True, "0.05", float("nan")])
def test_what_is_no_rate_is_refused(alpha: object) -> None:
    result = result_of(effects())
    ask: list[Callable[[], object]] = [lambda: result.significance(alpha=alpha), lambda: result.top(significant=alpha)]
    for question in ask:
        with pytest.raises(InputError, match="false discovery rate"):
            question()


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3", None])
def test_what_is_no_number_of_rows_is_refused(k: object) -> None:
    with pytest.raises(InputError, match="k = "):
        result_of(effects()).top(k)


def test_an_unknown_treatment_is_refused() -> None:
    with pytest.raises(InputError, match="treatment 'MOL'"):
        result_of(effects()).significance("MOL")
