"""Roles share no text, cover the corpus, keep its class shares, and are the same everywhere."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.data.roles import ROLE_FRACTIONS, ROLES, Roles, split_roles
from pyneuro.errors import InputError

# Few distinct texts, so that drawn corpora are full of duplicates, some with other labels.
drawn_rows = st.lists(st.tuples(st.integers(0, 40), st.sampled_from((*LABELS, None))), min_size=10, max_size=120)
shares = (
    st.lists(st.integers(0, 5), min_size=4, max_size=4)
    .filter(any)
    .map(lambda parts: {role: part / sum(parts) for role, part in zip(ROLES, parts, strict=True)})
)


def corpus_of(rows: list[tuple[int, str | None]]) -> Pairs:
    return Pairs([Pair(f"p{at}", f"premise {text % 7}", f"hyp {text}", label) for at, (text, label) in enumerate(rows)])


def split(pairs: Pairs, *args: Any) -> Roles:
    try:
        return split_roles(pairs, *args)
    except InputError as error:
        assume("leave it empty" not in str(error))
        raise


def parts(roles: Roles) -> dict[str, Pairs]:
    return {role: getattr(roles, role) for role in ROLES}


CORPUS = Pairs([Pair(f"p{n}", f"premise {n // 3}", f"hypothesis {n}", LABELS[n % 3]) for n in range(600)], "even")


@settings(deadline=None)
@given(drawn_rows, st.integers(), shares)
def test_roles_are_disjoint_and_cover(
    rows: list[tuple[int, str | None]], seed: int, fractions: dict[str, float]
) -> None:
    pairs = corpus_of(rows)
    roles = split(pairs, seed, fractions)
    ids = [i for part in parts(roles).values() for i in part.ids]
    assert sorted(ids) == sorted(pairs.ids)


@settings(deadline=None)
@given(drawn_rows, st.integers())
def test_equal_texts_never_part(rows: list[tuple[int, str | None]], seed: int) -> None:
    roles = split(corpus_of(rows), seed)
    homes: dict[tuple[str, str], set[str]] = {}
    for role, part in parts(roles).items():
        for pair in part:
            homes.setdefault((pair.premise, pair.hypothesis), set()).add(role)
    assert all(len(home) == 1 for home in homes.values())


def test_case_and_white_space_do_not_make_another_text() -> None:
    copies = [Pair(f"copy{n}", p, h) for n, (p, h) in enumerate([("A b", "c"), ("a  B ", "C"), ("a\tb", " c\n")])]
    for seed in range(20):
        roles = split_roles(Pairs([*CORPUS, *copies]), seed)
        assert sum(any(i.startswith("copy") for i in part.ids) for part in parts(roles).values()) == 1


@settings(deadline=None)
@given(drawn_rows, st.integers(), st.randoms(use_true_random=False))
def test_the_same_seed_gives_the_same_roles_in_whatever_order(
    rows: list[tuple[int, str | None]], seed: int, random: Random
) -> None:
    pairs = corpus_of(rows)
    order = list(range(len(pairs)))
    random.shuffle(order)
    left, right = split(pairs, seed), split(pairs.subset(order), seed)
    assert parts(left) == parts(right)


def test_roles_never_change_from_one_release_to_the_next() -> None:
    roles = split_roles(CORPUS, seed=0)
    assert roles.test.ids[:4] == ("p556", "p217", "p156", "p214")
    assert {role: part.digest()[:8] for role, part in parts(roles).items()} == {
        "treatment": "d01b0020",
        "nie": "fe0ab342",
        "tune": "a2c0282f",
        "test": "2d7d02f4",
    }


def test_another_seed_gives_other_roles() -> None:
    assert len({split_roles(CORPUS, seed).test.digest() for seed in range(5)}) == 5


def test_every_label_is_split_in_the_fractions() -> None:
    roles = split_roles(CORPUS)
    for role, part in parts(roles).items():
        assert Counter(part.labels) == dict.fromkeys(LABELS[:3], round(200 * ROLE_FRACTIONS[role]))


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(), shares)
def test_sizes_miss_their_share_by_less_than_a_pair(n: int, seed: int, fractions: dict[str, float]) -> None:
    roles = split(Pairs([Pair(f"p{i}", "p", f"h{i}", "neutral") for i in range(n)]), seed, fractions)
    for role, part in parts(roles).items():
        assert abs(len(part) - fractions[role] * n) <= 1


def test_roles_are_shuffled() -> None:
    in_class_order = Pairs(sorted(CORPUS, key=lambda pair: str(pair.label)))
    for part in parts(split_roles(in_class_order)).values():
        runs = 1 + sum(left != right for left, right in pairwise(part.labels))
        assert runs > len(part) / 3, "as many changes of label as chance gives, not two"
    assert set(split_roles(in_class_order).nie[:15].labels) == set(LABELS[:3])


def test_a_role_left_out_gets_nothing() -> None:
    roles = split_roles(CORPUS, fractions={"treatment": 0.5, "nie": 0.5})
    assert (len(roles.treatment), len(roles.nie), len(roles.tune), len(roles.test)) == (300, 300, 0, 0)


def test_roles_remember_where_they_come_from() -> None:
    roles = split_roles(CORPUS, 7)
    assert roles.source == "even" and roles.nie.source == "even (nie)"
    assert roles.source_digest == CORPUS.digest() and roles.seed == 7


def test_the_manifest_is_plain_json_and_gives_the_roles_back(tmp_path: Path) -> None:
    roles = split_roles(CORPUS, 7)
    manifest = json.loads(roles.save(tmp_path / "roles.json").read_text(encoding="utf-8"))
    assert manifest == roles.manifest()
    assert manifest["seed"] == 7 and manifest["fractions"] == dict(ROLE_FRACTIONS)
    place = {name: at for at, name in enumerate(CORPUS.ids)}
    for role, part in parts(roles).items():
        described = manifest["roles"][role]
        again = CORPUS.subset(place[i] for i in described["ids"])
        assert again == part and described["sha256"] == again.digest()


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 1.0}, "fractions name 'train', which is no role; the roles are treatment, nie, tune, test"),
        ({"treatment": 1.2, "nie": -0.2}, r"fraction of role 'treatment' must be a number from 0 to 1, got 1\.2"),
        ({"treatment": "half"}, "fraction of role 'treatment' must be a number from 0 to 1, got 'half'"),
        ({"treatment": 0.5, "nie": 0.4}, r"must add up to 1, got 0\.9 \(treatment 0\.5, nie 0\.4, tune 0, test 0\)"),
        ({}, "must add up to 1, got 0"),
    ],
)
def test_wrong_fractions_are_named(fractions: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_roles(CORPUS, fractions=fractions)


def test_too_few_pairs_for_a_role_are_refused() -> None:
    with pytest.raises(InputError, match=r"role 'test' has the share 0\.1 but 3 pairs of even leave it empty"):
        split_roles(CORPUS.subset([0, 3, 6]))


def test_a_repeated_id_is_refused() -> None:
    with pytest.raises(InputError, match="id 'p1' occurs more than once in even"):
        split_roles(CORPUS.subset([0, 1, 1]))


@pytest.mark.parametrize("seed", [None, 1.0, "0", True])
def test_a_seed_is_an_integer(seed: Any) -> None:
    with pytest.raises(InputError, match=f"seed must be an integer, got {seed!r}"):
        split_roles(CORPUS, seed)
