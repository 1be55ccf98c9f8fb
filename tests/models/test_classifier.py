"""What a Classifier does with pairs, and what it leaves alone."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from pyneuro.errors import InputError
from pyneuro.models import wrap
from tests.tiny import PAIRS, SamplePair, fingerprint, make_tiny, tiny_model, tiny_tokenizer


def test_encoding_is_the_tokenizers_own_without_padding(bundled):
    pair = PAIRS[0]
    encoding = bundled.encode(pair)
    expected = bundled.tokenizer(pair.premise, pair.hypothesis)
    assert encoding.input_ids.tolist() == expected["input_ids"]
    assert encoding.token_type_ids.tolist() == expected["token_type_ids"]
    assert encoding.input_ids.dtype == encoding.token_type_ids.dtype == torch.int64
    assert (encoding.id, encoding.label, len(encoding)) == (pair.id, pair.label, len(expected["input_ids"]))


def test_roberta_has_no_second_token_type():
    encoding = make_tiny("roberta").encode(PAIRS[0])
    assert encoding.token_type_ids.tolist() == [0] * len(encoding)


def test_one_token_texts_are_pairs(bundled):
    encoding = bundled.encode(SamplePair("short", "Yes", "No"))
    assert len(encoding) == 5
    assert bundled.logits([encoding]).shape == (1, 3)


@pytest.mark.parametrize("field", ["premise", "hypothesis"])
@pytest.mark.parametrize("text", ["", "  \n", None, float("nan")])
def test_a_text_that_is_missing_is_refused_with_the_pairs_id(bundled, field, text):
    with pytest.raises(InputError, match=rf"'p3'.*{field}.*non-empty"):
        bundled.encode(replace(PAIRS[3], **{field: text}))


@pytest.mark.parametrize("field", ["premise", "hypothesis"])
def test_half_a_surrogate_pair_is_refused_with_a_mend_that_works(bundled, field):
    text = "Dogs \ud83d\ude00 bark \ud800."
    with pytest.raises(InputError, match=rf"'p3': its {field} holds half .*'\\ud83d' at character 5; clean") as caught:
        bundled.encode(replace(PAIRS[3], **{field: text}))
    mend = str(caught.value).partition("clean the text with ")[2]
    mended = eval(f"text{mend}", {"text": text})
    assert mended == "Dogs \N{GRINNING FACE} bark \N{REPLACEMENT CHARACTER}."
    bundled.encode(replace(PAIRS[3], **{field: mended}))


def test_a_pair_too_long_is_refused_with_id_length_limit_and_mend():
    clf = make_tiny(max_positions=16)
    with pytest.raises(InputError, match=r"'p5' has 24 tokens.*takes 16.*max_length=16"):
        clf.encode(PAIRS[5])


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_a_pair_may_fill_every_position(arch):
    limit = len(make_tiny(arch).encode(PAIRS[5]))
    clf = make_tiny(arch, max_positions=limit)
    assert clf.max_positions == limit
    assert torch.isfinite(clf.logits([clf.encode(PAIRS[5])])).all()


def test_max_length_truncates_the_longer_text_and_keeps_both():
    encoding = make_tiny(max_length=12).encode(PAIRS[5])
    assert len(encoding) == 12
    assert set(encoding.token_type_ids.tolist()) == {0, 1}


@pytest.mark.parametrize("max_length", [0, 4, 65])
def test_a_max_length_that_cannot_be_is_refused(max_length):
    with pytest.raises(InputError, match=f"max_length={max_length}.*5 to 64"):
        make_tiny(max_length=max_length)


def test_a_tokenizer_of_another_model_is_refused():
    model = tiny_model()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["Somebody"])  # its id lies behind the model's embeddings
    with pytest.raises(InputError, match="saved with the model"):
        wrap(model, tokenizer)


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_a_padded_batch_gives_what_each_pair_gives_alone(arch):
    clf = make_tiny(arch, dtype=torch.float64)
    encodings = [clf.encode(pair) for pair in PAIRS]
    alone = torch.cat([clf.logits([e]) for e in encodings])
    torch.testing.assert_close(clf.logits(encodings), alone, rtol=1e-10, atol=1e-10)
    with pytest.raises(InputError, match="at least one"):
        clf.logits([])


def test_target_index_accepts_spellings_and_lists_labels(bundled):
    assert bundled.target_index("entailment") == 0
    assert bundled.target_index("Contradiction") == 2
    assert make_tiny(labels=2).target_index("not_entailment") == 1
    with pytest.raises(InputError, match=r"'non-entailment'.*'entailment', 'neutral', 'contradiction'"):
        bundled.target_index("non-entailment")


@pytest.mark.parametrize("training", [True, False])
def test_a_wrapped_model_is_left_as_it_was_and_dropout_is_off(training):
    model = tiny_model().train(training)
    model.bert.pooler.eval()  # flags may differ inside a model
    before = fingerprint(model)
    clf = wrap(model, tiny_tokenizer())
    encodings = [clf.encode(pair) for pair in PAIRS]
    assert torch.equal(clf.logits(encodings), clf.logits(encodings))
    assert torch.equal(clf.embed(encodings[0]), clf.embed(encodings[0]))
    assert not clf.logits(encodings).requires_grad and not clf.embed(encodings[0]).requires_grad
    clf.weights(torch.float64)
    with pytest.raises(InputError):
        clf.encode(SamplePair("empty", "", ""))
    with pytest.raises(RuntimeError), clf.inference() as running:
        assert not running.training and not torch.is_grad_enabled()
        raise RuntimeError("inside")
    assert fingerprint(model) == before


def test_digest_tells_models_apart_by_weights_heads_and_epsilon():
    digest = make_tiny().digest
    assert digest == make_tiny().digest
    others = [
        make_tiny(seed=1),
        make_tiny(heads=4),
        make_tiny(eps=1e-6),
        make_tiny("roberta"),
        make_tiny(dtype=torch.float64),
    ]
    model = tiny_model()
    with torch.no_grad():
        model.classifier.bias[1] += 1e-6
    others.append(wrap(model, tiny_tokenizer()))
    assert len({digest, *(clf.digest for clf in others)}) == 1 + len(others)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda clf: pickle.loads(pickle.dumps(clf))])
def test_a_copy_is_a_classifier_of_its_own(copied):
    clf = make_tiny()
    other = copied(clf)
    assert dict(other.label_index) == dict(clf.label_index) and other.digest == clf.digest
    with pytest.raises(TypeError):
        other.label_index["entailment"] = 2
    with torch.no_grad():
        next(other.model.parameters()).add_(1.0)
    assert other.digest != clf.digest
