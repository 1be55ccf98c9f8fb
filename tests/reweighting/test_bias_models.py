"""Linear bias models: against the optimum that their objective defines, on pairs of a known shortcut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, special

from pyneuro.data import Pair, embedded_pairs
from pyneuro.errors import InputError
from pyneuro.reweighting import HypothesisModel, OverlapModel, overlap_features

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Unbalanced: a third of the neutral pairs is left out."""
    whole = embedded_pairs(360)
    return [pair for i, pair in enumerate(whole) if pair.label != "neutral" or i % 3]


def test_overlap_alone_is_the_penalised_regression_of_its_definition(pairs: list[Pair]) -> None:
    """argmin of C Σ w_i CE_i + ½‖W‖², w_i = n / (K n_class), the intercepts free (scikit-learn's documented
    objective)."""
    c = 0.5
    classes = ("entailment", "neutral", "contradiction")
    x = overlap_features(pairs, "overlap").to_numpy()[:, 0]
    y = np.array([classes.index(str(pair.label)) for pair in pairs])
    w = len(y) / (3 * np.bincount(y))[y]

    def objective(theta: np.ndarray) -> float:
        log_p = special.log_softmax(x[:, None] * theta[:3] + theta[3:], axis=1)
        return float(-c * (w * log_p[np.arange(len(y)), y]).sum() + (theta[:3] ** 2).sum() / 2)

    best = optimize.minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-8}).x
    found = OverlapModel("overlap", c=c).fit(pairs).predict(pairs)
    assert found.classes == classes
    np.testing.assert_allclose(
        found.probabilities, special.softmax(x[:, None] * best[:3] + best[3:], axis=1), atol=2e-4
    )


def test_clark_et_al_tell_entailment_from_the_rest(pairs: list[Pair]) -> None:
    """liblinear at C = 100: ½‖(w, b)‖² is next to nothing beside the loss, so the slope of the loss is next to 0."""
    fitted = OverlapModel("clark2019_words").fit(pairs)
    assert fitted.classes == ("entailment", "non-entailment")
    assert fitted.columns == ("subsequence", "all_in_premise", "share_in_premise", "log_length_difference")
    x = np.c_[overlap_features(pairs, "clark2019_words").to_numpy(), np.ones(len(pairs))]
    gold = np.array([pair.label == "entailment" for pair in pairs])
    w = len(gold) / (2 * np.where(gold, gold.sum(), (~gold).sum()))
    p = fitted.predict(pairs).probabilities[:, 0]
    theta = -np.r_[fitted.regression.coef_[0], fitted.regression.intercept_]  # of entailment, the first class
    np.testing.assert_allclose(special.expit(x @ theta), p, atol=1e-9)
    np.testing.assert_allclose(100 * x.T @ (w * (p - gold)) + theta, 0, atol=0.5)


def test_more_overlap_more_entailment() -> None:
    rng = np.random.default_rng(0)
    words = list("abcdefgh")
    some = []
    for i in range(300):
        k = int(rng.integers(0, 9))
        label = "entailment" if rng.random() < k / 8 else ("neutral", "contradiction")[i % 2]
        some.append(Pair(f"p{i}", " ".join(words), " ".join(words[:k] + ["x"] * (8 - k)), label))
    fitted = OverlapModel("overlap", c=10.0).fit(some)
    ladder = [Pair(f"k{k}", " ".join(words), " ".join(words[:k] + ["x"] * (8 - k))) for k in range(9)]
    p = fitted.predict(ladder).probabilities[:, 0]
    assert (np.diff(p) > 0).all() and p[0] < 0.15 and p[-1] > 0.85


def test_a_hypothesis_model_does_not_look_at_the_premise() -> None:
    some = [
        Pair(f"{label}{i}", f"premise {i}", f"{clue} {noun}", label)
        for label, clue in (("contradiction", "nobody sees"), ("neutral", "perhaps a"), ("entailment", "some see"))
        for i, noun in enumerate(["dogs", "cats", "birds", "fish"])
    ]
    fitted = HypothesisModel(c=10.0).fit(some)
    new = [Pair("x", "anything", "Nobody sees horses!"), Pair("y", "else", "some see"), Pair("z", "", "horses")]
    found = fitted.predict(new)
    assert found.classes == ("entailment", "neutral", "contradiction")
    assert found.probabilities.argmax(1).tolist()[:2] == [2, 0]
    np.testing.assert_allclose(found.probabilities[2], 1 / 3, atol=1e-3)  # of a word that it does not know
    assert "nobody sees" in fitted.columns and "sees dogs" not in fitted.columns  # in one pair only
    assert not any(" " in column for column in HypothesisModel(ngrams=1).fit(some).columns)
    moved = [Pair(pair.id, "another", pair.hypothesis, pair.label) for pair in some]
    np.testing.assert_array_equal(fitted.predict(some).probabilities, fitted.predict(moved).probabilities)


def test_a_feature_that_tells_nothing_is_warned_of() -> None:
    some = [
        Pair(str(i), "a b c", hyp, label) for i, (hyp, label) in enumerate([("a x", "neutral"), ("b", "entailment")])
    ]
    for i, pair in enumerate(some):
        some[i] = Pair(pair.id, pair.premise, pair.hypothesis, pair.label, {"premise_parse": "(S (A a) (B c))"})
    with pytest.warns(UserWarning, match="feature 'constituent' is 0 for every pair"):
        OverlapModel("notes").fit(some)


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (OverlapModel("overlap"), lambda p: [Pair("x", "a", "b"), *p], "pair 'x' has no label"),
        (OverlapModel("overlap"), lambda p: [q for q in p if q.label == "neutral"], "pairs with label neutral; a bias"),
        (OverlapModel("overlap", c=0.0), lambda p: p, "c = 0.0"),
        (OverlapModel("guess"), lambda p: p, "features = 'guess'"),
        (HypothesisModel(ngrams=0), lambda p: p, "ngrams = 0"),
        (HypothesisModel(min_pairs=1000), lambda p: p, "no n-gram stands in 1000 hypotheses of 323"),
        (HypothesisModel(c=float("nan")), lambda p: p, "c = nan"),
    ],
)
def test_bad_input_is_named(pairs: list[Pair], model: object, change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.fit(change(pairs))
