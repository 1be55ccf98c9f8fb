"""Split one corpus into roles that share no pair.

The values a neuron is patched with, the effects, the choice of k or epsilon and the final test must not see the same
pairs: with one split for all, as in the published code, every later number is optimistic.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyneuro.data.draw import check_seed, draw_key, shuffled
from pyneuro.data.manifest import describe, write_json
from pyneuro.data.pairs import Pair, Pairs
from pyneuro.errors import InputError, is_number

ROLES: tuple[str, ...] = ("treatment", "nie", "tune", "test")
ROLE_FRACTIONS: Mapping[str, float] = MappingProxyType({"treatment": 0.4, "nie": 0.4, "tune": 0.1, "test": 0.1})


@dataclass(frozen=True)
class Roles:
    """Four disjoint parts of one corpus, each in random order, and how they were made.

    Attributes
    ----------
    treatment : Pairs
        From these ``treatment_sets`` are cut and mean activations taken.
    nie : Pairs
        On these effects are measured. Shuffled, so that any prefix or batch is a fair sample.
    tune : Pairs
        On these thresholds, k and epsilon are chosen.
    test : Pairs
        Touched once, at the end.
    seed : int
    fractions : mapping of role to float
    source, source_digest : str
        The corpus that was split.
    """

    treatment: Pairs
    nie: Pairs
    tune: Pairs
    test: Pairs
    seed: int
    fractions: Mapping[str, float]
    source: str
    source_digest: str

    def manifest(self) -> dict[str, Any]:
        """What repeats or checks the split, in plain JSON types: seed, fractions, and ids and sha256 of every role."""
        return {
            "kind": "roles",
            "source": self.source,
            "source_sha256": self.source_digest,
            "seed": self.seed,
            "fractions": dict(self.fractions),
            "roles": {role: describe(getattr(self, role)) for role in ROLES},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the manifest as JSON; returns the path. Raises InputError when it cannot be written."""
        return write_json(self.manifest(), path)


def split_roles(pairs: Pairs, seed: int = 0, fractions: Mapping[str, float] = ROLE_FRACTIONS) -> Roles:
    """Split pairs into treatment, nie, tune and test.

    Pairs with the same texts (case and white space aside) go to one role together, whatever their ids and labels, so a
    duplicate cannot leak. Within every label the roles get their fractions to within one pair or one group of
    duplicates. MNLI and SNLI write about three hypotheses to a premise; these may part.

    Parameters
    ----------
    pairs : Pairs
        With distinct ids, which the manifest refers to. Unlabelled pairs count as one more label.
    seed : int
        The same seed and pairs give the same roles on any machine, in whatever order the pairs stand.
    fractions : mapping of role to float
        Share of each role; the shares add up to 1. A role left out gets nothing.

    Returns
    -------
    Roles
        Disjoint, and together all of ``pairs``.

    Raises
    ------
    InputError
        An unknown role, a negative share, shares that do not add up to 1, a repeated id, or too few pairs to give every
        role with a share at least one.

    Examples
    --------
    >>> pairs = Pairs(Pair(f"p{n}", "premise", f"hypothesis {n}", "neutral") for n in range(10))
    >>> roles = split_roles(pairs)
    >>> len(roles.treatment), len(roles.nie), len(roles.tune), len(roles.test)
    (4, 4, 1, 1)
    """
    seed = check_seed(seed)
    shares = _check_fractions(fractions)
    _check_ids(pairs)

    groups: dict[tuple[str, str], list[int]] = {}
    for position, pair in enumerate(pairs):
        groups.setdefault(text_key(pair), []).append(position)
    # A group whose copies disagree about the label is a stratum of its own: it belongs to none of their labels.
    strata: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for key, members in groups.items():
        strata.setdefault(tuple(sorted({pairs[at].label or "" for at in members})), []).append(key)

    members_of: dict[str, list[int]] = {role: [] for role in ROLES}
    for keys in strata.values():
        keys.sort(key=lambda key: draw_key(seed, "roles", *key))
        for role, key in _deal(keys, groups, shares):
            members_of[role] += groups[key]
    for role, share in shares.items():
        if share > 0 and not members_of[role]:
            raise InputError(
                f"role {role!r} has the share {share:g} but {len(pairs)} pairs of {pairs.source} leave it empty; "
                "pass more pairs, or other fractions"
            )
    parts = {
        role: pairs.subset(shuffled(pairs, positions, seed, "roles/order"), f"{pairs.source} ({role})")
        for role, positions in members_of.items()
    }
    return Roles(
        **parts, seed=seed, fractions=MappingProxyType(shares), source=pairs.source, source_digest=pairs.digest()
    )


def _deal(
    keys: list[tuple[str, str]], groups: Mapping[tuple[str, str], list[int]], shares: Mapping[str, float]
) -> list[tuple[str, tuple[str, str]]]:
    """Cut a stratum's ordered groups at the cumulative shares of its pairs; a group goes where its middle falls."""
    total = sum(len(groups[key]) for key in keys)
    ends = [(role, end) for role, end in zip(shares, _cumulative(shares), strict=True) if shares[role] > 0]
    dealt, before = [], 0
    for key in keys:
        middle = (before + len(groups[key]) / 2) / total
        role = next((role for role, end in ends if middle < end), ends[-1][0])
        dealt.append((role, key))
        before += len(groups[key])
    return dealt


def _cumulative(shares: Mapping[str, float]) -> list[float]:
    return [math.fsum(list(shares.values())[: at + 1]) for at in range(len(shares))]


def text_key(pair: Pair) -> tuple[str, str]:
    """What an uncased tokenizer sees of the texts: equal keys would be equal inputs."""
    return " ".join(pair.premise.split()).casefold(), " ".join(pair.hypothesis.split()).casefold()


def _check_fractions(fractions: Mapping[str, float]) -> dict[str, float]:
    unknown = [role for role in fractions if role not in ROLES]
    if unknown:
        raise InputError(f"fractions name {unknown[0]!r}, which is no role; the roles are {', '.join(ROLES)}")
    shares = {}
    for role in ROLES:
        share = fractions.get(role, 0.0)
        if not is_number(share) or not 0 <= share <= 1:
            raise InputError(f"the fraction of role {role!r} must be a number from 0 to 1, got {share!r}")
        shares[role] = float(share)
    total = math.fsum(shares.values())
    if not math.isclose(total, 1.0, abs_tol=1e-9):
        given = ", ".join(f"{role} {share:g}" for role, share in shares.items())
        raise InputError(f"fractions must add up to 1, got {total:g} ({given})")
    return shares


def _check_ids(pairs: Pairs) -> None:
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise InputError(
                f"id {pair.id!r} occurs more than once in {pairs.source}; roles are recorded by id, so make ids "
                "distinct (read_pairs(..., columns={'id': None}) numbers the rows)"
            )
        seen.add(pair.id)
