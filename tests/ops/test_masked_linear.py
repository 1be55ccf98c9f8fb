"""Masked linear layers in every instruction set this machine has: against their definition in float64, against autograd
through a plain straight-through chain, and as torch operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyneuro.ops import reference
from tests.ops.conftest import ISAS

pytestmark = pytest.mark.skipif(not ISAS, reason="the native module is not built")
masked = torch.ops.pyneuro

SHAPES = [
    (1, 1, 1),
    (3, 16, 32),
    (14, 33, 31),
    (57, 96, 70),
    (64, 384, 130),
    (130, 40, 384),
    (5, 512, 3),
    (1100, 17, 9),
]


def case(rows: int, inner: int, out: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """x, W, S, b, dy; scores about one half above 0."""
    g = torch.Generator().manual_seed(seed)
    x, weight, bias, dy = (
        torch.randn(*shape, generator=g).to(dtype) for shape in ((rows, inner), (out, inner), (out,), (rows, out))
    )
    return x, weight, torch.randn(out, inner, generator=g), bias, dy


def error(got: Tensor, want: Tensor, size: Tensor) -> float:
    """Largest difference over the largest sum of terms' magnitudes."""
    if not want.numel():
        return 0.0
    return float((got.detach().double() - want.detach()).abs().max() / size.max().clamp_min(1e-30))


