"""The real corpora, where they lie beside the repository: published numbers come out of them."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

from pyneuro.data import Pairs, overlap_scores, read_pairs, split_roles, treatment_sets

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def real(name: str) -> Pairs:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{name} is not in shared/data beside the repository")
    return read_pairs(path)


@pytest.mark.parametrize(
    ("name", "rows"),
    [("mnli_dev_matched", 9815), ("mnli_dev_mismatched", 9832), ("snli_dev", 9842), ("hans_eval", 30000)],
)
def test_corpora_are_read_whole(name: str, rows: int) -> None:
    pairs = real(name)
    assert len(pairs) == rows and not pairs.dropped and len(set(pairs.ids)) == rows
    expected = {"entailment", "non-entailment"} if name == "hans_eval" else {"entailment", "neutral", "contradiction"}
    assert set(pairs.labels) == expected


def test_the_published_thresholds_of_mnli_matched() -> None:
    # Lim et al. print {HOL: 0.7777..., LOL: 0.0} for the 95th and 5th percentile.
    pairs = real("mnli_dev_matched")
    with pytest.warns(UserWarning, match=r"score exactly 0, the bound of LOL"):
        sets = treatment_sets(pairs, preset="acl2024")
    assert (sets.high_threshold, sets.low_threshold) == (pytest.approx(7 / 9), 0.0)
    assert sets.counts_after["HOL"] == sets.counts_after["LOL"]
    assert min(sets.counts_before["HOL"].values()) == len(sets["HOL"]) // 3


def test_the_default_percentiles_of_mnli_matched_are_not_scores_of_80_and_20_percent() -> None:
    sets = treatment_sets(real("mnli_dev_matched"))
    assert 0.55 < sets.high_threshold < 0.65 and 0.15 < sets.low_threshold < 0.25
    assert len(sets["HOL"]) == len(sets["LOL"]) > 900


def test_overlap_foretells_entailment_in_mnli() -> None:
    # The shortcut itself: high-overlap pairs are entailed more often, before balancing.
    counts = treatment_sets(real("mnli_dev_matched")).counts_before
    share = {name: counts[name]["entailment"] / sum(counts[name].values()) for name in counts}
    assert share["HOL"] > 0.5 and share["LOL"] < 0.25


def test_every_hans_hypothesis_is_made_of_its_premise() -> None:
    pairs = real("hans_eval")
    for scorer in ("whitespace", "clark", "full"):
        assert overlap_scores(pairs, scorer).min() == 1.0
    assert Counter(pair.meta["heuristic"] for pair in pairs) == {
        "lexical_overlap": 10000,
        "subsequence": 10000,
        "constituent": 10000,
    }


def test_roles_of_a_real_corpus_leave_enough_for_treatment_sets() -> None:
    pairs = real("mnli_dev_matched")
    roles = split_roles(pairs)
    assert [len(part) for part in (roles.treatment, roles.nie, roles.tune, roles.test)] == pytest.approx(
        [3926, 3926, 981.5, 981.5], abs=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sets = treatment_sets(roles.treatment)
    assert len(sets["HOL"]) > 300 and not set(sets["HOL"].ids) & set(roles.nie.ids)
