"""Rankings of neurons from a result, and from names."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.errors import InputError
from pyneuro.search import Ranking, rank, search
from pyneuro.sites import ModelShape, NeuronSet
from tests.search.oracle import random_values

SHAPE = ModelShape(layers=2, hidden=8, heads=2, intermediate=12)


@pytest.fixture(scope="module")
def result(clf, few):
    values = random_values(clf, "HOL", "LOL", convention="hook")
    return search(clf, few, values, sites=["L1.I.*", "L2.Q.*"], convention="hook", backend="reference")


@pytest.mark.parametrize("order", ["absolute", "signed", "negative"])
@pytest.mark.parametrize("treatment", ["HOL", "contrast", None])
def test_neurons_stand_in_the_order_of_their_effects(result, clf, order, treatment) -> None:
    ranking = rank(result, treatment=treatment, order=order)
    table = result.contrast() if treatment in ("contrast", None) else result.frame().query("treatment == @treatment")
    nie = dict(zip(table["site"], table["nie"], strict=True))
    key = {"absolute": lambda v: -abs(v), "signed": lambda v: -v, "negative": lambda v: v}[order]
    wanted = sorted(nie, key=lambda site: key(nie[site]))
    found = [str(next(iter(NeuronSet(clf.shape, [i])))) for i in ranking.ids]
    np.testing.assert_array_equal([nie[site] for site in found], [nie[site] for site in wanted])
    assert len(ranking) == len(set(found)) == 20 + 12


def test_a_ranking_knows_where_it_comes_from(result, clf, few) -> None:
    ranking = rank(result)
    assert ranking.convention == "hook" and ranking.model_digest == clf.digest
    assert ranking.samples == {pair.id for pair in few}


def test_the_strongest_of_a_ranking() -> None:
    ranking = Ranking.parse(["L1.I.3", "L0.Q.2", "L1.O.0"], SHAPE)
    assert list(map(str, ranking.first(2))) == ["L0.Q.2", "L1.I.3"] and len(ranking.first(0)) == 0
    assert [ranking.count(share) for share in (0.01, 0.5, 1)] == [1, 2, 3]


def test_bad_input_is_named(result, clf, few) -> None:
    with pytest.raises(InputError, match=r"'L0.Q.\*' names 8 neurons"):
        Ranking.parse(["L0.Q.*"], SHAPE)
    with pytest.raises(InputError, match="named before"):
        Ranking.parse(["L0.Q.1", "L0.Q.1"], SHAPE)
    with pytest.raises(InputError, match="convention 'both'"):
        Ranking.parse(["L0.Q.1"], SHAPE, "both")
    ranking = rank(result)
    for k in (-1, 33, True, 1.5):
        with pytest.raises(InputError, match="k = "):
            ranking.first(k)
    for share in (0, 1.1, float("nan"), "all"):
        with pytest.raises(InputError, match="share = "):
            ranking.count(share)
    with pytest.raises(InputError, match="order = 'best'"):
        rank(result, order="best")
    with pytest.raises(InputError, match="treatment 'x' is not in this result; choose one of HOL, LOL, contrast"):
        rank(result, treatment="x")
    joint = search(clf, few[0], random_values(clf), sites={"a": NeuronSet.parse("L0.Q.0", clf.shape)})
    with pytest.raises(InputError, match="of sets"):
        rank(joint)
