"""HANS's heuristics: against pairs whose construction says which hold, and by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyneuro.data import Pair, embedded_pairs, read_pairs
from pyneuro.errors import InputError
from pyneuro.reweighting import heuristic_flags

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "hans_eval.jsonl.gz"
PARSE = (
    "(ROOT (S (PP (IN If) (S (NP (DT the) (NN judge)) (VP (VBD did) (RB n't) (VP (VB sleep))))) (, ,) "
    "(NP (DT the) (NN doctor)) (VP (VBD ran)) (. .)))"
)
PREMISE = "If the judge didn't sleep, the doctor ran."


def flags(hypothesis: str, premise: str = PREMISE, parse: str = PARSE) -> list[bool]:
    pair = Pair("p", premise, hypothesis, meta={"premise_parse": parse})
    return heuristic_flags([pair]).iloc[0].tolist()


@pytest.mark.parametrize(
    ("hypothesis", "want"),
    [
        ("The judge didn't sleep.", [True, True, True]),
        ("The doctor.", [True, True, True]),
        ("the doctor RAN", [True, True, False]),  # two nodes side by side, none over both alone
        ("Sleep, the doctor!", [True, True, False]),
        ("The doctor slept.", [False, False, False]),
        ("The doctor didn't sleep.", [True, False, False]),
        (PREMISE, [True, True, True]),
        ("...", [False, False, False]),
        ("judge did", [False, False, False]),  # of letters, not of words
    ],
)
def test_flags_by_hand(hypothesis: str, want: list[bool]) -> None:
    assert flags(hypothesis) == want


def test_flags_are_what_the_generator_built() -> None:
    pairs = embedded_pairs(600)
    found = heuristic_flags(pairs, ["lexical_overlap", "subsequence"])
    built = [str(pair.meta["heuristic"]) for pair in pairs]
    assert found["lexical_overlap"].tolist() == [name != "none" for name in built]
    assert found["subsequence"].tolist() == [name in ("subsequence", "constituent") for name in built]
    assert len(set(built)) == 4


@pytest.mark.skipif(not CORPUS.exists(), reason="the HANS corpus is not beside the project")
def test_every_pair_of_hans_fits_the_heuristic_it_was_made_for() -> None:
    pairs = read_pairs(CORPUS)
    found = heuristic_flags(pairs, ["lexical_overlap", "subsequence"])
    kinds = [pair.meta["heuristic"] for pair in pairs]
    assert found["lexical_overlap"].all()
    assert found["subsequence"][[kind in ("subsequence", "constituent") for kind in kinds]].all()
    assert not found["subsequence"][[kind == "lexical_overlap" for kind in kinds]].any()


def test_a_corpus_name_of_the_parse_will_do() -> None:
    pair = Pair("p", PREMISE, "the doctor", meta={"sentence1_parse": PARSE})
    assert heuristic_flags([pair], ["constituent"])["constituent"].tolist() == [True]


def test_brackets_and_numbers_of_a_treebank() -> None:
    parse = "(S (NP (NN dog)) (PRN (-LRB- -LRB-) (NP (CD -5) (NN c)) (-RRB- -RRB-)))"
    assert flags("-5 C", "Dog (-5 C)", parse) == [True, True, True]
    assert flags("(-5 C)", "Dog (-5 C)", parse) == [True, True, True]


def test_constituents_without_a_parse_are_not_guessed() -> None:
    pair = Pair("p7", PREMISE, "the doctor")
    assert heuristic_flags([pair], ["subsequence"])["subsequence"].tolist() == [True]
    with pytest.raises(InputError, match=r"pair 'p7' has no parse of its premise.*parses=True"):
        heuristic_flags([pair])


@pytest.mark.parametrize("parse", ["(ROOT (NP (DT the))", "(NP (DT the)))"])
def test_brackets_must_match(parse: str) -> None:
    with pytest.raises(InputError, match="brackets of its parse"):
        flags("the", "the", parse)


def test_an_unknown_heuristic_is_named() -> None:
    with pytest.raises(InputError, match="heuristic 'length' is not one of lexical_overlap, subsequence, constituent"):
        heuristic_flags([], ["length"])
