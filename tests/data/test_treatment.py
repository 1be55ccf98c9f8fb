"""Treatment sets: which pairs they hold, that their classes are level, and when they cannot be made."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyneuro.data.overlap import overlap, overlap_scores
from pyneuro.data.pairs import Pair, Pairs
from pyneuro.data.treatment import PRESETS, TreatmentSets, treatment_sets
from pyneuro.errors import InputError

THREE = ("entailment", "neutral", "contradiction")

# The grid of eleven scores ties at every bound; TestWarnings looks at what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore:.* score exactly:UserWarning")


def scored(tenths: int, name: str, label: str | None) -> Pair:
    """A pair whose whitespace overlap is ``tenths / 10``."""
    return Pair(name, "in", " ".join(["in"] * tenths + ["out"] * (10 - tenths)), label)


def corpus(per_cell: int = 3, labels: tuple[str | None, ...] = THREE) -> Pairs:
    """``per_cell`` pairs of every label at every overlap 0.0, 0.1, ..., 1.0."""
    return Pairs(
        [scored(t, f"{label}-{t}-{n}", label) for n in range(per_cell) for label in labels for t in range(11)], "grid"
    )


labelled = st.lists(st.tuples(st.integers(0, 10), st.sampled_from(THREE)), min_size=12, max_size=60).map(
    lambda rows: Pairs([scored(tenths, f"p{at}", label) for at, (tenths, label) in enumerate(rows)])
)


def made(pairs: Pairs, low: float, high: float, **options: object) -> TreatmentSets:
    """Sets of a drawn corpus; corpora that cannot give any are passed over, ties are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return treatment_sets(pairs, low, high, **options)  # type: ignore[arg-type]
        except InputError:
            assume(False)
            raise


class TestMembership:
    def test_percentile_bounds_are_inclusive(self) -> None:
        # 0.0 .. 1.0 evenly: the 20th percentile is 0.2, the 80th 0.8, and both belong to their sets.
        sets = treatment_sets(corpus(), balance=False)
        assert sets.low_threshold == pytest.approx(0.2) and sets.high_threshold == pytest.approx(0.8)
        assert sorted(set(overlap_scores(sets["HOL"]))) == [0.8, 0.9, 1.0]
        assert sorted(set(overlap_scores(sets["LOL"]))) == [0.0, 0.1, 0.2]
        assert list(sets) == ["HOL", "LOL"] and len(sets) == 2

    def test_absolute_bounds_are_scores_and_inclusive(self) -> None:
        pairs = Pairs([scored(t, f"{label}{t}", label) for label in THREE for t in (0, 1, 2, 2, 8, 9, 10)][::-1])
        sets = treatment_sets(pairs.subset(range(len(pairs))), 0.1, 0.9, mode="absolute", balance=False)
        assert (sets.low_threshold, sets.high_threshold) == (0.1, 0.9)
        assert Counter(overlap_scores(sets["HOL"])) == {0.9: 3, 1.0: 3}
        assert Counter(overlap_scores(sets["LOL"])) == {0.0: 3, 0.1: 3}

    @settings(deadline=None)
    @given(labelled, st.integers(1, 45), st.integers(55, 99))
    def test_sets_hold_exactly_the_pairs_beyond_the_percentiles(self, pairs: Pairs, low: int, high: int) -> None:
        sets = made(pairs, low, high, balance=False)
        scores = overlap_scores(pairs)
        assert sets.low_threshold == np.percentile(scores, low)
        assert sets.high_threshold == np.percentile(scores, high)
        assert sets["HOL"].ids == tuple(np.array(pairs.ids)[scores >= sets.high_threshold])
        assert sets["LOL"].ids == tuple(np.array(pairs.ids)[scores <= sets.low_threshold])
        assert not set(sets["HOL"].ids) & set(sets["LOL"].ids)

    def test_another_scorer_cuts_other_sets(self) -> None:
        sets = treatment_sets(corpus(), 0.5, 0.6, mode="absolute", scorer="full", balance=False)
        assert set(overlap_scores(sets["HOL"])) == {1.0} and sets.scorer == "full"
        own = treatment_sets(corpus(), 20, 80, scorer=lambda premise, hypothesis: -hypothesis.count("in"))
        assert set(overlap_scores(own["HOL"])) <= {0.0, 0.1, 0.2} and "lambda" in own.scorer


