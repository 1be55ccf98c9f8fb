"""Pairs are immutable, name what is wrong with them, and their digest is their content."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.errors import InputError

RAIN = Pair("rain", "It rains.", "Water falls.", "entailment", {"genre": "weather"})
SNOW = Pair("snow", "It rains.", "It snows.", "contradiction")
WIND = Pair("wind", "It rains.", "Wind blows.")

texts = st.text(max_size=12)
pair = st.builds(
    Pair, id=st.text(min_size=1, max_size=6), premise=texts, hypothesis=texts, label=st.sampled_from((*LABELS, None))
)


def test_a_pair_keeps_what_it_was_given() -> None:
    assert (RAIN.id, RAIN.premise, RAIN.hypothesis, RAIN.label, RAIN.meta["genre"]) == (
        "rain", "It rains.", "Water falls.", "entailment", "weather",
    )  # fmt: skip


def test_a_pair_cannot_be_changed_through_itself_or_its_meta() -> None:
    given_meta = {"genre": "weather"}
    one = Pair("a", "p", "h", meta=given_meta)
    given_meta["genre"] = "changed outside"
    assert one.meta["genre"] == "weather"
    with pytest.raises(TypeError):
        one.meta["genre"] = "x"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.label = "neutral"  # type: ignore[misc]


def test_meta_does_not_count_in_equality_or_hash() -> None:
    bare = dataclasses.replace(RAIN, meta={})
    assert bare == RAIN and hash(bare) == hash(RAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "id must be a non-empty string, got ''"),
        ({"id": 7}, "id must be a non-empty string, got 7"),
        ({"premise": None}, "pair 'rain': the premise must be a string, got NoneType None"),
        ({"hypothesis": 3.5}, "pair 'rain': the hypothesis must be a string, got float 3.5"),
        ({"label": "maybe"}, "pair 'rain': label 'maybe' is not one of entailment, neutral"),
        ({"label": 0}, "pair 'rain': label 0 is not one of"),
    ],
)
def test_a_bad_pair_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RAIN, **change)  # type: ignore[arg-type]


def test_pairs_are_a_sequence() -> None:
    pairs = Pairs([RAIN, SNOW, WIND], "here", {"label '-'": 2})
    assert len(pairs) == 3 and list(pairs) == [RAIN, SNOW, WIND] and pairs[-1] is WIND and SNOW in pairs
    assert pairs.ids == ("rain", "snow", "wind")
    assert pairs.labels == ("entailment", "contradiction", None)
    assert pairs.label_counts == {"entailment": 1, "contradiction": 1, None: 1}
    assert pairs.source == "here" and pairs.dropped == {"label '-'": 2}
    assert repr(pairs) == "Pairs(3 from here: entailment 1, contradiction 1, unlabelled 1)"


def test_slices_and_subsets_are_pairs_of_the_same_source() -> None:
    pairs = Pairs([RAIN, SNOW, WIND], "here", {"label '-'": 2})
    assert pairs[1:] == Pairs([SNOW, WIND]) and pairs[1:].source == "here"
    assert pairs.subset([2, 0, 2]).ids == ("wind", "rain", "wind")
    assert pairs.subset(np.array([1]), source="there").source == "there"
    assert pairs.subset([]).ids == ()
    assert not pairs[1:].dropped, "what reading dropped belongs to the whole"


@pytest.mark.parametrize("index", [3, -1])
def test_a_subset_outside_the_pairs_names_the_position(index: int) -> None:
    with pytest.raises(InputError, match=rf"position {index} is outside the 3 pairs of here"):
        Pairs([RAIN, SNOW, WIND], "here").subset([index])


def test_a_boolean_mask_is_not_read_as_positions() -> None:
    pairs = Pairs([RAIN, SNOW])
    for mask in ([True, False], np.array([True, False])):
        with pytest.raises(InputError, match="flatnonzero"):
            pairs.subset(mask)
    with pytest.raises(InputError, match=r"integer positions, got float 0\.5"):
        pairs.subset([0.5])  # type: ignore[list-item]


def test_pairs_cannot_be_changed() -> None:
    pairs = Pairs([RAIN])
    with pytest.raises(AttributeError, match="immutable"):
        pairs.source = "elsewhere"
    with pytest.raises(AttributeError, match="immutable"):
        del pairs.source
    with pytest.raises(TypeError):
        pairs.dropped["x"] = 1  # type: ignore[index]


def test_only_pairs_go_into_pairs() -> None:
    with pytest.raises(InputError, match=r"element 1 of memory is tuple .* not a Pair"):
        Pairs([RAIN, ("p", "h")])  # type: ignore[list-item]


def test_pairs_survive_pickling_and_copying() -> None:
    pairs = Pairs([RAIN, SNOW], "here", {"label '-'": 2})
    for twin in (pickle.loads(pickle.dumps(pairs)), copy.deepcopy(pairs)):
        assert twin == pairs and hash(twin) == hash(pairs) and twin.digest() == pairs.digest()
        assert (twin.source, twin.dropped, twin[0].meta) == (pairs.source, pairs.dropped, pairs[0].meta)


@settings(deadline=None)
@given(st.lists(pair, max_size=4), st.lists(pair, max_size=4))
def test_digests_agree_exactly_when_contents_do(left: list[Pair], right: list[Pair]) -> None:
    assert (Pairs(left).digest() == Pairs(right).digest()) == (left == right)


@settings(deadline=None)
@given(st.lists(pair, min_size=1, max_size=4), st.data())
def test_any_change_of_content_changes_the_digest(items: list[Pair], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(items) - 1))
    field = data.draw(st.sampled_from(["id", "premise", "hypothesis"]))
    changed = [*items]
    changed[at] = dataclasses.replace(items[at], **{field: getattr(items[at], field) + "x"})
    assert Pairs(changed).digest() != Pairs(items).digest()


def test_the_digest_ignores_source_and_meta_and_heeds_order() -> None:
    plain = Pairs([dataclasses.replace(RAIN, meta={}), SNOW], "elsewhere")
    assert plain.digest() == Pairs([RAIN, SNOW], "here").digest()
    assert Pairs([SNOW, RAIN]).digest() != plain.digest()


def test_the_digest_heeds_the_label() -> None:
    digests = {Pairs([dataclasses.replace(RAIN, label=label)]).digest() for label in (*LABELS, None)}
    assert len(digests) == len(LABELS) + 1


def test_text_cannot_move_between_fields_unseen() -> None:
    assert Pairs([Pair("a", "b c", "d")]).digest() != Pairs([Pair("a", "b", "c d")]).digest()
    assert Pairs([Pair("a", 'x", "y', "z")]).digest() != Pairs([Pair("a", "x", 'y", "z')]).digest()


def test_the_digest_is_the_same_on_every_machine() -> None:
    expected = hashlib.sha256(b'["a", "caf\\u00e9", "h", null]\n').hexdigest()
    assert Pairs([Pair("a", "café", "h")]).digest() == expected
