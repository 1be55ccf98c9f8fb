"""The three syntactic heuristics of HANS (McCoy, Pavlick & Linzen 2019) as flags of pairs.

Each is a special case of the one before: a constituent of the premise is a run of its words, and a run of its words
shares them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from pyneuro.data import Pair
from pyneuro.data.overlap import full_overlap, words
from pyneuro.errors import InputError

Heuristic = Literal["lexical_overlap", "subsequence", "constituent"]
HEURISTICS: tuple[Heuristic, ...] = get_args(Heuristic)
PARSES = (
    "premise_parse",
    "sentence1_parse",
)  # where a pair's meta may have it: by our name, and by that of the corpora

_BRACKETS = {"-LRB-", "-RRB-", "-LSB-", "-RSB-", "-LCB-", "-RCB-"}  # leaves that stand for punctuation
_TOKEN = re.compile(r"[()]|[^\s()]+")


def heuristic_flags(pairs: Sequence[Pair], heuristics: Sequence[Heuristic] = HEURISTICS) -> pd.DataFrame:
    """Whether each heuristic takes a pair for entailment: bool [n, heuristics], a column a heuristic.

    ================  ==================================================================
    lexical_overlap   every word of the hypothesis occurs in the premise
    subsequence       the hypothesis is a run of words of the premise
    constituent       the hypothesis is a subtree of the premise's parse, words and all
    ================  ==================================================================

    Words are as in the scorer "full": lower case, punctuation left out. A hypothesis without words has none of them.

    Parameters
    ----------
    pairs : sequence of Pair
        "constituent" needs a bracketed parse of the premise, ``(ROOT (S (NP ...) ...))``, in ``meta["premise_parse"]``
        or, as MNLI, SNLI and HANS call it, ``meta["sentence1_parse"]``: ``read_pairs(..., parses=True)`` keeps it.
    heuristics : sequence of str

    Raises
    ------
    InputError
        For an unknown heuristic, and for "constituent" where a pair has no parse or one whose brackets do not match.

    References
    ----------
    McCoy, Pavlick and Linzen, "Right for the Wrong Reasons: Diagnosing Syntactic Heuristics in Natural Language
    Inference", ACL 2019.

    Examples
    --------
    >>> pair = Pair("a", "The judge near the doctor ran.", "The doctor ran.")
    >>> heuristic_flags([pair], ["lexical_overlap", "subsequence"]).iloc[0].tolist()
    [True, True]
    """
    if unknown := [name for name in heuristics if name not in HEURISTICS]:
        raise InputError(f"heuristic {unknown[0]!r} is not one of {', '.join(HEURISTICS)}")
    decide = {"lexical_overlap": _lexical_overlap, "subsequence": _subsequence, "constituent": _constituent}
    return pd.DataFrame({name: np.array([decide[name](pair) for pair in pairs], dtype=bool) for name in heuristics})


def is_run(needle: Sequence[str], hay: Sequence[str]) -> bool:
    """Whether some words stand in others one after the other. No words do not."""
    n = len(needle)
    return n > 0 and any(list(hay[at : at + n]) == list(needle) for at in range(len(hay) - n + 1))


def _lexical_overlap(pair: Pair) -> bool:
    return bool(full_overlap(pair.premise, pair.hypothesis))


def _subsequence(pair: Pair) -> bool:
    return is_run(words(pair.hypothesis), words(pair.premise))


def _constituent(pair: Pair) -> bool:
    parse: Any = next((pair.meta[name] for name in PARSES if pair.meta.get(name)), None)
    if not isinstance(parse, str):
        raise InputError(
            f"pair {pair.id!r} has no parse of its premise, and constituents cannot be told without; read pairs with "
            f"parses=True from a corpus that has them, put one in meta[{PARSES[0]!r}], or ask for other heuristics"
        )
    phrases = {_letters(phrase) for phrase in _subtrees(parse, pair.id)}
    return _subsequence(pair) and _letters(pair.hypothesis) in phrases


def _letters(text: str) -> str:
    """What is left of a text when spaces and punctuation go: treebanks write "do n't", texts "don't"."""
    return "".join(character for character in text.lower() if character.isalnum())


def _subtrees(parse: str, pair_id: str) -> Iterator[str]:
    """The words below every node of a bracketed parse."""
    leaves: list[str] = []
    begins: list[int] = []
    before = ""
    for token in _TOKEN.findall(parse):
        if token == "(":
            begins.append(len(leaves))
        elif token == ")":
            if not begins:
                raise _unmatched(parse, pair_id)
            yield " ".join(leaves[begins.pop() :])
        elif before != "(" and token not in _BRACKETS:  # after "(" comes the node's label
            leaves.append(token)
        before = token
    if begins:
        raise _unmatched(parse, pair_id)


def _unmatched(parse: str, pair_id: str) -> InputError:
    return InputError(f"pair {pair_id!r}: the brackets of its parse {parse[:60]!r} do not match; mend the parse")
