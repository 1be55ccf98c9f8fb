"""The plain-torch forward and the adapters, against HuggingFace's own forward."""

from __future__ import annotations

import copy

import pytest
import torch

from pyneuro.models.weights import forward, head_forward, layer_forward
from pyneuro.sites import MODULES
from tests.tiny import PAIRS, make_tiny

SIZES = [
    {},
    {"layers": 1, "hidden": 15, "heads": 5, "intermediate": 7, "labels": 2},
    {"layers": 4, "hidden": 22, "heads": 11, "intermediate": 65, "labels": 5, "seed": 3},
    {"layers": 2, "hidden": 13, "heads": 1, "intermediate": 1, "eps": 1e-3},
]
ARCHITECTURES = ["bert", "roberta", "xlm-roberta"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_plain_forward_gives_the_logits_of_huggingface_in_float64(arch, sizes):
    clf = make_tiny(arch, dtype=torch.float64, **sizes)
    weights = clf.weights(torch.float64)
    for pair in PAIRS:
        encoding = clf.encode(pair)
        logits = clf.model(input_ids=encoding.input_ids[None], token_type_ids=encoding.token_type_ids[None]).logits[0]
        torch.testing.assert_close(forward(weights, clf.embed(encoding, torch.float64)), logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_any_attention_implementation_is_the_same_model(attention):
    clf = make_tiny(attn=attention)
    encoding = clf.encode(PAIRS[0])
    expected = forward(clf.weights(torch.float64), clf.embed(encoding, torch.float64))
    torch.testing.assert_close(clf.logits([encoding])[0].double(), expected, rtol=1e-5, atol=1e-5)


def test_bundled_model_agrees_with_its_adapter(bundled):
    encodings = [bundled.encode(pair) for pair in PAIRS]
    batched = bundled.logits(encodings)
    for row, encoding in zip(batched, encodings, strict=True):
        torch.testing.assert_close(forward(bundled.weights(), bundled.embed(encoding)), row, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("convention", ["linear", "hook"])
def test_every_site_of_the_trace_is_what_a_hook_on_its_module_sees(arch, convention):
    clf = make_tiny(arch, dtype=torch.float64)
    encoding = clf.encode(PAIRS[1])
    seen = {}
    model = copy.deepcopy(clf.model)  # hooks on a copy: the classifier's own model stays as it is
    for layer, module in clf.shape.groups():
        place = clf.adapter.module(model, layer, module, convention)
        place.register_forward_hook(lambda _, __, out, key=(layer, module): seen.__setitem__(key, out[0]))
    model(input_ids=encoding.input_ids[None], token_type_ids=encoding.token_type_ids[None])
    x = clf.embed(encoding, torch.float64)
    for layer, w in enumerate(clf.weights(torch.float64).layers):
        trace = layer_forward(w, x, clf.shape.heads)
        for module in MODULES:
            value = trace.site(module, convention)
            assert value.shape == (len(encoding), clf.shape.width(module))
            torch.testing.assert_close(value, seen[layer, module], rtol=1e-11, atol=1e-11)
        x = trace.x2


def test_conventions_name_the_places_they_are_documented_to(bundled):
    # linear: outputs of the six linear layers; hook: AO and O after residual and LayerNorm, I after GELU.
    block = bundled.model.bert.encoder.layer[2]
    linear = [bundled.adapter.module(bundled.model, 2, m, "linear") for m in MODULES]
    hook = [bundled.adapter.module(bundled.model, 2, m, "hook") for m in MODULES]
    attention = block.attention.self
    assert linear[:3] == hook[:3] == [attention.query, attention.key, attention.value]
    assert linear[3:] == [block.attention.output.dense, block.intermediate.dense, block.output.dense]
    assert hook[3:] == [block.attention.output, block.intermediate, block.output]
    assert bundled.adapter.encoder_layer(bundled.model, 2) is block


def test_head_takes_any_leading_shape(bundled):
    head = bundled.weights().head
    x = torch.randn(5, 2, bundled.shape.hidden)
    assert head_forward(head, x).shape == (5, 2, 3)
    torch.testing.assert_close(head_forward(head, x)[3, 1], head_forward(head, x[3, 1]))


def test_weights_are_views_in_the_models_dtype_and_copies_in_another(bundled):
    query = bundled.model.bert.encoder.layer[0].attention.self.query.weight
    assert bundled.weights().layers[0].wq.data_ptr() == query.data_ptr()
    assert not bundled.weights().layers[0].wq.requires_grad
    double = bundled.weights(torch.float64)
    assert double.layers[0].wq.dtype == double.head.classifier_bias.dtype == torch.float64
    assert double.layers[0].wq.data_ptr() != query.data_ptr()
    assert bundled.weights().shape == bundled.shape
