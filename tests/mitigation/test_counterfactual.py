"""Counterfactual effects: an example by hand, identities, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyneuro.errors import InputError
from pyneuro.mitigation import FUSIONS, counterfactual

MAIN, BIAS = [[0.5, 0.3, 0.2]], [[0.6, 0.2, 0.2]]


def draw(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), n), rng.dirichlet(np.ones(classes), n)


def test_an_example_by_hand() -> None:
    """log σ(x) = −log(1 + e^−x), worked out to six digits."""
    found = counterfactual(MAIN, BIAS, c=1 / 3)
    factual, artifact = [-0.287335, -0.474077, -0.513015], [-0.331632, -0.461622, -0.461622]
    nothing = -np.log1p(np.exp(-2 / 3))
    for got, want in (
        (found.te[0], np.array(factual) - nothing),
        (found.nde[0], np.array(artifact) - nothing),
        (found.tie_a[0], [0.044297, -0.012454, -0.051393]),
        (found.nie[0], [0.053485, -0.011433, -0.047252]),
        (found.int_med[0], [-0.009188, -0.001021, -0.004140]),
        (counterfactual(MAIN, BIAS, c_te=1 / 3).te_model[0], [0.3, 0.233333, 0.133333]),
        (found.te_model[0], [-0.1, 0.1, 0.0]),
    ):
        np.testing.assert_allclose(got, want, atol=1.5e-6)
    assert found.changed == {"te": 0, "nde": 0, "tie_a": 0, "nie": 0, "int_med": 1, "te_model": 1}


@given(st.integers(1, 20), st.integers(2, 5), st.integers(0, 99), st.sampled_from(FUSIONS), st.floats(0.01, 3))
def test_identities(n: int, classes: int, seed: int, fusion: str, c: float) -> None:
    main, bias = draw(n, classes, seed)
    found = counterfactual(main, bias, c, fusion=fusion)
    np.testing.assert_allclose(found.te, found.nde + found.tie_a, atol=1e-12)
    np.testing.assert_allclose(found.tie_a, found.nie + found.int_med, atol=1e-12)
    flat = np.full_like(bias, 1 / classes)
    np.testing.assert_allclose(
        counterfactual(main, flat, c, fusion=fusion).nde, 0, atol=1e-12
    )  # no artifact, no effect
    np.testing.assert_allclose(counterfactual(flat, bias, fusion=fusion).tie_a, 0, atol=1e-12)  # nothing in the text
    if fusion == "add":
        np.testing.assert_allclose(found.int_med, 0, atol=1e-12)  # additive: no interaction
        np.testing.assert_allclose(found.tie_a, main - c, atol=1e-12)


def test_classes_permute_with_their_scores() -> None:
    main, bias = draw(6, 3, 0)
    order = [2, 0, 1]
    for fusion in FUSIONS:
        plain, turned = (
            counterfactual(main, bias, fusion=fusion),
            counterfactual(main[:, order], bias[:, order], fusion=fusion),
        )
        np.testing.assert_allclose(turned.tie_a, plain.tie_a[:, order])


def test_a_constant_for_each_class() -> None:
    main, bias = draw(6, 3, 1)
    each = counterfactual(main, bias, c=[0.2, 0.2, 0.2], c_te=[1.0, 1.0, 1.0])
    one = counterfactual(main, bias, c=0.2, c_te=1.0)
    np.testing.assert_array_equal(each.tie_a, one.tie_a)
    np.testing.assert_array_equal(each.te_model, one.te_model)


@pytest.mark.parametrize(
    ("main", "bias", "options", "message"),
    [
        ([[0.5, 0.6, 0.2]], BIAS, {}, r"p_main: row 0 is \[0.5, 0.6, 0.2\], which are no probabilities"),
        (MAIN, [[1.2, -0.2, 0.0]], {}, "p_bias: row 0"),
        (MAIN, [[np.nan, 0.5, 0.5]], {}, "p_bias: row 0"),
        (MAIN, [[0.5, 0.5]], {}, r"p_main is \[1, 3\] and p_bias \[1, 2\]"),
        ([0.5, 0.5], BIAS, {}, r"must be \[samples, classes\]"),
        ([["a", "b"]], BIAS, {}, "no array of numbers"),
        (MAIN, BIAS, {"c": [0.1, 0.2]}, "c = "),
        (MAIN, BIAS, {"c_te": np.inf}, "c_te = inf"),
        (MAIN, BIAS, {"fusion": "guess"}, "fusion = 'guess'"),
    ],
)
def test_bad_input_is_named(main: object, bias: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        counterfactual(main, bias, **options)