def sizes(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of the magnitudes of the terms of y, dx and dS: what rounding errors are relative to."""
    x, weight, bias, dy = (t.detach().double().abs() for t in (x, weight, bias, dy))
    return x @ weight.T + bias, dy @ weight, (dy.T @ x) * weight


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores: Tensor, threshold: float) -> Tensor:
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def chain(x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None) -> Tensor:
    """What people write today."""
    return torch.nn.functional.linear(x, weight * StraightThrough.apply(scores, threshold), bias)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threshold", [0.0, 1.7, -5.0, 5.0])
def test_values_and_gradients_are_those_of_the_plain_chain(isa: str, shape: tuple[int, ...], threshold: float) -> None:
    x, weight, scores, bias, dy = case(*shape)
    wide = [t.double() for t in (x, weight, scores, bias)]
    for t in (wide[0], wide[2], wide[3], x, scores, bias):
        t.requires_grad_()
    want = chain(wide[0], wide[1], wide[2], threshold, wide[3])
    want.backward(dy.double())
    got, bits = masked.masked_linear(x, weight, scores, threshold, bias, False)
    got.backward(dy)
    assert torch.equal(reference.unpack_bits(bits, shape[1]), scores > threshold)
    of_y, of_dx, of_dscores = sizes(x, weight, bias, dy)
    assert error(got, want, of_y) < 1e-6
    assert error(x.grad, wide[0].grad, of_dx) < 1e-6
    assert error(scores.grad, wide[2].grad, of_dscores) < 1e-6
    assert error(bias.grad, wide[3].grad, dy.double().abs().sum(0)) < 1e-6


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(0, 80),
    inner=st.integers(1, 140),
    out=st.integers(1, 140),
    threshold=st.sampled_from([-9.0, -1.5, 0.0, 1.5, 9.0]),
    mask_bias=st.booleans(),
    bf16=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(
    isa: str, rows: int, inner: int, out: int, threshold: float, mask_bias: bool, bf16: bool, seed: int
) -> None:
    x, weight, scores, bias, dy = case(rows, inner, out, seed, torch.bfloat16 if bf16 else torch.float32)
    bound = 1e-2 if bf16 else 1e-6
    of_y, *of_gradients = sizes(x, weight, bias, dy)
    wide = [t.double() for t in (x, weight, scores, bias, dy)]
    want, want_bits = reference.masked_linear(*wide[:3], threshold, wide[3], mask_bias)
    y, bits = masked.masked_linear(x, weight, scores, threshold, bias, mask_bias)
    assert torch.equal(bits, want_bits) and y.dtype == x.dtype
    assert error(y, want, of_y) < bound
    assert torch.equal(masked.masked_linear_packed(x, weight, bits, bias, mask_bias), y)
    for got, wanted, size in zip(
        masked.masked_linear_backward(dy, x, weight, bits, True, True),
        reference.masked_linear_backward(wide[4], wide[0], wide[1], bits),
        of_gradients,
        strict=True,
    ):
        assert got.shape == wanted.shape
        assert error(got, wanted, size) < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 40, 33), (64, 96, 70), (70, 512, 20), (130, 17, 9)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_many_masks_are_as_many_layers(isa: str, dtype: torch.dtype, shape: tuple[int, ...], shared: bool) -> None:
    rows, inner, out = shape
    x, weight, scores, bias, _ = case(*shape, dtype=dtype)
    shares = [0.0, 0.04, 0.1, 0.5, 0.9, 0.97, 1.0]  # masked
    keep = torch.stack([scores.argsort(dim=-1).argsort(dim=-1) >= round(s * inner) for s in shares])
    bits = reference.pack_bits(keep)
    inputs = x if shared else torch.stack([x + t for t in range(len(shares))])
    size = inputs.double().abs() @ weight.double().abs().T + bias.double().abs()
    for mask_bias in (False, True):
        got = masked.masked_linear_multi(inputs, weight, bits, bias, mask_bias, shared)
        want = reference.masked_linear_multi(inputs.double(), weight.double(), bits, bias.double(), mask_bias, shared)
        assert got.shape == want.shape == (len(shares), rows, out)
        for g, w in zip(got, want, strict=True):
            assert error(g, w, size) < (1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_a_bias_counts_where_its_row_keeps_any_weight() -> None:
    x, weight, scores, bias, dy = case(6, 20, 5)
    scores[2] = -1e9
    bias.requires_grad_()
    y, _ = masked.masked_linear(x, weight, scores, 0.0, bias, True)
    assert not y[:, 2].any() and y[:, 1].any()
    y.backward(dy)
    torch.testing.assert_close(bias.grad, dy.sum(0) * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))


def test_a_mask_of_zeros_leaves_the_bias() -> None:
    x, weight, _, bias, _ = case(6, 20, 5)
    y, bits = masked.masked_linear(x, weight, torch.full((5, 20), float("nan")), 0.0, bias, False)
    assert not bits.any()
    torch.testing.assert_close(y, bias.expand(6, 5), rtol=0, atol=0)


def test_gradients_of_what_is_not_thresholded_by_finite_differences() -> None:
    x, weight, scores, bias, _ = (t.double() for t in case(4, 7, 5))
    x.requires_grad_()
    bias.requires_grad_()
    for mask_bias in (False, True):
        assert torch.autograd.gradcheck(
            lambda x, b, m=mask_bias: masked.masked_linear(x, weight, scores, 0.3, b, m)[0], (x, bias)
        )
        bits = reference.pack_bits(scores > 0.3)
        assert torch.autograd.gradcheck(
            lambda x, b, m=mask_bias, k=bits: masked.masked_linear_packed(x, weight, k, b, m), (x, bias)
        )


def test_nothing_of_the_weights_size_is_kept_but_bits() -> None:
    x, weight, scores, bias, _ = case(6, 64, 48)
    x.requires_grad_()
    scores.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        masked.masked_linear(x, weight, scores, 0.0, bias, False)
    fresh = [t for t in kept if t.data_ptr() not in (x.data_ptr(), weight.data_ptr())]
    assert [(t.dtype, tuple(t.shape)) for t in fresh] == [(torch.uint8, (48, 8))]


def test_strided_and_batched_inputs(isa: str) -> None:
    x, weight, scores, bias, dy = case(24, 20, 18)
    want, _ = masked.masked_linear(x, weight, scores, 0.0, bias, False)
    strided = [t.T.contiguous().T for t in (x, weight, scores)]
    got, bits = masked.masked_linear(*strided, 0.0, bias.repeat_interleave(2)[::2], False)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    batched = masked.masked_linear(x.view(2, 3, 4, 20), weight, scores, 0.0, bias, False)[0]
    torch.testing.assert_close(batched, want.view(2, 3, 4, 18), rtol=0, atol=0)
    one = masked.masked_linear(x[0], weight, scores, 0.0, bias, False)[0]
    assert one.shape == (18,)
    dense = masked.masked_linear_backward(dy, x, weight, bits, True, True)
    loose = masked.masked_linear_backward(dy.T.contiguous().T, strided[0], strided[1], bits, True, True)
    for a, b in zip(dense, loose, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_threads_do_not_change_the_numbers() -> None:
    x, weight, scores, bias, dy = case(300, 70, 50)
    bits = reference.pack_bits(scores > 0)

    def results() -> list[Tensor]:
        many = masked.masked_linear_multi(x, weight, torch.stack([bits, ~bits]), bias, False, True)
        forward = masked.masked_linear(x, weight, scores, 0.0, bias, False)
        return [*forward, many, *masked.masked_linear_backward(dy, x, weight, bits, True, True)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        for a, b in zip(results(), one, strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
def test_opcheck() -> None:
    x, weight, scores, bias, dy = case(6, 20, 10)
    x.requires_grad_()
    scores.requires_grad_()
    bits = reference.pack_bits(scores > 0)
    torch.library.opcheck(masked.masked_linear.default, (x, weight, scores, 0.0, bias, True))
    torch.library.opcheck(masked.masked_linear.default, (x, weight, scores, 0.0, None, False))
    torch.library.opcheck(masked.masked_linear_packed.default, (x, weight, bits, bias, True))
    plain = [t.detach() for t in (dy, x, weight, bits)]
    torch.library.opcheck(masked.masked_linear_backward.default, (*plain, True, False))
    torch.library.opcheck(
        masked.masked_linear_multi.default, (x.detach(), weight, torch.stack([bits, bits]), bias, False, True)
    )


@pytest.mark.filterwarnings("ignore")
def test_compiles_into_one_graph_with_its_backward() -> None:
    def loss(x: Tensor, scores: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return masked.masked_linear(x, weight, scores, 0.1, bias, False)[0].square().sum()

    x, weight, scores, bias, _ = case(6, 20, 10)
    found = []
    for run in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        inputs = x.clone().requires_grad_(), scores.clone().requires_grad_()
        value = run(*inputs, weight, bias)
        value.backward()
        found.append([value.detach(), *(t.grad for t in inputs)])
    torch.testing.assert_close(found[0], found[1])


def test_what_does_not_fit_is_named() -> None:
    x, weight, scores, bias, _ = case(6, 20, 10)
    with pytest.raises(ValueError, match=r"masked_linear: scores must be \[10, 20\]"):
        masked.masked_linear(x, weight, scores[:, :19], 0.0, bias, False)
    with pytest.raises(ValueError, match=r"masked_linear: x must be \[\.\.\., 20\]"):
        masked.masked_linear(x[:, :5], weight, scores, 0.0, bias, False)
    with pytest.raises(ValueError, match=r"weight is torch\.float64 and x is torch\.float32"):
        masked.masked_linear(x, weight.double(), scores, 0.0, bias, False)
    with pytest.raises(ValueError, match=r"masked_linear_packed: bits must be \[10, 3\]"):
        masked.masked_linear_packed(x, weight, torch.zeros(10, 20, dtype=torch.uint8), bias, False)
    with pytest.raises(ValueError, match="one input a mask"):
        masked.masked_linear_multi(x, weight, torch.zeros(2, 10, 3, dtype=torch.uint8), bias, False, False)
    with pytest.raises(ValueError, match="frozen"):
        masked.masked_linear(x, weight.requires_grad_(), scores, 0.0, bias, False)


def test_no_rows_give_no_output_and_no_gradient() -> None:
    _, weight, scores, bias, _ = case(1, 20, 10)
    x = torch.zeros(0, 20, requires_grad=True)
    scores.requires_grad_()
    y = masked.masked_linear(x, weight, scores, 0.0, bias, False)[0]
    assert y.shape == (0, 10)
    y.sum().backward()
    assert x.grad.shape == (0, 20) and not scores.grad.any()
