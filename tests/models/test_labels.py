"""Which output means entailment."""

from __future__ import annotations

import pytest

from pyneuro.errors import InputError
from pyneuro.models.labels import canonical_label, resolve_labels


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ENTAILMENT", "entailment"),
        ("entail", "entailment"),
        ("Neutral", "neutral"),
        ("CONTRADICTION", "contradiction"),
        ("contradicts", "contradiction"),
        ("not_entailment", "non-entailment"),
        ("Non-Entailment", "non-entailment"),
        ("non entailment", "non-entailment"),
        ("nonentailment", "non-entailment"),
        (" Not  entailed ", "non-entailment"),
        ("LABEL_0", "label-0"),
    ],
)
def test_spellings_of_a_label_are_one(written, canonical):
    assert canonical_label(written) == canonical


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        ({0: "entailment", 1: "neutral", 2: "contradiction"}, {"entailment": 0, "neutral": 1, "contradiction": 2}),
        ({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}, {"contradiction": 0, "neutral": 1, "entailment": 2}),
        ({0: "contradiction", 1: "entailment", 2: "neutral"}, {"contradiction": 0, "entailment": 1, "neutral": 2}),
        ({1: "entailment", 0: "not_entailment"}, {"non-entailment": 0, "entailment": 1}),
        ({0: "entailment", 1: "Unknown Class"}, {"entailment": 0, "unknown-class": 1}),
    ],
)
def test_id2label_of_real_models_is_read(id2label, expected):
    found = resolve_labels(id2label, len(id2label))
    assert found == expected
    assert list(found.values()) == sorted(found.values())


def test_labels_override_what_the_config_says():
    wrong = {0: "entailment", 1: "neutral", 2: "contradiction"}
    labels = {"contradiction": 0, "entailment": 1, "neutral": 2}
    assert resolve_labels(wrong, 3, labels) == labels


def test_nameless_labels_are_refused_with_the_argument_that_mends_it():
    with pytest.raises(InputError, match=r'LABEL_0.*labels=\{"entailment": 0, "neutral": 1, "contradiction": 2\}'):
        resolve_labels({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, 3)
    with pytest.raises(InputError, match=r'labels=\{"entailment": 0, "non-entailment": 1\}'):
        resolve_labels({0: "LABEL_0", 1: "LABEL_1"}, 2)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"entailment": 0}, "each of the outputs 0..2 once"),
        ({"entailment": 0, "neutral": 1, "contradiction": 3}, "each of the outputs"),
        ({"entailment": 0, "neutral": 1, "contradiction": 1}, "each of the outputs"),
        ({"entailment": 0, "Entail": 1, "neutral": 2}, "each of the outputs"),
        ({"yes": 0, "maybe": 1, "no": 2}, "entailment is unknown"),
        ({0: "entailment", 1: "neutral", 2: "contradiction"}, "column numbers"),
        ({}, "each of the outputs"),
    ],
)
def test_a_map_that_leaves_an_output_in_doubt_is_refused(labels, reason):
    with pytest.raises(InputError, match=reason):
        resolve_labels(None, 3, labels)


def test_a_regression_head_is_refused():
    with pytest.raises(InputError, match="at least two classes"):
        resolve_labels({0: "LABEL_0"}, 1)
