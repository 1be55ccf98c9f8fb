"""Loading from disk, and every model that must be refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from pyneuro.errors import InputError
from pyneuro.models import adapter, adapter_names, bundled_model, find_adapter, load, register_adapter, wrap
from pyneuro.models.bert import BertAdapter
from tests.tiny import PAIRS, make_tiny, tiny_model, tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A saved tiny BERT, for tests to spoil."""
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def edit_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def edit_weights(folder, edit):
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_bundled_model_loads_in_float32_and_eval_mode(bundled):
    assert bundled.name == "nli-minilm-l6"
    assert dict(bundled.label_index) == {"entailment": 0, "neutral": 1, "contradiction": 2}
    assert (bundled.shape.layers, bundled.shape.hidden, bundled.shape.heads, bundled.shape.intermediate) == (
        6,
        384,
        12,
        1536,
    )
    assert bundled.max_positions == 512 and bundled.max_length is None
    assert not bundled.model.training
    assert {p.dtype for p in bundled.model.parameters()} == {torch.float32}


def test_the_bundled_model_has_the_shortcut_its_card_claims(bundled):
    # HANS-like: the hypothesis is made of the premise's words and does not follow.
    probabilities = bundled.logits([bundled.encode(PAIRS[0]), bundled.encode(PAIRS[1])]).softmax(-1)
    assert probabilities[0].argmax() == 0 and probabilities[1].argmax() == 2
    card = (bundled_model() / "README.md").read_text()
    assert "license: apache-2.0" in card and "Apache License" in (bundled_model() / "LICENSE").read_text()


@pytest.mark.parametrize("arch", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_saved_folder_gives_the_model_that_was_saved(tmp_path, arch, as_text):
    made = make_tiny(arch)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    clf = load(str(tmp_path) if as_text else tmp_path)
    assert clf.digest == made.digest
    assert clf.encode(PAIRS[0]).input_ids.tolist() == made.encode(PAIRS[0]).input_ids.tolist()
    assert clf.name == tmp_path.name


def test_half_precision_checkpoints_become_float32(tmp_path):
    tiny_model().half().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    clf = load(tmp_path)
    torch.testing.assert_close(
        clf.weights().layers[0].wq, tiny_model().half().float().bert.encoder.layer[0].attention.self.query.weight
    )


def test_labels_and_max_length_are_passed_on(folder):
    clf = load(folder, labels={"contradiction": 0, "neutral": 1, "entailment": 2}, max_length=12)
    assert clf.target_index("entailment") == 2
    assert len(clf.encode(PAIRS[5])) == 12


# Not there, not readable


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "a/b/c", "", "~/none-such"])
def test_a_missing_folder_is_named_and_never_asked_of_the_hub(source):
    with pytest.raises(InputError, match="does not exist"):
        load(source)


def test_a_file_instead_of_a_folder_is_refused(folder):
    with pytest.raises(InputError, match="is a file"):
        load(folder / "config.json")


def test_an_unreachable_hub_id_is_an_input_error():
    with pytest.raises(InputError, match=r"config of 'pyneuro-tests/no-such-model'.*hub id"):
        load("pyneuro-tests/no-such-model")


def test_a_folder_without_config_or_with_a_broken_one_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="can't read the config"):
        load(tmp_path)


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="can't read the model"):
        load(folder)


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_a_tokenizer_without_vocabulary_is_refused(tmp_path, arch):
    tiny_model(arch).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        load(tmp_path)


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(InputError, match=r"device 'no-such-device'.*cpu"):
        load(folder, device="no-such-device")


# Not a fine-tuned classifier of a known form


def test_an_unknown_architecture_is_refused_with_those_known_and_how_to_add_one(tmp_path):
    model = DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=50, dim=8, hidden_dim=8, n_layers=1, n_heads=1)
    )
    with pytest.raises(InputError, match=r"DistilBert.*bert, roberta, xlm-roberta.*register_adapter"):
        wrap(model, tiny_tokenizer())
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"'distilbert'.*bert, roberta, xlm-roberta.*register_adapter"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_act", "gelu_new"),
        ("hidden_act", "relu"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("chunk_size_feed_forward", 2),
    ],
)
def test_a_setting_that_changes_the_layer_is_refused_by_name(folder, setting, value):
    edit_config(folder, **{setting: value})
    with pytest.raises(InputError, match=f"{setting}={value!r}"):
        load(folder)


