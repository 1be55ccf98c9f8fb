"""Ablation curves against ablations made one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import pyneuro as pn
from pyneuro.data import Pair
from pyneuro.engine.intervention import Intervention
from pyneuro.errors import InputError
from pyneuro.evaluation import METRICS, ablation_curve, intervened, predict
from pyneuro.evaluation.ablation import COUNTS
from pyneuro.evaluation.metrics import find_metric
from pyneuro.models import Classifier
from pyneuro.search import Ranking, matched_rankings
from tests.search.oracle import random_values
from tests.tiny import PAIRS, fingerprint, make_tiny

LABELS = ["entailment", "neutral", "contradiction"]
NAMES = ["L1.O.3", "L1.I.7", "L0.V.2", "L1.I.1", "L0.AO.4"]


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


@pytest.fixture(scope="module")
def labelled() -> list[Pair]:
    return [Pair(f"{a}{b}", PAIRS[a].premise, PAIRS[b].hypothesis, LABELS[b % 3]) for a in range(4) for b in range(6)]


def entailed(clf: Classifier, pairs: Sequence[Pair]) -> float:
    """Mean P(entailment): moves with every ablation, unlike accuracy."""
    return float(predict(clf, pairs)[:, 0].mean())


def test_a_curve_is_the_ablations_one_by_one(clf, labelled) -> None:
    ranking = Ranking.parse(NAMES, clf.shape, "hook")
    before = fingerprint(clf.model)
    found = ablation_curve(clf, ranking, labelled, [1, 3, 5], metric=entailed, controls=3, seed=4)
    assert fingerprint(clf.model) == before
    assert found.curve["neurons"].tolist() == [0, 1, 3, 5] and len(found.runs) == 1 + 3 * 4
    assert found.curve["score"].iloc[0] == entailed(clf, labelled)
    assert found.curve.drop(columns=["neurons", "score"]).iloc[0].isna().all()
    controls = matched_rankings(ranking, 3, 4)
    for row in found.curve.iloc[1:].to_dict("records"):
        scores = []
        for one in (ranking, *controls):
            with intervened(clf, one.first(int(row["neurons"])), Intervention("remove"), convention="hook"):
                scores.append(entailed(clf, labelled))
        assert row["score"] == scores[0]
        assert row["control_mean"] == pytest.approx(np.mean(scores[1:]))
        assert row["control_low"] < row["control_mean"] < row["control_high"]
        assert row["p_value"] in (0.5, 1.0)
    assert found.settings["metric"] == "entailed" and found.settings["convention"] == "hook"


def test_neurons_may_be_replaced_by_values(clf, labelled) -> None:
    values = random_values(clf, "HOL", "LOL")
    ranking = Ranking.parse(NAMES, clf.shape)
    options = {"metric": entailed, "controls": 2, "intervention": "replace", "values": values, "treatment": "LOL"}
    found = ablation_curve(clf, ranking, labelled, [5], **options)
    with intervened(clf, ranking.first(5), Intervention("replace"), values=values, treatment="LOL"):
        assert found.curve["score"].iloc[1] == entailed(clf, labelled)


def test_the_default_counts_are_those_published() -> None:
    assert COUNTS[:8] == (10, 15, 25, 39, 63, 100, 158, 251) and len(COUNTS) == 20


def test_counts_go_as_far_as_the_ranking(clf, labelled) -> None:
    ranking = Ranking.parse([f"L1.I.{i}" for i in range(20)], clf.shape)
    found = ablation_curve(clf, ranking, labelled[:3], controls=2)
    assert found.curve["neurons"].tolist() == [0, 10, 15]


def test_metrics_by_name(clf, labelled) -> None:
    predicted = predict(clf, labelled)
    assert METRICS["accuracy"](clf, labelled) == pn.evaluation.accuracy(clf, predicted, labelled).accuracy
    cells = pn.evaluation.overlap_accuracy(clf, predicted, labelled)
    assert METRICS["overlap_balanced"](clf, labelled) == pytest.approx(cells["accuracy"].mean())
    hans = [
        Pair(f"{h}{g}", "a b", "b", g, {"heuristic": h, "subcase": "x"})
        for h in ("lexical_overlap", "subsequence", "constituent")
        for g in ("entailment", "non-entailment")
    ]
    assert METRICS["hans"](clf, hans) == 0.5  # the same pair under both labels


def test_bad_input_is_named(clf, labelled) -> None:
    ranking = Ranking.parse(NAMES, clf.shape)
    with pytest.raises(InputError, match="metric = 'best'"):
        ablation_curve(clf, ranking, labelled, [1], metric="best")
    with pytest.raises(InputError, match="<lambda> is nan"):
        find_metric(lambda clf, pairs: float("nan"))(clf, labelled)
    with pytest.raises(InputError, match="counts hold 6"):
        ablation_curve(clf, ranking, labelled, [6])
    with pytest.raises(InputError, match="fewer than the first count"):
        ablation_curve(clf, ranking, labelled)
    with pytest.raises(InputError, match=r"strength = 0\.5 beside"):
        ablation_curve(clf, ranking, labelled, [1], intervention=Intervention("remove"), strength=0.5)
    seen = Ranking(ranking.shape, ranking.ids, "linear", None, frozenset([labelled[2].id]))
    with pytest.raises(InputError, match=r"1 of 24 pairs \('02'"):
        ablation_curve(clf, seen, labelled, [1])
