"""Weights of samples by hand, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.errors import InputError
from pyneuro.reweighting import sample_weights

BIAS = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5]])
GOLD = np.array([0, 2, 2, 0])
EASY = np.array([0.7, 0.2, 0.8, 0.25])


@pytest.mark.parametrize(
    ("kind", "want"),
    [("one_minus", 1 - EASY), ("one_minus_squared", (1 - EASY) ** 2), ("inverse_propensity", 1 / EASY)],
)
def test_weights_have_mean_one_and_the_stated_ratios(kind: str, want: np.ndarray) -> None:
    np.testing.assert_allclose(sample_weights(BIAS, GOLD, kind, trim=None), want / want.mean())


def test_amplifying_swaps_what_is_easy_and_what_is_hard() -> None:
    np.testing.assert_allclose(sample_weights(BIAS, GOLD, direction="amplify"), EASY / EASY.mean())


def test_propensities_are_trimmed_at_a_percentile() -> None:
    plain = 1 / EASY
    cut = np.minimum(plain, np.percentile(plain, 50))
    np.testing.assert_allclose(sample_weights(BIAS, GOLD, "inverse_propensity", trim=50), cut / cut.mean())


@pytest.mark.parametrize(
    ("bias", "gold", "options", "message"),
    [
        (BIAS * 2, GOLD, {}, "no probabilities"),
        (BIAS, GOLD[:2], {}, "pass 4 whole numbers"),
        (BIAS, GOLD + 1, {}, r"labels lie in 1\.\.3"),
        (BIAS, GOLD * 1.0, {}, "float64"),
        (BIAS, GOLD, {"kind": "guess"}, "kind = 'guess'"),
        (BIAS, GOLD, {"direction": "guess"}, "direction = 'guess'"),
        (BIAS, GOLD, {"kind": "inverse_propensity", "trim": 0}, "trim = 0"),
        (np.eye(3), np.arange(3), {}, "all weights are 0"),
    ],
)
def test_bad_input_is_named(bias: np.ndarray, gold: np.ndarray, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_weights(bias, gold, **options)
