"""Responses against 60-digit arithmetic that evaluates both runs and subtracts."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyneuro.effects import RESPONSES, Response
from pyneuro.errors import InputError

RATIO = ("probability", "odds")

BASES = {
    "ordinary": [1.25, -0.5, 0.25],
    "p near 1": [30.0, -4.0, 1.0],
    "p almost 1": [60.0, -20.0, 0.0],
    "p near 0": [-24.0, 1.0, 2.0],
    "all equal": [0.5, 0.5, 0.5],
    "two classes": [0.75, -0.125],
    "five classes": [0.75, -0.125, 3.0, -7.0, 1.0],
}
SCALES = [1e-12, 1e-9, 1e-6, 1e-3, 0.05, 0.24, 0.26, 1.0, 5.0, 29.0, 31.0, 80.0]


def exact(response: Response, z: list[float], delta: list[float]) -> dict[str, mpmath.mpf]:
    """The definition in 400 digits: evaluate the base run and the patched run, then compare."""
    with mpmath.workdps(400):
        before = [mpmath.mpf(v) for v in z]
        after = [mpmath.mpf(v) + mpmath.mpf(d) for v, d in zip(z, delta, strict=True)]

        def softmax(logits: list[mpmath.mpf]) -> list[mpmath.mpf]:
            total = mpmath.fsum(mpmath.exp(v) for v in logits)
            return [mpmath.exp(v) / total for v in logits]

        def value(logits: list[mpmath.mpf]) -> mpmath.mpf:
            p, c = softmax(logits), response.target
            odds = p[c] / mpmath.fsum(p[j] for j in range(len(p)) if j != c)
            match response.name:
                case "probability":
                    return p[c]
                case "odds":
                    return odds
                case "log_odds":
                    return mpmath.log(odds)
                case "logit_difference":
                    foils = [j for j in range(len(p)) if j != c] if response.foil is None else [response.foil]
                    return logits[c] - mpmath.fsum(logits[j] for j in foils) / len(foils)
                case "kl":
                    base = softmax(before)
                    return mpmath.fsum(base[j] * mpmath.log(base[j] / p[j]) for j in range(len(p)))
                case "flip":
                    return mpmath.mpf(int(np.argmax([float(v) for v in logits]) != int(np.argmax(z))))

        r, r_patched = value(before), value(after)
        if response.name in ("kl", "flip"):
            r = mpmath.mpf(0)
        out = {"base": r, "difference": r_patched - r}
        out["effect"] = r_patched / r - 1 if response.name in RATIO else out["difference"]
        if response.name in RATIO:
            out["log_ratio"] = mpmath.log(r_patched / r)
        return out


def relative_error(got: float, want: mpmath.mpf) -> float:
    if want == 0:
        return abs(float(got))
    with mpmath.workdps(400):
        return float(abs((mpmath.mpf(float(got)) - want) / want))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("logits", BASES.values(), ids=list(BASES))
@pytest.mark.parametrize("name", [name for name in RESPONSES if name != "flip"])
def test_changes_of_any_size_are_exact_to_twelve_digits(name: str, logits: list[float], scale: float) -> None:
    directions = np.random.default_rng(3).uniform(-1, 1, size=(6, len(logits)))
    delta = scale * np.concatenate([directions, np.eye(len(logits)), -np.eye(len(logits))])
    response = Response(name, target=0)
    got = response.terms(logits, delta)
    for row in range(len(delta)):
        want = exact(response, logits, delta[row].tolist())
        for quantity, value in want.items():
            actual = getattr(got, quantity) if quantity == "base" else getattr(got, quantity)[row]
            assert relative_error(actual, value) < 1e-12, (quantity, delta[row], actual, value)


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("name", RESPONSES)
def test_every_class_can_be_the_target(name: str, target: int) -> None:
    logits, delta = [1.25, -0.5, 0.25], [0.5, 2.0, -0.75]
    response = Response(name, target)
    want = exact(response, logits, delta)
    got = response.terms(logits, [delta])
    assert got.effect[0] == pytest.approx(float(want["effect"]), rel=1e-13)
    assert got.difference[0] == pytest.approx(float(want["difference"]), rel=1e-13)
    assert response.base(logits) == got.base == pytest.approx(float(want["base"]), rel=1e-13)


def test_a_named_foil_replaces_the_mean_of_the_others() -> None:
    logits, delta = [1.0, 2.0, 5.0], [[0.5, 0.25, 0.0]]
    assert Response("logit_difference", 0, foil=1).terms(logits, delta).effect[0] == 0.25
    assert Response("logit_difference", 0, foil=1).base(logits) == -1.0
    assert Response("logit_difference", 0).terms(logits, delta).effect[0] == 0.375
    assert Response("logit_difference", 0).base(logits) == -2.5


@given(
    logits=st.lists(st.floats(-300, 300), min_size=2, max_size=5),
    name=st.sampled_from(RESPONSES),
    rows=st.integers(1, 3),
)
def test_a_neuron_replaced_by_its_own_value_has_exactly_no_effect(logits: list[float], name: str, rows: int) -> None:
    got = Response(name, 0).terms(logits, np.zeros((rows, len(logits))))
    for values in (got.effect, got.difference, *([got.log_ratio] if name in RATIO else [])):
        assert (values == 0.0).all()
        assert not np.signbit(values).any()


@given(
    logits=st.lists(st.floats(-50, 50), min_size=2, max_size=5),
    name=st.sampled_from(RESPONSES),
    shift=st.integers(-8, 8),
)
def test_a_shift_of_all_logits_together_has_exactly_no_effect(logits: list[float], name: str, shift: int) -> None:
    got = Response(name, 0).terms(logits, np.full((1, len(logits)), 0.25 * shift))
    assert got.effect[0] == got.difference[0] == 0.0


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("size", [1e2, 1e3, 1e5])
def test_huge_changes_stay_finite_in_the_difference_and_the_logarithm(name: str, size: float) -> None:
    logits = np.array([2.0, -1.0, 0.5])
    delta = size * np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 1], [1, 1, -1]])
    got = Response(name, 0).terms(logits, delta)
    if name != "odds":  # the odds themselves leave float64 beyond exp(709)
        assert np.isfinite(got.difference).all()
    if name in RATIO:
        assert np.isfinite(got.log_ratio).all()
        for row in range(len(delta)):
            want = exact(Response(name, 0), logits.tolist(), delta[row].tolist())["log_ratio"]
            assert relative_error(got.log_ratio[row], want) < 1e-12


def test_a_class_that_had_underflowed_comes_back_with_a_finite_difference() -> None:
    got = Response("probability", 0).terms([-900.0, 0.0], [[901.0, 0.0]])
    assert got.base == 0.0
    assert got.log_ratio[0] == pytest.approx(900.0 - np.log1p(np.exp(-1.0)))
    assert got.difference[0] == pytest.approx(1 / (1 + np.exp(-1.0)))


@given(
    delta=st.lists(st.floats(-40, 40), min_size=3, max_size=3),
    logits=st.lists(st.floats(-20, 20), min_size=3, max_size=3),
)
def test_kl_is_never_negative_and_is_pinskers_bound_at_least(delta: list[float], logits: list[float]) -> None:
    kl = Response("kl", 0).terms(logits, [delta]).effect[0]
    assert kl >= 0.0
    for c in range(3):
        moved = Response("probability", c).terms(logits, [delta]).difference[0]
        assert kl >= 2 * moved**2 * (1 - 1e-9) - 1e-300


def test_flip_counts_a_strict_overtaking_only() -> None:
    flip = Response("flip", 0)
    assert flip.terms(
        [1.0, 0.0, 0.0], [[0.0, 1.0, 0.0], [0.0, 1.0 + 1e-12, 0.0], [-2.0, 0.0, 0.0]]
    ).effect.tolist() == [0, 1, 1]
    assert flip.terms([1.0, 1.0, 0.0], [[0.0, 0.0, 0.0], [0.0, 1e-300, 0.0]]).effect.tolist() == [0, 1]


def test_float32_differences_are_read_as_they_are() -> None:
    delta = np.array([[1e-7, -3e-8, 2e-9]], dtype=np.float32)
    a = Response("probability", 0).terms(np.array([1, 2, 3], dtype=np.float32), delta)
    b = Response("probability", 0).terms([1.0, 2.0, 3.0], delta.astype(np.float64))
    assert a.effect.dtype == np.float64
    assert a.effect[0] == b.effect[0]


def test_no_patched_run_gives_empty_terms() -> None:
    for name in RESPONSES:
        assert len(Response(name, 0).terms([0.0, 1.0], np.zeros((0, 2)))) == 0


def test_a_contrast_is_the_paired_difference_of_two_treatments() -> None:
    response = Response("odds", 1)
    a = response.terms([0.0, 1.0, 2.0], [[0.5, 0.0, 0.0], [0.0, 0.1, 0.0]])
    b = response.terms([0.0, 1.0, 2.0], [[0.0, 0.0, 0.5], [0.0, 0.1, 0.0]])
    contrast = a - b
    assert np.array_equal(contrast.effect, a.effect - b.effect)
    assert np.array_equal(contrast.log_ratio, a.log_ratio - b.log_ratio)
    assert contrast.base == a.base
    assert contrast.effect[1] == contrast.difference[1] == 0.0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Response("accuracy", 0), "'accuracy' is not known; choose one of probability"),  # type: ignore[arg-type]
        (lambda: Response("odds", -1), "target -1"),
        (lambda: Response("odds", 0, foil=1), "foil 1 has no meaning for 'odds'"),
        (lambda: Response("logit_difference", 1, foil=1), "other than the target 1"),
        (lambda: Response("odds", 3).base([0.0, 1.0, 2.0]), r"target 3 is outside the 3 classes.*pass 0..2"),
        (lambda: Response("logit_difference", 0, foil=3).base([0.0, 1.0, 2.0]), "foil 3 is outside"),
        (lambda: Response("odds", 0).base([1.0]), "at least two classes"),
        (lambda: Response("odds", 0).base([[1.0, 2.0]]), r"shape \[1, 2\]"),
        (lambda: Response("odds", 0).base([1.0, float("nan")]), "not finite"),
        (lambda: Response("odds", 0).base([1000.0, 0.0]), "beyond float64; use the response 'log_odds'"),
        (lambda: Response("odds", 0).terms([1.0, 2.0], [1.0, 2.0]), r"shape \[2\]; expected \[N, 2\]"),
        (lambda: Response("odds", 0).terms([1.0, 2.0], [[1.0, 2.0, 3.0]]), r"expected \[N, 2\]"),
        (lambda: Response("odds", 0).terms([1.0, 2.0], [[0.0, 0.0], [float("inf"), 0.0]]), "delta row 1 is .*inf"),
        (
            lambda: (
                Response("odds", 0).terms([1.0, 2.0], [[0.0, 0.0]])
                - Response("odds", 0).terms([1.0, 3.0], [[0.0, 0.0]])
            ),
            "needs the same sample",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_its_mend(make: object, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()  # type: ignore[operator]
