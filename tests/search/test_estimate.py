"""Estimates: unbiased, with intervals that cover, whatever is asked; linear predictions; budgets; resume."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import pyneuro as pn
from pyneuro.effects import Moments, Terms
from pyneuro.errors import InputError, ResumeError
from pyneuro.models import Classifier
from pyneuro.results import load_result
from pyneuro.search.estimate import sweep
from pyneuro.search.estimate.corrections import Corrections, DesignError, Prior, Taken
from pyneuro.search.estimate.predictor import Predictor
from pyneuro.search.estimate.tolerance import Tolerance
from tests.search.oracle import random_values
from tests.tiny import SamplePair, crossed, make_tiny

SITES = ["L0.AO.*", "L1.I.*", "L1.K.*", "L2.AO.*", "L2.V.*"]
LOOK = {"backend": "reference", "precision": "float64", "sites": SITES}


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0)


@pytest.fixture(scope="module")
def many() -> list[SamplePair]:
    return crossed(3)


@pytest.fixture(scope="module")
def values(clf: Classifier) -> pn.Values:
    return random_values(clf, "HOL", "LOL")


@pytest.fixture(scope="module")
def exact(clf: Classifier, many: list[SamplePair], values: pn.Values) -> pn.Result:
    return pn.search(clf, many, values, **LOOK)


def estimated(clf: Classifier, many: list[SamplePair], values: pn.Values, **options: object) -> pn.Result:
    return pn.search(clf, many, values, method="estimate", **{**LOOK, **options})


def test_unbiased_and_covered_over_seeds(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result
) -> None:
    truth, off, held, judged = exact.frame()["nie"].to_numpy(), [], 0, 0
    for seed in range(12):
        table = estimated(clf, many, values, seed=seed, tolerance=0.2).frame()
        off.append(table["nie"].to_numpy() - truth)
        sampled = table["design_se"].to_numpy() > 0
        inside = (table["design_low"] <= truth) & (truth <= table["design_high"])
        held, judged = held + int(inside[sampled].sum()), judged + int(sampled.sum())
        assert np.abs(off[-1][~sampled]).max(initial=0) <= 1e-10 * np.abs(truth).max()
    errors = np.array(off)
    noise = errors.std(0, ddof=1) / np.sqrt(len(errors))
    standard = errors.mean(0)[noise > 0] / noise[noise > 0]
    # Means over 12 seeds of unbiased estimates follow Student's t: mean 0, variance 11 / 9.
    assert abs(np.median(standard)) < 0.4
    assert 0.85 < held / judged < 0.995


def test_columns_of_an_estimate_belong_together(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result
) -> None:
    result = estimated(clf, many, values, tolerance=1e-6, tolerance_of="effect")
    found, wanted = result.frame(), exact.frame()
    assert result.manifest["run"]["neurons_on_every_sample"] > 0
    for column in ("nie", "log_nie", "diff", "ratio_of_means", "nie_entailment", "nie_neutral", "se", "ci_low", "n"):
        np.testing.assert_allclose(
            found[column], wanted[column], rtol=1e-5, atol=1e-6 * wanted[column].abs().max(), err_msg=column
        )
    contrast, paired = result.contrast(), exact.contrast()
    np.testing.assert_allclose(contrast["nie"], paired["nie"], rtol=1e-5, atol=1e-6 * paired["nie"].abs().max())
    assert (found["exact_pairs"] <= 24).all()
    assert (found["design_se"] <= 1e-6 * found["nie"].abs() + 1e-15).all()


def test_the_same_seed_gives_the_same_answer(clf: Classifier, many: list[SamplePair], values: pn.Values) -> None:
    first, second, other = (estimated(clf, many, values, seed=seed).frame() for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, second)
    assert (first["nie"] != other["nie"]).any()


@pytest.mark.parametrize("stop", [1, 9, 24, 27, 60])
def test_a_stopped_estimate_goes_on(
    clf: Classifier, many: list[SamplePair], values: pn.Values, tmp_path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    wanted = estimated(clf, many, values, tolerance=0.1)
    calls = 0
    predict = Predictor.predict

    def stopping(self: Predictor, encoding: object) -> object:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise KeyboardInterrupt
        return predict(self, encoding)

    monkeypatch.setattr(Predictor, "predict", stopping)
    with pytest.raises(KeyboardInterrupt):
        estimated(clf, many, values, tolerance=0.1, out=tmp_path)
    with pytest.raises(ResumeError, match="seed"):
        estimated(clf, many, values, tolerance=0.1, out=tmp_path, resume=True, seed=1)
    found = estimated(clf, many, values, tolerance=0.1, out=tmp_path, resume=True)
    pd.testing.assert_frame_equal(found.frame(), wanted.frame())
    pd.testing.assert_frame_equal(load_result(tmp_path).frame(), wanted.frame())
    assert calls < stop + 24 * 13


@pytest.mark.parametrize("torn", [Moments, Corrections])
def test_a_sample_half_added_is_not_kept(
    clf: Classifier, many: list[SamplePair], values: pn.Values, tmp_path, monkeypatch: pytest.MonkeyPatch, torn: type
) -> None:
    wanted = estimated(clf, many, values)
    monkeypatch.setattr(sweep, "SAVE_SECONDS", 0.0)
    name = "update" if torn is Moments else "add"
    whole, calls = getattr(torn, name), 0

    def interrupted(self: object, *arguments: object) -> None:
        nonlocal calls
        calls += 1
        whole(self, *arguments)
        if calls == 5:  # the second of three treatments, or before the sample is counted
            raise KeyboardInterrupt

    monkeypatch.setattr(torn, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        estimated(clf, many, values, out=tmp_path)
    found = estimated(clf, many, values, out=tmp_path, resume=True)
    pd.testing.assert_frame_equal(found.frame(), wanted.frame())


def test_a_budget_ends_with_what_was_reached(clf: Classifier, many: list[SamplePair], values: pn.Values) -> None:
    result = estimated(clf, many, values, tolerance=1e-3, budget=60)
    run = result.manifest["run"]
    assert run["ended"] == "budget spent" and run["tolerance_met"] < 1
    assert run["exact_pairs"] <= 100  # Poisson about the budget
    assert result.frame()["nie"].notna().all()
    hurried = estimated(clf, many, values, tolerance=1e-3, seconds=1e-9)
    assert hurried.manifest["run"]["exact_pairs"] == 0
    table = hurried.frame()
    assert table["design_se"].isna().sum() == (table["nie"] != 0).sum()


def test_linear_predicts_and_says_nothing_of_errors(
    clf: Classifier, many: list[SamplePair], values: pn.Values, exact: pn.Result
) -> None:
    truth = exact.frame()["nie"]
    off = {}
    for depth in ("inside", 0, 1, 3):
        table = pn.search(clf, many, values, method="linear", depth=depth, **LOOK).frame()
        off[depth] = float(np.linalg.norm(table["nie"] - truth) / np.linalg.norm(truth))
    assert off["inside"] < 0.9 and off[3] < 1e-9
    planned = pn.search(clf, many, values, method="linear", **LOOK).frame()
    last = planned["layer"] == 2
    np.testing.assert_allclose(planned["nie"][last], truth[last], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"tolerance_of": "guess"}, "tolerance_of"),
        ({"tolerance_top": 0}, "tolerance_top"),
        ({"budget": 0}, "budget"),
        ({"seconds": -1.0}, "seconds"),
        ({"seed": -1}, "seed"),
        ({"token": 1}, "token 0"),
        ({"depth": 1}, "no meaning for method 'estimate'"),
        ({"method": "linear", "depth": "bogus"}, "depth = 'bogus'"),
        ({"method": "linear", "depth": -1}, "depth = -1"),
        ({"method": "linear", "budget": 10}, "no meaning for method 'linear'"),
        ({"method": "exact", "seconds": 10}, "no meaning for method 'exact'"),
        ({"method": "exact", "tolerance": 0.2}, "no meaning for method 'exact'"),
        ({"method": "linear", "tolerance_of": "effect"}, "no meaning for method 'linear'"),
        ({"sites": {"a": None}}, "NeuronSet"),
    ],
)
def test_bad_options_are_refused(
    clf: Classifier, many: list[SamplePair], values: pn.Values, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pn.search(clf, many, values, **{"method": "estimate", **LOOK, **options})


def test_numbers_of_numpy_are_numbers(clf: Classifier, many: list[SamplePair], values: pn.Values, tmp_path) -> None:
    plain = estimated(clf, many, values, tolerance=0.5, tolerance_top=3, budget=50, seed=2)
    given = {"tolerance": np.float32(0.5), "tolerance_top": np.int64(3), "budget": np.int32(50), "seed": np.int64(2)}
    numpys = estimated(clf, many, values, out=tmp_path, **given)
    pd.testing.assert_frame_equal(numpys.frame(), plain.frame())
    pd.testing.assert_frame_equal(load_result(tmp_path).frame(), plain.frame())


def test_too_few_samples_are_refused(clf: Classifier, many: list[SamplePair], values: pn.Values) -> None:
    with pytest.raises(InputError, match="too few"):
        estimated(clf, many[:7], values)


def test_a_probability_floor_leaves_samples_out(clf: Classifier, many: list[SamplePair], values: pn.Values) -> None:
    probabilities = [float(clf.logits([clf.encode(p)]).softmax(-1)[0, 0]) for p in many]
    floor = float(np.median(probabilities))
    found = estimated(clf, many, values, probability_floor=floor)
    assert found.frame()["n"].max() == sum(p >= floor for p in probabilities)
    assert len(found.manifest["run"]["left_out_below_floor"]) == sum(p < floor for p in probabilities)


def test_the_prior_recovers_its_parameters() -> None:
    rng = np.random.default_rng(0)
    df, variance, taken = 8.0, 3.0, rng.integers(1, 6, 20_000)
    own = variance * df / stats.chi2.rvs(df, size=len(taken), random_state=rng)
    squares = own * stats.chi2.rvs(taken, random_state=rng)
    prior = Prior.fit(squares, taken)
    assert prior is not None
    assert prior.df == pytest.approx(df, rel=0.35) and prior.variance == pytest.approx(variance, rel=0.1)
    assert Prior.fit(squares[:5], taken[:5]) is None
    assert prior.surprised(np.array([1e6]), np.array([3])).all()


def test_half_widths_are_students() -> None:
    u = np.array([1.0, 4.0, 1.0, 2.0])
    corrections = Corrections.zeros(1, 1)
    for value in u:
        terms = [Terms(np.array([v]), np.array([v]), np.array([v]), 0.5) for v in (value, 0.0)]
        one = Taken(np.zeros(1, dtype=np.int64), np.zeros(1), np.ones(1), np.ones(1))
        corrections.add(one, terms[:1], terms[1:], None)
    error = DesignError.of(corrections, np.ones(1), [slice(0, 1)], np.zeros(1, dtype=bool))
    assert corrections.mean(corrections.total[0, 0])[0] == pytest.approx(u.mean())
    assert error.se[0, 0] == pytest.approx(u.std(ddof=1) / 2)  # no prior from a single neuron
    assert error.half_width(0.9)[0, 0] == pytest.approx(stats.t.ppf(0.95, 3) * u.std(ddof=1) / 2)


def test_one_draw_alone_says_nothing_of_its_error() -> None:
    corrections = Corrections.zeros(500, 1)
    rng = np.random.default_rng(0)
    u, w = rng.standard_normal((2, 500))
    terms = [Terms(v, v, v, 0.5) for v in (u, np.zeros(500))]
    pi = rng.random(500)
    corrections.add(Taken(np.arange(500), pi, np.exp(w), np.ones(500)), terms[:1], terms[1:], None)
    error = DesignError.of(corrections, np.ones(500), [slice(0, 500)], np.zeros(500, dtype=bool))
    assert np.isnan(error.se).all()  # not the rounding of a deviation that is 0, divided by no degree of freedom
    assert np.isnan(error.half_width(0.95)).all()


def test_tolerances() -> None:
    nie, se = np.array([[1.0, -4.0, 2.0]]), np.array([[0.1, 0.2, 0.3]])
    np.testing.assert_allclose(Tolerance(0.5).target(nie, se, 0.95), 0.5 * se)
    np.testing.assert_allclose(Tolerance(0.1, "effect").target(nie, se, 0.95), 0.1 * abs(nie) / 1.959964, rtol=1e-6)
    assert np.isinf(Tolerance(0.1, "absolute", top=2).target(nie, se, 0.95)).tolist() == [[True, False, False]]
