"""Every operation, in every instruction set this machine has, against its definition in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyneuro import ops
from pyneuro.ops import reference
from tests.ops.cases import arguments, differences, relative_error, to32
from tests.ops.conftest import ISAS, native_module

pytestmark = pytest.mark.skipif(not ISAS, reason="the native module is not built")

SHAPES = [
    (7, 5, 24, 3, 40),
    (1, 1, 8, 1, 3),
    (2, 30, 36, 4, 50),
    (33, 3, 66, 3, 31),
    (17, 29, 64, 2, 96),
    (40, 15, 96, 3, 130),
]


def call(name: str, args: tuple[torch.Tensor | None, ...]) -> torch.Tensor:
    return getattr(torch.ops.pyneuro, name)(*args)


@pytest.mark.parametrize("name", ops.OPERATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_equals_definition(isa: str, name: str, shape: tuple[int, ...]) -> None:
    args = arguments(*shape)[name]
    want = getattr(reference, name)(*args)
    assert relative_error(call(name, to32(args)), want) < 1e-6


@pytest.mark.parametrize("name", ops.OPERATIONS)
@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 5.0])
def test_error_is_relative_to_the_difference(isa: str, name: str, size: float) -> None:
    args = arguments(9, 4, 32, 2, 48, size=size)[name]
    assert relative_error(call(name, to32(args)), getattr(reference, name)(*args)) < 3e-6


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 70),
    candidates=st.integers(0, 40),
    heads=st.integers(1, 5),
    head_width=st.integers(1, 40),
    intermediate=st.integers(1, 130),
    seed=st.integers(0, 99),
)
def test_any_shape(
    isa: str, tokens: int, candidates: int, heads: int, head_width: int, intermediate: int, seed: int
) -> None:
    hidden = heads * max(head_width, -(-8 // heads))  # LayerNorm of a few coordinates is a constant
    for name, args in arguments(tokens, candidates, hidden, heads, intermediate, seed=seed).items():
        got, want = call(name, to32(args)), getattr(reference, name)(*args)
        assert got.shape == want.shape
        assert relative_error(got, want) < 5e-6, name


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_zero_difference_gives_exactly_zero(isa: str, name: str) -> None:
    args = list(to32(arguments(9, 4, 32, 2, 48)[name]))
    for number in differences(name):
        args[number] = torch.zeros_like(args[number])
    assert not call(name, tuple(args)).any()


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_nan_reaches_the_caller(isa: str, name: str) -> None:
    args = list(to32(arguments(5, 3, 16, 2, 12)[name]))
    number = differences(name)[0]
    args[number] = args[number].clone()
    args[number][..., 0] = float("nan")
    assert call(name, tuple(args)).isnan().any()


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_strided_inputs(name: str) -> None:
    args = to32(arguments(6, 5, 16, 2, 20)[name])
    strided = tuple(None if a is None else a.transpose(0, -1).contiguous().transpose(0, -1) for a in args)
    torch.testing.assert_close(call(name, strided), call(name, args), rtol=0, atol=0)


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_threads_do_not_change_the_numbers(name: str) -> None:
    args = to32(arguments(20, 40, 32, 2, 48)[name])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = call(name, args)
        torch.set_num_threads(3)
        assert torch.equal(call(name, args), one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ops.OPERATIONS)
@pytest.mark.filterwarnings("ignore")
def test_opcheck(name: str) -> None:
    args = to32(arguments(5, 3, 16, 2, 12)[name])
    torch.library.opcheck(getattr(torch.ops.pyneuro, name).default, args)


@pytest.mark.parametrize("name", ops.OPERATIONS)
@pytest.mark.filterwarnings("ignore")
def test_compiles_into_one_graph(name: str) -> None:
    args = to32(arguments(5, 3, 16, 2, 12)[name])
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: call(name, a) * 2, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*args), call(name, args) * 2)


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_float64_takes_the_definition(name: str) -> None:
    args = arguments(5, 3, 16, 2, 12)[name]
    torch.testing.assert_close(call(name, args), getattr(reference, name)(*args), rtol=0, atol=0)


def test_wrong_shapes_are_named() -> None:
    cases = arguments(5, 3, 16, 2, 12)
    with pytest.raises(ValueError, match=r"delta_linear: weight must be \[\*, 16\]"):
        call("delta_linear", (cases["delta_linear"][0], torch.zeros(4, 15, dtype=torch.float64), None))
    dqkv, q, k, v, p = cases["delta_attention"]
    with pytest.raises(ValueError, match="delta_attention: k must be"):
        call("delta_attention", (dqkv, q, k[:3], v, p))
    with pytest.raises(ValueError, match="columns do not divide into 5 heads"):
        call("delta_attention", (dqkv, q, k, v, torch.zeros(5, 5, 5, dtype=torch.float64)))


class TestPacking:
    def test_bf16_rounds_operands_and_sums_in_fp32(self) -> None:
        if not ops.native().bf16:
            pytest.skip("this machine has no bf16 dot product")
        for inner, out in [(16, 32), (33, 70), (1, 5), (384, 100)]:
            dx, weight = torch.randn(50, inner), torch.randn(out, inner)
            packed = ops.pack_weight(weight, torch.bfloat16)
            got = torch.ops.pyneuro.delta_linear(dx, weight, packed)
            want = dx.bfloat16().double() @ weight.bfloat16().double().T
            assert relative_error(got, want) < 1e-6
            torch.testing.assert_close(got, reference.delta_linear(dx, weight, packed), rtol=1e-4, atol=1e-5)

    def test_packed_holds_every_row_in_panels(self, isa: str) -> None:
        weight = torch.randn(45, 7)
        packed = ops.pack_weight(weight)
        width = ops.native().panel_width
        assert packed.shape == (-(-45 // width), 7, width)
        torch.testing.assert_close(packed.transpose(1, 2).reshape(-1, 7)[:45], weight, rtol=0, atol=0)

    def test_a_packed_weight_of_another_machine_is_refused(self) -> None:
        with pytest.raises(ValueError, match="does not belong to weight"):
            torch.ops.pyneuro.delta_linear(torch.zeros(2, 8), torch.zeros(64, 8), torch.zeros(2, 8, 3))


def test_unknown_instruction_set_is_an_error_that_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native_module.ISA_VARIABLE, "sse9")
    native_module.native.cache_clear()
    with pytest.raises(native_module.BackendError, match="baseline"):
        native_module.native()
    monkeypatch.undo()
    native_module.native.cache_clear()
