"""Matched random controls: how they are drawn, and what a number beside them says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyneuro.errors import InputError
from pyneuro.search import (
    Ranking,
    beside_controls,
    controls_table,
    matched_controls,
    matched_rankings,
    measure_beside_controls,
    search,
    with_controls,
)
from pyneuro.sites import ModelShape, NeuronSet
from tests.search.oracle import random_values

SHAPE = ModelShape(layers=2, hidden=8, heads=2, intermediate=12)


def counts(neurons: NeuronSet) -> Counter[tuple[int, str]]:
    return Counter((n.layer, n.module) for n in neurons)


@given(st.sets(st.integers(0, SHAPE.n_neurons - 1), min_size=1, max_size=60), st.integers(0, 5))
def test_controls_are_spread_over_layers_and_modules_as_the_set_is(ids: set[int], seed: int) -> None:
    neurons = NeuronSet(SHAPE, sorted(ids))
    own = counts(neurons)
    for control in matched_controls(neurons, 3, seed):
        assert counts(control) == own
        shared = counts(NeuronSet(SHAPE, np.intersect1d(control.ids, neurons.ids)))
        for site, count in own.items():
            assert shared[site] == max(0, 2 * count - SHAPE.width(site[1]))  # as few as can be


def test_the_same_seed_draws_the_same_controls_and_another_seed_others() -> None:
    neurons = NeuronSet.parse(["L0.I.0", "L0.I.1", "L1.O.*"], SHAPE)
    first, again, other = (matched_controls(neurons, 4, seed) for seed in (1, 1, 2))
    assert first == again and first != other and len(set(first)) > 1
    assert list(map(str, matched_controls(NeuronSet.parse("L0.Q.3", SHAPE), 3)[0])) == ["L0.Q.6"]  # on any machine


def test_every_prefix_of_a_matched_ranking_is_matched() -> None:
    ranking = Ranking.parse(["L1.I.3", "L0.Q.2", "L1.I.7", "L0.Q.1", "L1.O.0"], SHAPE, "hook")
    for control in matched_rankings(ranking, 3):
        assert control.convention == "hook" and len(control) == len(ranking)
        for k in range(1, len(ranking) + 1):
            assert counts(control.first(k)) == counts(ranking.first(k))
        assert not set(control.ids.tolist()) & set(ranking.ids.tolist())


def test_a_number_beside_its_controls() -> None:
    found = beside_controls(5.0, [1.0, 2.0, 3.0, 4.0])
    assert (found.mean, found.sd) == (2.5, pytest.approx(1.2909944))
    # Student's t with 3 degrees of freedom at 97.5 %: 3.182446.
    assert found.high - found.mean == pytest.approx(3.182446 * 1.2909944 * 1.25**0.5, rel=1e-6)
    assert found.p_value == pytest.approx(2 / 5)
    assert beside_controls(2.5, [1.0, 2.0, 3.0, 4.0]).p_value == 1.0
    assert np.isnan(beside_controls(1.0, [0.0]).low)


def test_the_prediction_interval_holds_one_more_control_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 11))
    inside = [(f := beside_controls(row[0], row[1:], 0.9)).low <= row[0] <= f.high for row in draws]
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_any_measure_is_taken_of_the_set_and_its_controls() -> None:
    neurons = NeuronSet.parse(["L0.I.0", "L1.I.1"], SHAPE)
    seen: list[NeuronSet] = []

    def measure(members: NeuronSet) -> float:
        seen.append(members)
        return float(members.ids.sum())

    found = measure_beside_controls(measure, neurons, 3)
    assert found.value == neurons.ids.sum() and seen == [neurons, *matched_controls(neurons, 3)]


def test_a_search_of_sets_is_reported_beside_controls(clf, few) -> None:
    sets = {"a": NeuronSet.parse(["L1.I.3", "L2.O.1"], clf.shape), "b": NeuronSet.parse("L0.V.*", clf.shape)}
    sites = with_controls(sets, 3)
    assert list(sites)[:3] == ["a", "a control 0", "a control 1"]
    result = search(clf, few, random_values(clf, "HOL", "LOL"), sites=sites, backend="reference")
    table = controls_table(result)
    assert table["set"].tolist() == ["a", "b"] * 3
    assert table["treatment"].tolist() == ["HOL", "HOL", "LOL", "LOL", "contrast", "contrast"]
    frame = result.frame().set_index(["treatment", "site"])["nie"]
    row = table.iloc[0]
    assert row["nie"] == frame["HOL", "a"] and row["controls"] == 3
    assert row["control_mean"] == pytest.approx(np.mean([frame["HOL", f"a control {i}"] for i in range(3)]))
    assert "control_low" in table and "log_nie" in controls_table(result, by="log_nie")


def test_bad_input_is_named(clf, few) -> None:
    neurons = NeuronSet.parse("L0.Q.0", SHAPE)
    with pytest.raises(InputError, match="n = 0 controls"):
        matched_controls(neurons, 0)
    with pytest.raises(InputError, match="no neurons"):
        matched_controls(NeuronSet(SHAPE, []), 2)
    with pytest.raises(InputError, match="named like a control"):
        with_controls({"a control 1": neurons})
    with pytest.raises(InputError, match="pass finite numbers"):
        beside_controls(1.0, [])
    with pytest.raises(InputError, match="ci = 1"):
        beside_controls(1.0, [0.0], ci=1)
    alone = search(clf, few[0], random_values(clf), sites={"a": NeuronSet.parse("L0.Q.0", clf.shape)})
    with pytest.raises(InputError, match="set 'a' has no controls"):
        controls_table(alone)
    with pytest.raises(InputError, match="by = 'best'"):
        controls_table(alone, by="best")