class TestBalance:
    def test_every_set_and_class_shrinks_to_the_smallest(self) -> None:
        # One neutral pair is all that HOL has, so every cell keeps one.
        kept = [pair for pair in corpus() if pair.label != "neutral" or overlap(pair) < 0.8]
        pairs = Pairs([*kept, scored(9, "lonely", "neutral")])
        sets = treatment_sets(pairs, 0.2, 0.8, mode="absolute")
        assert sets.counts_before["HOL"] == {"entailment": 9, "neutral": 1, "contradiction": 9}
        assert sets.counts_before["LOL"] == dict.fromkeys(THREE, 9)
        assert sets.counts_after["HOL"] == sets.counts_after["LOL"] == dict.fromkeys(THREE, 1)
        assert "lonely" in sets["HOL"].ids

    @settings(deadline=None)
    @given(labelled, st.integers(0, 3), st.booleans())
    def test_balanced_sets_are_level_subsets(self, pairs: Pairs, seed: int, replacement: bool) -> None:
        sets = made(pairs, 30, 70, seed=seed, replacement=replacement)
        whole = made(pairs, 30, 70, balance=False)
        smallest = min(count for counts in sets.counts_before.values() for count in counts.values())
        for name in sets:
            counts = Counter(sets[name].labels)
            assert set(counts.values()) == {smallest} and counts == sets.counts_after[name]
            assert set(sets[name].ids) <= set(whole[name].ids)
            assert replacement or len(set(sets[name].ids)) == len(sets[name])

    @settings(deadline=None)
    @given(labelled, st.randoms())
    def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_corpus(
        self, pairs: Pairs, random: object
    ) -> None:
        order = list(range(len(pairs)))
        random.shuffle(order)  # type: ignore[attr-defined]
        left, right = made(pairs, 30, 70, seed=5), made(pairs.subset(order), 30, 70, seed=5)
        for name in left:
            assert set(left[name].ids) == set(right[name].ids)

    def test_another_seed_draws_other_pairs(self) -> None:
        drawn = {treatment_sets(uneven(), 0.2, 0.8, mode="absolute", seed=seed)["HOL"].ids for seed in range(4)}
        assert len(drawn) == 4

    def test_every_pair_is_as_likely_as_any_other(self) -> None:
        # 9 entailment pairs, 6 kept in each of 400 draws: each pair 267 times, within 5 standard deviations.
        pairs = uneven()
        seen: Counter[str] = Counter()
        for seed in range(400):
            seen.update(i for i in treatment_sets(pairs, 0.2, 0.8, mode="absolute", seed=seed)["HOL"].ids if "ent" in i)
        assert len(seen) == 9 and all(abs(count - 400 * 6 / 9) < 5 * 9.5 for count in seen.values())

    def test_replacement_repeats_pairs_and_the_manifest_says_how_many_are_distinct(self) -> None:
        sets = treatment_sets(corpus(), 0.2, 0.8, mode="absolute", replacement=True)
        described = sets.manifest()["sets"]["HOL"]
        assert described["n"] == 27 == len(sets["HOL"]) and described["unique"] == len(set(sets["HOL"].ids)) < 27

    def test_entailment_can_be_balanced_against_the_rest(self) -> None:
        sets = treatment_sets(corpus(), 0.2, 0.8, mode="absolute", classes="entailment")
        assert sets.counts_before["HOL"] == {"entailment": 9, "non-entailment": 18}
        assert sets.counts_after["LOL"] == {"entailment": 9, "non-entailment": 9}
        assert set(sets["HOL"].labels) > {"entailment"} and "non-entailment" not in sets["HOL"].labels, (
            "labels are kept"
        )

    def test_hans_has_two_classes_of_its_own(self) -> None:
        sets = treatment_sets(corpus(labels=("entailment", "non-entailment")))
        assert sets.counts_after["HOL"] == {"entailment": 9, "non-entailment": 9}


