"""Seeded draws that any machine and any library version repeats.

Positions are ordered by the sha256 of (seed, purpose, pair), not by a random number generator whose stream may change
between releases. The order in which a corpus lists its pairs does not matter either: a pair keeps its place in the draw
wherever it stands.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable

from pyneuro.data.pairs import Pairs
from pyneuro.errors import InputError, is_whole


def check_seed(seed: int) -> int:
    """The seed, if it is an integer; InputError otherwise."""
    if not is_whole(seed):
        raise InputError(f"seed must be an integer, got {seed!r}")
    return int(seed)


def draw_key(seed: int, purpose: str, *parts: str) -> bytes:
    """Sort key, uniform over 256 bits, of one thing in one draw. JSON keeps the parts apart."""
    return hashlib.sha256(json.dumps([seed, purpose, *parts]).encode("ascii")).digest()


def shuffled(pairs: Pairs, positions: Iterable[int], seed: int, purpose: str) -> list[int]:
    """The positions (each once) in random order."""
    copies: Counter[tuple[str, str, str]] = Counter()
    keys: dict[int, bytes] = {}
    for position in positions:
        pair = pairs[position]
        content = (pair.id, pair.premise, pair.hypothesis)
        keys[position] = draw_key(seed, purpose, *content, str(copies[content]))
        copies[content] += 1  # else the copies of a pair would come out side by side
    return sorted(keys, key=keys.__getitem__)


def sample(pairs: Pairs, positions: Iterable[int], n: int, *, replacement: bool, seed: int, purpose: str) -> list[int]:
    """``n`` of the positions, in random order; without replacement there must be as many."""
    order = shuffled(pairs, positions, seed, purpose)
    if replacement:
        # The remainder of a 256-bit number is uniform to within 2^-230 for any corpus.
        order = [order[int.from_bytes(draw_key(seed, purpose, str(at)), "big") % len(order)] for at in range(n)]
    return order[:n]
