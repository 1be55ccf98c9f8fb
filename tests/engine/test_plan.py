"""Chunks from budgets, and the count of operations."""

from __future__ import annotations

import pytest

from pyneuro.engine.backend import Backend, choose_backend
from pyneuro.engine.plan import MIB, Memory, base_run_bytes, candidate_bytes, forward_flops, patch_flops
from pyneuro.errors import BackendError, InputError
from pyneuro.sites import MODULES, ModelShape

BERT_BASE = ModelShape(12, 768, 12, 3072)
MINILM = ModelShape(6, 384, 12, 1536)
REFERENCE = Backend("reference", "fp32")


def sweep_share(shape: ModelShape, tokens: int = 40) -> float:
    """Operations of a sweep over all neurons, in full forwards a neuron."""
    total = sum(patch_flops(shape, tokens, layer, m) * shape.width(m) for layer, m in shape.groups())
    return total / shape.n_neurons / forward_flops(shape, tokens)


@pytest.mark.parametrize(("shape", "dense_layers"), [(MINILM, 0.270), (BERT_BASE, 0.375)])
def test_a_patched_run_costs_what_the_dense_layers_say(shape: ModelShape, dense_layers: float) -> None:
    """Dense layer-equivalents summed by hand: row 0 sites (L − l − 3) + 2/3, K and V (L − l − 2) + 2/3."""
    last = shape.layers - 1
    row0 = sum(last - layer - 2 + 2 / 3 for layer in range(last - 1))
    every = sum(last - layer - 1 + 2 / 3 for layer in range(last))
    kv = 2 * shape.hidden
    by_hand = (row0 * (shape.layer_width - kv) + every * kv) / shape.layer_width / shape.layers**2
    assert by_hand == pytest.approx(dense_layers, abs=1e-3)
    # The low-rank and last layers, rows of entries and the attention's own products come on top.
    assert by_hand < sweep_share(shape) < 1.06 * by_hand


def test_later_layers_cost_less() -> None:
    for module in MODULES:
        costs = [patch_flops(MINILM, 40, layer, module) for layer in range(6)]
        assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("tokens", [5, 40, 128, 512])
@pytest.mark.parametrize("budget", [64 * MIB, 512 * MIB, 2048 * MIB])
def test_a_chunk_fits_its_budget(tokens: int, budget: int) -> None:
    base = base_run_bytes(MINILM, tokens, REFERENCE)
    memory = Memory(budget)
    if base + candidate_bytes(MINILM, tokens, REFERENCE) > budget:
        with pytest.raises(InputError, match="too small for a sample of"):
            memory.candidates(MINILM, tokens, tokens, REFERENCE)
        return
    n = memory.candidates(MINILM, tokens, tokens, REFERENCE)
    assert n >= 1
    assert base + n * candidate_bytes(MINILM, tokens, REFERENCE) <= budget


class TestBackend:
    def test_names_that_are_none(self) -> None:
        with pytest.raises(InputError, match="backend 'tpu' is not one of cuda, cpu, reference"):
            choose_backend("tpu")
        with pytest.raises(InputError, match="precision 'fp8' is not one of fp32, fp16, bf16, float64"):
            choose_backend(None, "fp8")

    def test_what_a_backend_lacks(self) -> None:
        with pytest.raises(BackendError, match="CUDA"):
            choose_backend("cuda:99")
        with pytest.raises(BackendError, match="reference"):
            choose_backend("cpu", "float64")

    def test_float64_falls_to_the_reference(self) -> None:
        assert choose_backend(None, "float64") == Backend("reference", "float64")

    def test_the_environment_decides_where_nobody_asks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYNEURO_BACKEND", "reference")
        assert choose_backend().name == "reference"
