"""Weakening neurons at [CLS]: against hooks by hand; the grid; files; what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import pyneuro as pn
from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.evaluation import predict
from pyneuro.mitigation import SHARES, STRENGTHS, Weakening, fit_weakening, weakened
from pyneuro.models import Classifier
from pyneuro.search import Ranking
from pyneuro.sites import NeuronSet
from tests.search.oracle import random_values
from tests.tiny import PAIRS, fingerprint, make_tiny

LABELS = ["entailment", "neutral", "contradiction"]
NAMES = ["L1.O.3", "L1.I.7", "L0.V.2", "L1.I.1", "L0.AO.4"]


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


@pytest.fixture(scope="module")
def tune() -> list[Pair]:
    return [Pair(f"{a}{b}", PAIRS[a].premise, PAIRS[b].hypothesis, LABELS[b % 3]) for a in range(4) for b in range(6)]


def entailed(clf: Classifier, pairs: Sequence[Pair]) -> float:
    return float(predict(clf, pairs)[:, 0].mean())


@pytest.mark.parametrize("convention", ["linear", "hook"])
@pytest.mark.parametrize("module", ["AO", "I"])
def test_a_neuron_at_cls_is_multiplied(clf: Classifier, convention: str, module: str) -> None:
    batch = clf.batch([clf.encode(PAIRS[0]), clf.encode(PAIRS[3])])
    place = clf.adapter.module(clf.model, 1, module, convention)
    seen: list[torch.Tensor] = []

    def by_hand(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        seen.append(output.clone())
        output[:, 0, 7] *= 0.25
        return output

    handle = place.register_forward_hook(by_hand)
    with clf.inference() as model:
        wanted = model(**batch).logits
        handle.remove()
        plain = model(**batch).logits
        before = fingerprint(clf.model)
        with weakened(clf, [f"L1.{module}.7"], 0.25, convention=convention):
            found = model(**batch).logits
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6) and not torch.allclose(found, plain)
    assert fingerprint(clf.model)[0:2] == before[0:2]


def test_the_model_is_left_as_it_was_also_after_an_error(clf: Classifier) -> None:
    before = fingerprint(clf.model)
    with pytest.raises(ZeroDivisionError), weakened(clf, NAMES, 0.5):
        raise ZeroDivisionError
    assert fingerprint(clf.model) == before


def test_the_grid_is_every_share_and_strength_and_the_best_is_chosen(clf: Classifier, tune: list[Pair]) -> None:
    ranking = Ranking.parse(NAMES, clf.shape, "hook")
    fit = fit_weakening(clf, ranking, tune, [0.0, 0.5, 1.0], [0.2, 0.6, 1.0], metric=entailed)
    assert fit.table[["share", "neurons"]].drop_duplicates().to_numpy().tolist() == [[0.2, 1], [0.6, 3], [1.0, 5]]
    assert fit.baseline == entailed(clf, tune)
    for row in fit.table.to_dict("records"):
        with weakened(clf, ranking.first(row["neurons"]), row["strength"], convention="hook"):
            assert row["score"] == pytest.approx(entailed(clf, tune), rel=1e-6)
    best = fit.table.loc[fit.table["score"].idxmax()]
    assert (len(fit.chosen.neurons), fit.chosen.strength) == (best["neurons"], best["strength"])
    assert fit.chosen.convention == "hook" and fit.chosen.settings["score"] == best["score"]
    assert fit.chosen.settings["tune_pairs"]["n"] == len(tune)


def test_of_equal_points_the_mildest_is_chosen(clf: Classifier, tune: list[Pair]) -> None:
    fit = fit_weakening(clf, Ranking.parse(NAMES, clf.shape), tune, [0.0, 0.9, 0.5], [1.0, 0.2], metric=lambda *_: 1.0)
    assert (len(fit.chosen.neurons), fit.chosen.strength) == (1, 0.9)


def test_the_default_grid_is_the_published_one() -> None:
    assert STRENGTHS == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert SHARES[0] == 0.01 and SHARES[-1] == 0.2 and len(SHARES) == 20


def test_a_saved_weakening_does_the_same(clf: Classifier, tune: list[Pair], tmp_path: Path) -> None:
    made = Weakening.of(clf, NAMES, 0.3, convention="hook")
    again = Weakening.load(made.save(tmp_path / "new" / "weakening.json"))
    assert again.neurons == made.neurons and (again.strength, again.convention) == (0.3, "hook")
    with made.on(clf):
        wanted = predict(clf, tune)
    with again.on(clf):
        np.testing.assert_array_equal(predict(clf, tune), wanted)
    assert np.abs(predict(clf, tune) - wanted).max() > 1e-4


def test_another_model_is_refused(clf: Classifier, tmp_path: Path) -> None:
    other = make_tiny(layers=2, hidden=24, heads=3, intermediate=40, seed=1)
    path = Weakening.of(clf, NAMES, 0.3).save(tmp_path / "w.json")
    with pytest.raises(InputError, match="belongs to a model with digest"), Weakening.load(path).on(other):
        pass
    ranking = Ranking(clf.shape, np.arange(3), "linear", clf.digest)
    with pytest.raises(InputError, match="the ranking is of a model with digest"):
        fit_weakening(other, ranking, [], [0.5], [0.5])


def test_pairs_that_the_ranking_was_found_on_are_refused(clf: Classifier, tune: list[Pair]) -> None:
    result = pn.search(clf, tune[:3], random_values(clf), sites="L1.I.*", backend="reference")
    with pytest.raises(InputError, match="3 of 24 pairs"):
        fit_weakening(clf, pn.rank(result), tune)
    assert len(fit_weakening(clf, pn.rank(result), tune[3:], [0.5], [0.1]).table) == 1


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "half", True, None])
def test_a_strength_outside_0_to_1_is_refused(clf: Classifier, tune: list[Pair], strength: object) -> None:
    with pytest.raises(InputError, match="strength = "), weakened(clf, NAMES, strength):
        pass
    with pytest.raises(InputError, match="strength = "):
        fit_weakening(clf, Ranking.parse(NAMES, clf.shape), tune, [0.5, strength], [0.5])


def test_bad_input_is_named(clf: Classifier, tune: list[Pair], tmp_path: Path) -> None:
    ranking = Ranking.parse(NAMES, clf.shape)
    with pytest.raises(InputError, match="share = 0"):
        fit_weakening(clf, ranking, tune, [0.5], [0])
    with pytest.raises(InputError, match="0 strengths"):
        fit_weakening(clf, ranking, tune, [], [0.5])
    with pytest.raises(InputError, match="metric = 'best'"):
        fit_weakening(clf, ranking, tune, metric="best")
    with pytest.raises(InputError, match="convention 'both'"):
        Weakening.of(clf, NAMES, 0.5, convention="both")
    with pytest.raises(InputError, match="the neurons are of a model"):
        Weakening.of(clf, NeuronSet.all(make_tiny(layers=1, hidden=8, heads=2).shape), 0.5)
    path = Weakening.of(clf, NAMES, 0.5).save(tmp_path / "w.json")
    content = json.loads(path.read_text())
    for change, message in (
        ({"format": "other"}, "has format 'other'"),
        ({"strength": 2}, "strength = 2"),
        ({"neurons": ["L9.Q.0"]}, "the model has layers"),
        ({"shape": {}}, "damaged"),
        ({"convention": "both"}, "damaged"),
    ):
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=message):
            Weakening.load(path)
    with pytest.raises(InputError, match="is missing"):
        Weakening.load(tmp_path / "none.json")