def uneven() -> Pairs:
    """Nine entailment but only six neutral pairs in HOL, nine of both in LOL."""
    return Pairs(
        [pair for pair in corpus(labels=("entailment", "neutral")) if pair.id[-1] in "01" or pair.id not in HIGH]
    )


HIGH = {f"neutral-{tenths}-2" for tenths in (8, 9, 10)}


class TestPresets:
    def test_presets_are_the_published_settings(self) -> None:
        assert {name: (p.low, p.high, p.classes) for name, p in PRESETS.items()} == {
            "acl2024": (5, 95, "label"),
            "notes2023": (20, 80, "entailment"),
        }

    def test_a_preset_stands_for_its_bounds_and_classes(self) -> None:
        by_name = treatment_sets(corpus(20), preset="acl2024")
        by_hand = treatment_sets(corpus(20), 5, 95)
        assert by_name["HOL"] == by_hand["HOL"] and by_name["LOL"] == by_hand["LOL"]
        assert (by_name.low, by_name.high, by_name.preset) == (5, 95, "acl2024")
        assert treatment_sets(corpus(), preset="notes2023").classes == "entailment"
        assert treatment_sets(corpus(), preset="notes2023", classes="label").classes == "label"

    def test_a_preset_beside_other_bounds_is_refused(self) -> None:
        for clash in ({"low": 10}, {"high": 90}, {"mode": "absolute"}):
            with pytest.raises(InputError, match="preset 'acl2024' means percentiles 5 and 95, but low="):
                treatment_sets(corpus(), preset="acl2024", **clash)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="preset 'acl' is not known; use one of acl2024, notes2023"):
            treatment_sets(corpus(), preset="acl")


