"""Halves, the strongest k, bisection, greedy growth, synergy: against searches made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.errors import InputError
from pyneuro.results import load_result
from pyneuro.search import Ranking, bisect, greedy, halves, search, synergy, top_k_sets
from pyneuro.sites import ModelShape, NeuronSet
from tests.search.conftest import FLOAT64
from tests.search.oracle import random_values

EXACT = FLOAT64.options


def effect(clf, pairs, values, members, treatment="z", **options) -> float:
    table = search(clf, pairs, values, sites={"s": members}, **EXACT, **options).frame()
    return float(table[table["treatment"] == treatment]["nie"].iloc[0])


def test_halves_of_bert_base_are_144_sets_that_cover_every_neuron_once() -> None:
    shape = ModelShape(layers=12, hidden=768, heads=12, intermediate=3072)
    found = halves(shape)
    assert len(found) == 144
    assert next(iter(found["L3.I.1536-3071"])) == next(iter(NeuronSet.parse("L3.I.1536", shape)))
    assert np.array_equal(np.sort(np.concatenate([s.ids for s in found.values()])), np.arange(shape.n_neurons))


def test_halves_of_an_odd_width() -> None:
    shape = ModelShape(layers=1, hidden=4, heads=2, intermediate=5)
    assert {name: len(s) for name, s in halves(shape).items() if ".I." in name} == {"L0.I.0-1": 2, "L0.I.2-4": 3}


def test_the_strongest_k() -> None:
    shape = ModelShape(layers=1, hidden=4, heads=2, intermediate=5)
    ranking = Ranking.parse(["L0.I.3", "L0.Q.2", "L0.O.0"], shape)
    found = top_k_sets(ranking, [1, 3])
    assert {name: list(map(str, s)) for name, s in found.items()} == {
        "top 1": ["L0.I.3"],
        "top 3": ["L0.Q.2", "L0.I.3", "L0.O.0"],
    }
    for k in (0, 4):
        with pytest.raises(InputError, match=f"k = {k}"):
            top_k_sets(ranking, [k])


class TestBisection:
    def test_follows_the_half_with_the_larger_joint_effect(self, clf, few) -> None:
        values = random_values(clf, "z")
        found = bisect(clf, few, values, "L1.I.*", **EXACT)
        tree = found.tree
        assert tree["size"].tolist()[:5] == [20, 10, 10, 5, 5]
        assert len(found.leaf) == 1 and tree["followed"].sum() == tree["depth"].max() + 1
        sets = found.result.sets()
        for _, row in tree.iterrows():
            assert row["effect"] == pytest.approx(effect(clf, few, values, sets[row["site"]]), rel=1e-9)
        for parent, children in tree.groupby("parent"):
            assert sum(children["size"]) == len(sets[parent])
            followed = children[children["followed"]]
            assert len(followed) == 1 and abs(followed["effect"].iloc[0]) == children["effect"].abs().max()

    def test_ends_at_a_size_and_goes_by_the_treatment_asked_for(self, clf, few) -> None:
        values = random_values(clf, "HOL", "LOL")
        found = bisect(clf, few[:2], values, NeuronSet.parse("L2.*.*", clf.shape), size=25, treatment="LOL", **EXACT)
        assert len(found.leaf) <= 25 and found.tree["size"].iloc[0] == 80
        frame = found.result.frame()
        lol = frame[frame["treatment"] == "LOL"]
        np.testing.assert_array_equal(lol["nie"], found.tree["effect"])
        contrast = bisect(clf, few[:2], values, "L2.*.*", size=25, **EXACT)
        np.testing.assert_array_equal(contrast.result.contrast()["nie"], contrast.tree["effect"])

    def test_is_a_result_that_is_saved_and_loaded(self, clf, few, tmp_path) -> None:
        found = bisect(clf, few[:2], random_values(clf, "z"), "L1.Q.*", size=3, **EXACT)
        found.result.save(tmp_path)
        again = load_result(tmp_path)
        assert again.sets() == found.result.sets() and len(again.frame()) == len(found.tree)
        assert again.manifest["run"]["patched_runs"] == 2 * len(found.tree)

    def test_a_set_of_one_is_not_split(self, clf, few) -> None:
        found = bisect(clf, few[0], random_values(clf, "z"), "L1.Q.3", **EXACT)
        assert found.tree["site"].tolist() == ["L1.Q.3"] and list(map(str, found.leaf)) == ["L1.Q.3"]

    def test_bad_input_is_named(self, clf, few) -> None:
        with pytest.raises(InputError, match="size = 0"):
            bisect(clf, few, random_values(clf, "z"), size=0)
        with pytest.raises(InputError, match="one set is needed"):
            bisect(clf, few, random_values(clf, "z"), {"a": NeuronSet.parse("L0.Q.0", clf.shape)})


class TestGreedy:
    @pytest.mark.parametrize("order", ["absolute", "signed", "negative"])
    def test_every_step_takes_the_best_of_all_that_are_left(self, clf, few, order) -> None:
        values = random_values(clf, "z")
        names = ["L1.I.3", "L0.O.2", "L2.Q.5", "L2.AO.1", "L1.V.4"]
        found = greedy(clf, few, values, 3, candidates=names, order=order, **EXACT)
        key = {"absolute": abs, "signed": lambda v: v, "negative": lambda v: -v}[order]
        taken: list[str] = []
        before = 0.0
        for _, step in found.steps.iterrows():
            tried = {
                n: effect(clf, few, values, NeuronSet.parse([*taken, n], clf.shape)) for n in names if n not in taken
            }
            assert step["site"] == max(tried, key=lambda n: key(tried[n]))
            assert step["effect"] == pytest.approx(tried[step["site"]], rel=1e-9)
            assert step["gain"] == pytest.approx(step["effect"] - before, rel=1e-6)
            taken.append(step["site"])
            before = step["effect"]
        assert found.neurons == NeuronSet.parse(taken, clf.shape)
        assert found.result.sets()["step 2"] == NeuronSet.parse(taken[:2], clf.shape)

    def test_works_without_values(self, clf, few) -> None:
        found = greedy(clf, few[:2], k=1, candidates="L2.Q.*", intervention="remove", **EXACT)
        assert len(found.neurons) == 1

    def test_bad_input_is_named(self, clf, few) -> None:
        values = random_values(clf, "z")
        with pytest.raises(InputError, match="k = 3; pass a whole number from 1 to 2"):
            greedy(clf, few, values, 3, candidates=["L0.Q.0", "L0.Q.1"])
        with pytest.raises(InputError, match="order = 'best'"):
            greedy(clf, few, values, 1, candidates="L0.Q.0", order="best")


class TestSynergy:
    def test_is_the_joint_effect_less_the_sum_of_single_effects(self, clf, few) -> None:
        values = random_values(clf, "HOL", "LOL")
        sets = {"a": NeuronSet.parse(["L1.I.3", "L2.O.1"], clf.shape), "one": NeuronSet.parse("L0.V.2", clf.shape)}
        joint = search(clf, few, values, sites=sets, **EXACT)
        singles = search(clf, few, values, sites=["L1.I.*", "L2.O.1", "L0.V.2"], **EXACT)
        table = synergy(joint, singles).set_index(["set", "treatment"])
        nie = singles.frame().set_index(["treatment", "site"])["nie"]
        row = table.loc["a", "HOL"]
        assert row["sum_of_singles"] == pytest.approx(nie["HOL", "L1.I.3"] + nie["HOL", "L2.O.1"])
        assert row["synergy"] == pytest.approx(row["joint"] - row["sum_of_singles"])
        assert abs(row["synergy"]) > 1e-9
        assert table.loc["one"]["synergy"].abs().max() < 1e-10
        assert len(table) == 6

    def test_results_that_do_not_belong_together_are_refused(self, clf, few) -> None:
        values = random_values(clf, "z")
        sets = {"a": NeuronSet.parse(["L1.I.3", "L2.O.1"], clf.shape)}
        joint = search(clf, few, values, sites=sets, **EXACT)
        with pytest.raises(InputError, match="differ in data"):
            synergy(joint, search(clf, few[:2], values, sites=["L1.I.3", "L2.O.1"], **EXACT))
        with pytest.raises(InputError, match=r"L2.O.1 of set 'a' was not searched alone"):
            synergy(joint, search(clf, few, values, sites=["L1.I.3"], **EXACT))
        with pytest.raises(InputError, match="singles is a result of sets"):
            synergy(joint, joint)
