"""Sharpness control: optima against closed forms and brute force, the released settings, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pyneuro.errors import InputError
from pyneuro.mitigation import fit_sharpness


@pytest.fixture(scope="module")
def tables() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    bias = rng.dirichlet([4, 3, 3], 400)
    main = special.softmax(4 * bias + rng.normal(0, 0.5, (400, 3)), axis=1)
    return main, bias


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return (p * (np.log(p) - np.log(q))).sum(1)


def test_the_sharpness_of_a_main_model_that_is_its_bias_sharpened(tables: tuple[np.ndarray, np.ndarray]) -> None:
    """KL(softmax(3.7 P_b) ‖ softmax(c P_b)) is 0 at c = 3.7."""
    bias = tables[1]
    found = fit_sharpness(special.softmax(3.7 * bias, axis=1), bias, of="te_model")
    assert found.c == pytest.approx(3.7, abs=1e-5) and found.loss == pytest.approx(0, abs=1e-12)


def test_at_the_optimum_means_under_both_distributions_agree(tables: tuple[np.ndarray, np.ndarray]) -> None:
    """The slope of KL(P_m ‖ softmax(c P_b)) in c is E_softmax[P_b] − E_main[P_b]."""
    main, bias = tables
    c = fit_sharpness(main, bias, of="te_model").c
    model = special.softmax(c * bias, axis=1)
    assert (model * bias).sum(1).mean() == pytest.approx((main * bias).sum(1).mean(), abs=1e-7)


@pytest.mark.parametrize("of", ["tie_a", "te_model"])
@pytest.mark.parametrize("objective", ["paper", "released"])
def test_objectives_are_what_their_formulas_say(tables: tuple[np.ndarray, np.ndarray], of: str, objective: str) -> None:
    main, bias = (t[:50] for t in tables)
    found = fit_sharpness(main, bias, of=of, objective=objective)
    sigmoid = special.log_expit

    def loss(c: float) -> float:
        if (of, objective) == ("tie_a", "paper"):
            return kl(special.softmax(sigmoid(bias + main), axis=1), special.softmax(sigmoid(bias + c), axis=1)).mean()
        if objective == "paper":
            return kl(main, special.softmax(c * bias, axis=1)).mean()
        inner = sigmoid(bias + main) if of == "tie_a" else main
        return kl(bias, special.softmax(sigmoid(c + inner), axis=1)).mean() / 3

    assert found.loss == pytest.approx(loss(found.c), rel=1e-9)
    around = [loss(c) for c in np.linspace(*found.curve["c"].iloc[[0, -1]], 2001)]
    assert found.loss <= min(around) + 1e-9
    np.testing.assert_allclose(
        found.curve["loss"].iloc[::40], [loss(c) for c in found.curve["c"].iloc[::40]], rtol=1e-9
    )


def test_a_grid_comes_close_and_one_c_a_class_does_no_worse(tables: tuple[np.ndarray, np.ndarray]) -> None:
    main, bias = tables
    exact, grid = (fit_sharpness(main, bias, of="te_model", solver=solver) for solver in ("exact", "grid"))
    assert abs(exact.c - grid.c) < 0.26 and exact.loss <= grid.loss
    each = fit_sharpness(main, bias, of="te_model", per_class=True)
    assert np.shape(each.c) == (3,) and each.loss <= exact.loss + 1e-9


def test_the_published_steps_stop_short(tables: tuple[np.ndarray, np.ndarray]) -> None:
    """16 epochs of ⌈400 / 64⌉ steps of about 1e-4 each: c moves from 1/3 by at most 0.0112."""
    main, bias = tables
    found = fit_sharpness(main, bias, of="te_model", objective="released", solver="published")
    assert 0.005 < abs(found.c - 1 / 3) <= 16 * 7 * 1.05e-4
    assert found.c == fit_sharpness(main, bias, of="te_model", objective="released", solver="published").c
    assert np.shape(fit_sharpness(main, bias, solver="published", per_class=True).c) == (3,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "te"}, "of = 'te'"),
        ({"objective": "guess"}, "objective = 'guess'"),
        ({"solver": "guess"}, "solver = 'guess'"),
        ({"fusion": "guess"}, "fusion = 'guess'"),
        ({"solver": "grid", "per_class": True}, "grows beyond use"),
    ],
)
def test_bad_options_are_named(tables: tuple[np.ndarray, np.ndarray], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_sharpness(*tables, **options)
