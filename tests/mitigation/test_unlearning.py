"""Gradients of chosen rows are reversed or zeroed, others are not there; any trainer; the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pyneuro as pn
from pyneuro.data import Pair
from pyneuro.errors import InputError
from pyneuro.mitigation import advantaged_samples, unlearning
from pyneuro.models import Classifier
from pyneuro.sites import NeuronSet
from tests.tiny import PAIRS, fingerprint, make_tiny

NAMES = ["L1.I.7", "L1.I.1", "L0.AO.4"]
LABELS = ["entailment", "neutral", "contradiction"]
TRAINED = {"bert.encoder.layer.1.intermediate.dense": [1, 7], "bert.encoder.layer.0.attention.output.dense": [4]}


@pytest.fixture
def clf() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [Pair(f"{a}{b}", PAIRS[a].premise, PAIRS[b].hypothesis, LABELS[b % 3]) for a in range(4) for b in range(3)]


def gradients(clf: Classifier, pairs: list[Pair]) -> dict[str, torch.Tensor]:
    gold = torch.tensor([clf.label_index[str(pair.label)] for pair in pairs])
    clf.model.zero_grad()
    logits = clf.model(**clf.batch([clf.encode(pair) for pair in pairs])).logits
    torch.nn.functional.cross_entropy(logits, gold).backward()
    return {name: p.grad.clone() for name, p in clf.model.named_parameters() if p.grad is not None}


def rows_of(name: str) -> list[int]:
    return TRAINED.get(name.rpartition(".")[0], [])


@pytest.mark.parametrize(
    ("rows", "rest", "inside", "outside"),
    [("reverse", "freeze", -1, 0), ("keep", "freeze", 1, 0), ("zero", "keep", 0, 1), ("reverse", "keep", -1, 1)],
)
def test_gradients_are_edited_row_by_row(
    clf: Classifier, pairs: list[Pair], rows: str, rest: str, inside: int, outside: int
) -> None:
    plain = gradients(clf, pairs)
    with unlearning(clf, NeuronSet.parse(NAMES, clf.shape), rows=rows, rest=rest):
        found = gradients(clf, pairs)
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        wanted = outside * plain[name]
        wanted[rows_of(name)] = inside * plain[name][rows_of(name)]
        torch.testing.assert_close(gradient, wanted)


def test_hooks_and_flags_are_as_before_also_after_an_error(clf: Classifier, pairs: list[Pair]) -> None:
    clf.model.bert.embeddings.requires_grad_(False)
    before, plain = fingerprint(clf.model), gradients(clf, pairs)
    with pytest.raises(ZeroDivisionError), unlearning(clf, NeuronSet.parse(NAMES, clf.shape)):
        raise ZeroDivisionError
    clf.model.zero_grad()
    assert fingerprint(clf.model) == before
    for name, gradient in gradients(clf, pairs).items():
        torch.testing.assert_close(gradient, plain[name])


def test_what_was_frozen_before_stays_so_where_the_rest_is_kept(clf: Classifier, pairs: list[Pair]) -> None:
    clf.model.bert.embeddings.requires_grad_(False)
    with unlearning(clf, NeuronSet.parse(NAMES, clf.shape), rows="zero", rest="keep"):
        assert not any("embeddings" in name for name in gradients(clf, pairs))


def test_a_trainer_moves_the_chosen_rows_alone_and_up_the_loss(clf: Classifier, pairs: list[Pair]) -> None:
    pytest.importorskip("accelerate")
    before = {name: value.clone() for name, value in clf.model.state_dict().items()}
    plain = gradients(clf, pairs)
    clf.model.zero_grad()
    with unlearning(clf, NeuronSet.parse(NAMES, clf.shape)):
        pn.masking.fine_tune(clf, pairs, epochs=1, lr=1e-4, warmup=0.0, batch_size=len(pairs))
    for name, value in clf.model.state_dict().items():
        moved = (value - before[name]).abs().flatten(1).amax(1) if value.dim() > 1 else (value - before[name]).abs()
        assert torch.nonzero(moved).flatten().tolist() == rows_of(name), name
    name = "bert.encoder.layer.1.intermediate.dense.bias"
    step = (clf.model.state_dict()[name] - before[name])[[1, 7]]
    assert torch.equal(step.sign(), plain[name][[1, 7]].sign())


def test_weight_decay_on_what_is_frozen_is_noticed(clf: Classifier, pairs: list[Pair]) -> None:
    optimiser = torch.optim.AdamW(clf.model.parameters(), lr=1e-3, weight_decay=0.1)
    with pytest.raises(InputError, match="weight_decay=0"), unlearning(clf, NeuronSet.parse(NAMES, clf.shape)):
        gradients(clf, pairs)
        optimiser.step()


def test_rows_that_do_not_learn_are_checked_too(clf: Classifier, pairs: list[Pair]) -> None:
    neurons = NeuronSet.parse(NAMES, clf.shape)
    plain = torch.optim.SGD(clf.model.parameters(), lr=1e-3)
    with unlearning(clf, neurons, rows="zero", rest="keep"):
        gradients(clf, pairs)
        plain.step()
    bias = clf.model.bert.encoder.layer[1].intermediate.dense.bias
    moved, frozen = pytest.raises(InputError, match="parameters moved"), torch.no_grad()
    with moved, unlearning(clf, neurons, rows="zero", rest="keep"), frozen:
        bias[7] += 1.0


def test_advantaged_samples_are_wrong_where_the_bias_speaks_for_the_class(clf: Classifier, pairs: list[Pair]) -> None:
    four = [Pair(str(i), "a", "b", label) for i, label in enumerate(["entailment", "neutral", "neutral", "neutral"])]
    main = np.eye(3)[[1, 0, 1, 2]]  # wrong, wrong, right, wrong
    bias = np.eye(3)[[0, 0, 0, 2]]
    assert advantaged_samples(clf, main, bias, four).tolist() == [True, True, False, False]
    assert advantaged_samples(clf, main, bias, four, "contradiction").tolist() == [False, False, False, True]


def test_bad_input_is_named(clf: Classifier, pairs: list[Pair]) -> None:
    neurons = NeuronSet.parse(NAMES, clf.shape)
    other = make_tiny(layers=1, hidden=8, heads=2, intermediate=12)
    for of, members, options, message in (
        (other, neurons, {}, "the neurons are of a model"),
        (clf, NeuronSet(clf.shape, []), {}, "no neurons"),
        (clf, neurons, {"rows": "flip"}, "rows = 'flip'"),
        (clf, neurons, {"rest": "flip"}, "rest = 'flip'"),
        (clf, neurons, {"rows": "zero"}, "trains nothing"),
        (clf, neurons, {"rows": "keep", "rest": "keep"}, "as ever"),
    ):
        with pytest.raises(InputError, match=message), unlearning(of, members, **options):
            pass
    pn.masking.apply(clf, "I")
    with (
        pytest.raises(InputError, match=r"L1\.I is a MaskedLinear"),
        unlearning(clf, NeuronSet.parse("L1.I.0", clf.shape)),
    ):
        pass
    with pytest.raises(InputError, match=r"p_bias is \[2, 3\] for 12 pairs"):
        advantaged_samples(clf, np.full((12, 3), 1 / 3), np.eye(3)[:2], pairs)
    unlabelled = [Pair("x", "a", "b", None)]
    with pytest.raises(InputError, match="pair 'x' has label None"):
        advantaged_samples(clf, np.eye(3)[:1], np.eye(3)[:1], unlabelled)