class TestWarnings:
    def test_ties_at_a_bound_that_swell_the_set_are_told(self) -> None:
        # 30 of 63 pairs score 0: the "lowest 20 %" are all of them.
        pairs = Pairs([*corpus(1), *(scored(0, f"zero{n}", THREE[n % 3]) for n in range(30))])
        with pytest.warns(UserWarning, match=r"33 of 63 pairs \(52.4%\) score exactly 0, the bound of LOL.* says 20 %"):
            treatment_sets(pairs)

    def test_without_such_ties_there_is_no_warning(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            treatment_sets(corpus(), 15, 85)
            treatment_sets(corpus(), 0.0, 1.0, mode="absolute")  # all ties, as asked for


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: treatment_sets(Pairs([], "nothing")), "nothing holds no pairs"),
            (lambda: treatment_sets(corpus(), 80, 20), "low below high; got low=80, high=20"),
            (lambda: treatment_sets(corpus(), 20, 20), "low below high; got low=20, high=20"),
            (lambda: treatment_sets(corpus(), math.nan, 80), "must be numbers, low below high; got low=nan"),
            (lambda: treatment_sets(corpus(), "20", 80), "must be numbers, low below high; got low='20'"),
            (lambda: treatment_sets(corpus(), -1, 80), "percentiles run from 0 to 100, got low=-1"),
            (lambda: treatment_sets(corpus(), 20, 101), "percentiles run from 0 to 100, got low=20, high=101"),
            (
                lambda: treatment_sets(corpus(), 0.2, 0.8),
                r"high=0\.8 is a percentile; write 80, or pass mode='absolute'",
            ),
            (lambda: treatment_sets(corpus(), mode="score"), "mode must be one of percentile, absolute, got 'score'"),
            (lambda: treatment_sets(corpus(), scorer="nltk"), "overlap scorer 'nltk' is not known"),
            (lambda: treatment_sets(corpus(), classes="two"), "classes must be one of label, entailment, got 'two'"),
            (lambda: treatment_sets(corpus(), seed=0.5), r"seed must be an integer, got 0\.5"),
            (lambda: treatment_sets(corpus(), min_per_class=0), "min_per_class must be a positive integer, got 0"),
            (
                lambda: treatment_sets(corpus(), scorer="full"),
                r"would overlap: percentiles 20 and 80 of scorer 'full' are both 0, which 90\.9% of 99 pairs score",
            ),
            (
                lambda: treatment_sets(corpus(), 20, 80, mode="absolute"),
                r"set HOL is empty: no pair of grid scores >= 80 \(scores run 0\.\.1\); .* mode='percentile'",
            ),
            (
                lambda: treatment_sets(corpus(), min_per_class=10),
                r"set HOL has 9 pairs of class 'entailment', and balancing needs 10 "
                r"\(HOL: entailment 9, neutral 9, contradiction 9; LOL: .*\); widen the bounds",
            ),
            (
                lambda: treatment_sets(Pairs([p for p in corpus() if p.label != "neutral" or overlap(p) == 0.5])),
                "set HOL has 0 pairs of class 'neutral', and balancing needs 1 .*HOL: .* neutral 0",
            ),
            (
                lambda: treatment_sets(corpus(labels=("entailment", None))),
                r"33 of 66 pairs of grid have no label \(first: 'None-0-0'\)",
            ),
            (
                lambda: treatment_sets(corpus(labels=("entailment", "neutral", "non-entailment"))),
                "mixes 'non-entailment' with 'neutral' or 'contradiction'.*classes='entailment'",
            ),
        ],
    )
    def test_it_is_named_with_its_mend(self, make: Callable[[], TreatmentSets], message: str) -> None:
        with pytest.raises(InputError, match=message):
            make()

    def test_unlabelled_pairs_can_be_cut_without_balance(self) -> None:
        sets = treatment_sets(corpus(labels=(None,)), balance=False)
        assert sets.counts_before["HOL"] == sets.counts_after["HOL"] == {"unlabelled": 9}


class TestManifest:
    def test_it_is_plain_json_and_says_how_the_sets_were_made(self, tmp_path: Path) -> None:
        sets = treatment_sets(corpus(), seed=3)
        manifest = json.loads(sets.save(tmp_path / "sets.json").read_text(encoding="utf-8"))
        assert manifest == sets.manifest()
        assert manifest["bounds"] == {"HOL": 80, "LOL": 20}
        assert manifest["thresholds"] == {"HOL": sets.high_threshold, "LOL": sets.low_threshold}
        assert (manifest["scorer"], manifest["mode"], manifest["seed"]) == ("whitespace", "percentile", 3)
        assert manifest["source_sha256"] == corpus().digest()
        assert manifest["counts_after"]["HOL"] == dict.fromkeys(THREE, 9)
        for name, described in manifest["sets"].items():
            assert tuple(described["ids"]) == sets[name].ids and described["sha256"] == sets[name].digest()

    def test_its_ids_give_the_sets_back(self) -> None:
        pairs = corpus()
        sets = treatment_sets(pairs, replacement=True)
        place = {name: at for at, name in enumerate(pairs.ids)}
        for name, described in sets.manifest()["sets"].items():
            again = pairs.subset(place[i] for i in described["ids"])
            assert again == sets[name] and again.digest() == described["sha256"]

    def test_a_folder_that_is_not_there_is_named_and_nothing_is_left_behind(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"sets\.json cannot be written .*; choose a folder that exists"):
            treatment_sets(corpus()).save(tmp_path / "none" / "sets.json")
        (tmp_path / "sets.json").mkdir()
        with pytest.raises(InputError, match="cannot be written"):
            treatment_sets(corpus()).save(tmp_path / "sets.json")
        assert [entry.name for entry in tmp_path.iterdir()] == ["sets.json"]