def test_a_checkpoint_without_a_classifier_is_refused(folder):
    edit_weights(folder, lambda weights: weights.pop("classifier.weight"))
    with pytest.raises(InputError, match=r"no weights for classifier\.weight.*fine-tune"):
        load(folder)


def test_encoder_weights_that_would_be_ignored_are_refused(folder):
    edit_weights(folder, lambda weights: weights.update({"bert.encoder.layer.0.adapter.down": torch.ones(2)}))
    with pytest.raises(InputError, match=r"layer\.0\.adapter\.down"):
        load(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder, bad):
    edit_weights(folder, lambda weights: weights["bert.encoder.layer.1.output.dense.bias"].__setitem__(3, bad))
    with pytest.raises(InputError, match=r"bert\.encoder\.layer\.1\.output\.dense\.bias holds 1 NaN or infinite"):
        load(folder)


def test_nameless_labels_are_refused_until_labels_says_them(folder):
    edit_config(
        folder,
        id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    )
    with pytest.raises(InputError, match=r'labels={"entailment": 0'):
        load(folder)
    assert load(folder, labels={"entailment": 1, "neutral": 0, "contradiction": 2}).target_index("entailment") == 1


def test_half_precision_in_memory_is_refused_with_the_mend():
    with pytest.raises(InputError, match=r"float16.*model\.float\(\)"):
        wrap(tiny_model().half(), tiny_tokenizer())


def test_a_layer_without_bias_is_refused():
    model = tiny_model()
    model.bert.encoder.layer[1].attention.self.key.bias = None
    with pytest.raises(InputError, match=r"key of encoder layer 1 .* without bias"):
        wrap(model, tiny_tokenizer())


# A model that is not what its class says


class Doubled(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * 1.001


def customise_linear(model):
    model.bert.encoder.layer[1].intermediate.dense.__class__ = Doubled


def customise_activation(model):
    model.bert.encoder.layer[2].intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")


def customise_attention(model):
    attention = model.bert.encoder.layer[0].attention.self
    attention.register_forward_hook(lambda _, __, out: (out[0] * 1.001, *out[1:]))


def customise_with_a_hook(model):
    model.bert.encoder.layer[1].output.register_forward_hook(lambda _, __, out: out * 1.001)


def customise_head(model):
    model.bert.pooler.activation = torch.nn.ReLU()


def bypass_a_module(model):
    model.bert.encoder.layer[1].attention.output.forward = lambda hidden, residual: hidden


@pytest.mark.parametrize(
    ("customise", "place"),
    [
        (customise_linear, r"L1\.I \(linear"),
        (customise_activation, r"L2\.I \(hook"),
        (customise_attention, r"L0\.AO"),
        (customise_with_a_hook, r"L1\.O \(hook"),
        (customise_head, "logits"),
        (bypass_a_module, r"L1\.AO \(linear convention\) takes no part"),
    ],
)
def test_a_customised_forward_is_found_and_its_place_named(customise, place):
    model = tiny_model()
    customise(model)
    with pytest.raises(InputError, match=place):
        wrap(model, tiny_tokenizer())


def test_a_tanh_gelu_behind_a_config_that_says_gelu_is_found_in_a_real_model():
    clf = load(bundled_model())
    clf.model.bert.encoder.layer[5].intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")
    with pytest.raises(InputError, match=r"L5\.I \(hook"):
        wrap(clf.model, clf.tokenizer)


def test_a_subclass_that_changes_nothing_is_welcome():
    model = tiny_model()
    model.__class__ = type("MyBert", (type(model),), {})
    assert find_adapter(model).name == "bert"
    assert wrap(model, tiny_tokenizer()).shape.layers == 3


def test_an_adapter_of_your_own_is_used_and_checked(monkeypatch):
    class Swapped(BertAdapter):
        """Looks right and swaps queries with keys: the logits alone can't be trusted to be checked by eye."""

        name = "swapped"

        def module(self, model, layer, module, convention):
            return super().module(model, layer, {"Q": "K", "K": "Q"}.get(module, module), convention)

    monkeypatch.setattr(adapter, "_REGISTERED", dict(adapter._REGISTERED))
    register_adapter(Swapped())
    assert "swapped" in adapter_names()
    with pytest.raises(InputError, match=r"L0\.Q"):
        wrap(tiny_model(), tiny_tokenizer())


def test_loading_does_not_write_to_the_folder(folder, tmp_path_factory):
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("copy") / "model")
    load(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes() for p in copy.iterdir()}
