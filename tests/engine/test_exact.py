"""The exact engine against float64 forward hooks, relative to the effect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyneuro import data, ops
from pyneuro.effects import Response
from pyneuro.engine.backend import Backend, choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import KINDS, Intervention
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.models.weights import Encoding
from pyneuro.sites import CONVENTIONS, MODULES
from tests.engine.oracle import Oracle
from tests.tiny import SamplePair, make_tiny

MNLI = Path(__file__).resolve().parents[3] / "shared" / "data" / "mnli_dev_matched.jsonl.gz"
BACKENDS = [
    pytest.param(("cpu", "fp32"), marks=pytest.mark.skipif(not ops.built(), reason="the native module is not built")),
    ("reference", "float64"),
    ("reference", "fp32"),
]


def real_encodings(clf: Classifier, n: int) -> list[Encoding]:
    """MNLI pairs where the corpora lie beside the project, pairs of the generator elsewhere."""
    pairs = data.read_pairs(MNLI, limit=n) if MNLI.exists() else data.embedded_pairs(n, seed=0)
    return [clf.encode(pair) for pair in pairs]


def patched_values(intervention: Intervention, a: Tensor, z: Tensor) -> Tensor:
    """What the intervention sets the activation to, written out once more."""
    match intervention.kind:
        case "replace":
            return z
        case "weaken":
            return intervention.strength * a
        case "negate":
            return -a
        case "remove":
            return torch.zeros_like(a)
        case _:
            return a + (1.0 if intervention.strength is None else intervention.strength) * z


def effects(logits: Tensor, delta: Tensor) -> np.ndarray:
    return Response("probability", 0).terms(logits.numpy(), delta.numpy()).effect


@pytest.mark.parametrize("kind", KINDS)
def test_effects_of_the_bundled_model_are_exact_relative_to_the_effect(bundled: Classifier, kind: str) -> None:
    """The bound is 2e-3 at worst and 2e-5 at the median over every |effect| of at least 1e-6."""
    oracle = Oracle(bundled)
    engine = ExactEngine.create(bundled, choose_backend())
    intervention = Intervention(kind, 0.9 if kind == "weaken" else None)
    generator = torch.Generator().manual_seed(KINDS.index(kind))
    errors = []
    encoding = sorted(real_encodings(bundled, 16), key=len)[KINDS.index(kind)]
    base = engine.begin(encoding)
    for convention in CONVENTIONS:
        for layer, module in bundled.shape.groups():
            index = torch.randperm(bundled.shape.width(module), generator=generator)[:5]
            z = torch.randn(5, generator=generator, dtype=torch.float64) * 0.5
            a = oracle.activation(encoding, layer, module, convention)[index]
            patched = patched_values(intervention, a, z)
            want = effects(
                oracle.logits(encoding), oracle.delta_logits(encoding, layer, module, index, patched, convention)
            )
            given_z = z if intervention.needs_values else None
            delta = engine.delta_logits(
                base, layer, module, index, given_z, convention=convention, intervention=intervention
            )
            got = effects(base.logits, delta)
            large = np.abs(want) >= 1e-6
            errors += (np.abs(got - want) / np.abs(want))[large].tolist()
    assert len(errors) > 150
    assert np.median(errors) <= 2e-5
    assert np.max(errors) <= 2e-3


@pytest.mark.skipif(not (ops.built() and ops.native().bf16), reason="this machine has no bf16 dot product")
def test_bf16_differences_stay_within_two_percent_of_every_group(bundled: Classifier) -> None:
    exact = ExactEngine.create(bundled, choose_backend("cpu", "fp32"))
    rounded = ExactEngine.create(bundled, choose_backend("cpu", "bf16"))
    encoding = real_encodings(bundled, 1)[0]
    base = exact.begin(encoding)
    generator = torch.Generator().manual_seed(0)
    for layer, module in bundled.shape.groups():
        index = torch.randperm(bundled.shape.width(module), generator=generator)[:96]
        z = torch.randn(96, generator=generator, dtype=torch.float64) * 0.5
        want, got = (effects(base.logits, e.delta_logits(base, layer, module, index, z)) for e in (exact, rounded))
        assert np.linalg.norm(got - want) <= 0.02 * np.linalg.norm(want), (layer, module)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arch", ["bert", "roberta"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_neuron_replaced_by_itself_has_no_effect(backend: tuple[str, str], arch: str, convention: str) -> None:
    clf = make_tiny(arch)
    engine = ExactEngine.create(clf, choose_backend(*backend))
    encoding = clf.encode(SamplePair("p", "Two dogs are running.", "Animals run."))
    base = engine.begin(encoding)
    for layer, module in clf.shape.groups():
        seen = Oracle(clf).activation(encoding, layer, module, convention)
        for a in (base.layers[layer].sites[module, convention][0], seen, seen.float().double()):
            delta = engine.delta_logits(base, layer, module, torch.arange(len(a)), a, convention=convention)
            assert not delta.any()


@settings(max_examples=30, deadline=None)
@given(data_=st.data())
def test_any_shape_and_length(data_: st.DataObject) -> None:
    """Random sizes, among them odd ones; lengths from a one-word hypothesis on."""
    draw = data_.draw
    heads = draw(st.integers(1, 4))
    clf = make_tiny(
        draw(st.sampled_from(["bert", "roberta"])),
        layers=draw(st.integers(1, 4)),
        hidden=heads * draw(st.integers(4, 11)),
        heads=heads,
        intermediate=draw(st.integers(3, 50)),
        labels=draw(st.integers(2, 4)),
        seed=draw(st.integers(0, 9)),
        max_positions=160,
    )
    words = ["dogs", "run", "the", "lawyer", "slept", "no"]
    premise = " ".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=draw(st.sampled_from([3, 20, 110])))))
    encoding = clf.encode(SamplePair("p", premise, draw(st.sampled_from(["No", "The lawyer slept."]))))
    backend = Backend("cpu" if ops.built() else "reference", "fp32")
    engine, oracle = ExactEngine.create(clf, backend), Oracle(clf)
    base = engine.begin(encoding)
    layer = draw(st.integers(0, clf.shape.layers - 1))
    module, convention = draw(st.sampled_from(MODULES)), draw(st.sampled_from(CONVENTIONS))
    index = torch.arange(clf.shape.width(module))
    z = torch.randn(len(index), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    want = oracle.delta_logits(encoding, layer, module, index, z, convention)
    got = engine.delta_logits(base, layer, module, index, z, convention=convention)
    torch.testing.assert_close(base.logits, oracle.logits(encoding), rtol=1e-4, atol=1e-5)
    assert ((got - want).norm() <= 5e-4 * want.norm() + 1e-9).item()


def test_float64_reference_is_exact_to_rounding() -> None:
    clf = make_tiny(dtype=torch.float64)
    engine, oracle = ExactEngine.create(clf, choose_backend("reference", "float64")), Oracle(clf)
    encoding = clf.encode(SamplePair("p", "Two dogs are running through the wet grass.", "Animals run."))
    base = engine.begin(encoding)
    for convention in CONVENTIONS:
        for layer, module in clf.shape.groups():
            index = torch.arange(clf.shape.width(module))
            z = torch.randn(len(index), dtype=torch.float64)
            want = oracle.delta_logits(encoding, layer, module, index, z, convention)
            got = engine.delta_logits(base, layer, module, index, z, convention=convention)
            # The GELU series leaves out d^5; everything else is exact.
            assert (got - want).norm() <= 1e-5 * want.norm()


class TestStructure:
    """Facts about the network that hold without any oracle."""

    def test_a_set_of_texts_has_one_first_row_in_layer_0(self, bundled: Classifier) -> None:
        engine = ExactEngine.create(bundled, choose_backend())
        first, second = (engine.begin(e) for e in real_encodings(bundled, 2))
        for module in ("Q", "K", "V"):
            z = first.layers[0].sites[module, "linear"][0]
            assert not engine.delta_logits(second, 0, module, torch.arange(len(z)), z).any()

    def test_repeated_candidates_get_the_same_answer(self, bundled: Classifier) -> None:
        engine = ExactEngine.create(bundled, choose_backend())
        base = engine.begin(real_encodings(bundled, 1)[0])
        index, z = torch.tensor([5, 9, 5, 9, 5]), torch.tensor([0.3, -1.0, 0.3, -1.0, 0.3], dtype=torch.float64)
        delta = engine.delta_logits(base, 1, "K", index, z)
        # To rounding: torch's own exp differs in the last bit between whole vectors and the rest of an array.
        torch.testing.assert_close(delta[[2, 4, 3]], delta[[0, 0, 1]], rtol=1e-5, atol=0)

    def test_o_of_the_last_layer_is_layernorm_and_head_alone(self, tiny_bert: object) -> None:
        clf = make_tiny()
        engine = ExactEngine.create(clf, choose_backend("reference", "float64"))
        base = engine.begin(clf.encode(SamplePair("p", "Two dogs are running.", "Animals run.")))
        last = clf.shape.layers - 1
        head = clf.weights(torch.float64).head
        x = base.layers[last].sites["O", "hook"][0].clone()
        delta = engine.delta_logits(
            base, last, "O", torch.tensor([3]), torch.tensor([1.5], dtype=torch.float64), convention="hook"
        )
        x[3] = 1.5
        pooled = torch.tanh(head.pooler_weight @ x + head.pooler_bias)
        want = head.classifier_weight @ pooled + head.classifier_bias - base.logits
        torch.testing.assert_close(delta[0], want, rtol=1e-10, atol=1e-12)


class TestBadInput:
    def test_a_value_that_overflows_names_the_neuron(self, bundled: Classifier) -> None:
        engine = ExactEngine.create(bundled, choose_backend())
        base = engine.begin(real_encodings(bundled, 1)[0])
        with pytest.raises(InputError, match=r"L2\.Q\.7 .* NaN or infinite"):
            engine.delta_logits(base, 2, "Q", torch.tensor([7]), torch.tensor([float("nan")], dtype=torch.float64))

    def test_activations_that_are_not_finite_name_the_site(self) -> None:
        clf = make_tiny()
        engine = ExactEngine.create(clf, choose_backend())
        with torch.no_grad():
            clf.adapter.module(clf.model, 1, "V", "linear").bias[0] = float("inf")
        with pytest.raises(InputError, match=r"L1\.V"):
            engine.begin(clf.encode(SamplePair("p", "Two dogs are running.", "Animals run.")))
