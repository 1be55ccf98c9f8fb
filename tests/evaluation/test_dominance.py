"""Almost stochastic dominance: closed forms of ε, its bound, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pyneuro.errors import InputError
from pyneuro.evaluation import almost_stochastic_dominance
from pyneuro.evaluation.dominance import violation

QUANTILES = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)


def epsilon_of_normals(shift: float, spread: float) -> float:
    """Of F = N(shift, (1 + spread)²) against N(0, 1): quantiles differ by D = shift + spread Z, and ε = E[D² 1(D < 0)]
    / E[D²]; for a normal D, E[D² 1(D < 0)] = (m² + s²) Φ(−m/s) − m s φ(m/s)."""
    m, s = shift, abs(spread)
    below = (m**2 + s**2) * stats.norm.cdf(-m / s) - m * s * stats.norm.pdf(m / s)
    return float(below / (m**2 + s**2))


@pytest.mark.parametrize(("shift", "spread"), [(0.5, 1.0), (-0.5, 1.0), (1.0, -0.5), (0.3, 0.2), (0.0, 1.0)])
def test_normals_have_the_closed_form(shift: float, spread: float) -> None:
    got = violation(shift + (1 + spread) * QUANTILES, QUANTILES)
    assert got == pytest.approx(epsilon_of_normals(shift, spread), abs=3e-3)


def test_steps_are_integrated_exactly() -> None:
    """F⁻¹ is 1, 4 on halves and G⁻¹ is 0, 3, 4 on thirds: gaps 1, −2, 1, 0 of widths 1/3, 1/6, 1/6, 1/3."""
    first, second = np.array([4.0, 1.0]), np.array([3.0, 4.0, 0.0])
    assert violation(first, second) == pytest.approx((4 / 6) / (1 / 3 + 4 / 6 + 1 / 6), rel=1e-12)


def test_it_is_the_limit_of_a_fine_sum() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.2, 1, 7), rng.normal(0, 1.2, 11)
    t = (np.arange(770_000) + 0.5) / 770_000
    gap = np.quantile(first, t, method="inverted_cdf") - np.quantile(second, t, method="inverted_cdf")
    assert violation(first, second) == pytest.approx((np.minimum(gap, 0) ** 2).sum() / (gap**2).sum(), rel=1e-9)


def test_both_directions_share_the_whole() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, 6), rng.normal(0, 1, 9)
    assert violation(first, second) + violation(second, first) == pytest.approx(1)
    assert violation(3 * first + 2, 3 * second + 2) == pytest.approx(violation(first, second))
    assert violation(first, first) == 0.5


def test_scores_apart_dominate_and_equal_scores_do_not() -> None:
    better, worse = [0.70, 0.72, 0.71, 0.74, 0.73], [0.6, 0.61, 0.62, 0.66, 0.63]
    found = almost_stochastic_dominance(better, worse)
    assert (found.violation, found.epsilon_min, found.n_first, found.n_second) == (0, 0, 5, 5)
    assert almost_stochastic_dominance(worse, better).epsilon_min == 1
    assert almost_stochastic_dominance(better, better).epsilon_min > 0.5


def test_the_bound_is_the_estimate_and_a_multiple_of_its_bootstrap_spread() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.5, 1, 40), rng.normal(0, 1.2, 50)
    found = {alpha: almost_stochastic_dominance(first, second, alpha=alpha) for alpha in (0.05, 0.2, 0.5)}
    assert found[0.5].epsilon_min == pytest.approx(found[0.5].violation)
    spread = (found[0.2].epsilon_min - found[0.2].violation) / 0.8416212335729143
    assert found[0.05].epsilon_min == pytest.approx(found[0.05].violation + 1.6448536269514722 * spread)
    own = np.random.default_rng(3)
    drawn = [violation(own.choice(first, 40), own.choice(second, 50)) for _ in range(3000)]
    assert spread == pytest.approx(np.std(drawn), rel=0.1)


def test_how_often_equal_models_are_told_apart_is_what_is_documented() -> None:
    rng = np.random.default_rng(4)
    bounds = np.array(
        [
            almost_stochastic_dominance(rng.normal(size=30), rng.normal(size=30), resamples=100).epsilon_min
            for _ in range(300)
        ]
    )
    assert 0.15 < (bounds < 0.5).mean() < 0.29 and (bounds < 0.2).mean() < 0.06


def test_bad_input_is_named() -> None:
    for first, options, message in (
        ([0.5], {}, r"first scores are \[1\]"),
        ([[0.5, 0.6]], {}, r"first scores are \[1, 2\]"),
        ([0.5, np.nan], {}, "first scores hold NaN"),
        ([0.5, 0.6], {"alpha": 0.7}, "alpha = 0.7"),
        ([0.5, 0.6], {"resamples": 5}, "resamples = 5"),
    ):
        with pytest.raises(InputError, match=message):
            almost_stochastic_dominance(first, [0.4, 0.5], **options)
    with pytest.raises(InputError, match="second scores hold NaN"):
        almost_stochastic_dominance([0.4, 0.5], [0.4, np.inf])
