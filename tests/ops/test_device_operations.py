"""The device kernels against the definition in float64: fp32, and fp16 in the candidates' units."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyneuro import ops
from pyneuro.ops import cuda, reference
from pyneuro.ops.delta_feed_forward import gelu_linear
from tests.device import HAS_DEVICE, Device
from tests.ops.cases import arguments, differences, relative_error, to32

# S, N, d, H, f: odd sizes, whole vectors, heads of 32 and 64 (tensor cores), one token, more than 64 tokens, many
# candidates a token.
SHAPES = [
    (7, 5, 24, 3, 40),
    (1, 1, 8, 1, 3),
    (2, 30, 36, 4, 50),
    (33, 3, 66, 3, 31),
    (17, 9, 64, 2, 96),
    (40, 5, 96, 3, 130),
    (20, 9, 128, 2, 256),
    (67, 2, 64, 1, 16),
    (3, 70, 72, 2, 16),
]
IN_UNITS = [name for name in ops.OPERATIONS if name not in ("delta_linear", "delta_entry", "delta_entry_query")]


def in_units(name: str, args: tuple[Tensor | None, ...], unit: Tensor) -> tuple[list[Tensor | None], Tensor]:
    """Arguments of the fp16 form, and what the definition makes of the very differences they stand for."""
    stored, true = list(to32(args)), list(args)
    for i in differences(name):
        half = (args[i] * 16).half()
        stored[i], true[i] = half, half.double() * unit.double()[:, None]
    return [*stored, unit], getattr(reference, name)(*true)


def worst_row(got: Tensor, unit: Tensor, want: Tensor) -> float:
    """Largest relative L2 distance of a candidate's row."""
    assert got.dtype == torch.float16
    true = got.double() * unit.double()[:, None]
    return float(((true - want).norm(dim=-1) / want.norm(dim=-1)).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_fp32_equals_the_definition(device: Device, name: str, shape: tuple[int, ...]) -> None:
    args = arguments(*shape)[name]
    assert relative_error(device.call(name, *to32(args)), getattr(reference, name)(*args)) < 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", IN_UNITS)
def test_fp16_keeps_eleven_bits_of_a_difference_of_any_size(
    device: Device,
    name: str,
    shape: tuple[int, ...],
) -> None:
    unit = torch.exp2(torch.randint(-40, -4, (shape[1],), generator=torch.Generator().manual_seed(1)).float())
    stored, want = in_units(name, arguments(*shape)[name], unit)
    assert worst_row(device.call(name, *stored), unit, want) < 2e-3
    assert worst_row(getattr(reference, name)(*stored), unit, want) < 2e-3  # the definition rounds as the kernel does


@pytest.mark.parametrize("hidden", [8, 520, 768, 1000, 1024, 1032])
@pytest.mark.parametrize("name", ["delta_layernorm", "delta_linear_norm"])
def test_norms_of_many_candidates_of_a_token(device: Device, name: str, hidden: int) -> None:
    unit = torch.exp2(torch.randint(-40, -4, (70,), generator=torch.Generator().manual_seed(1)).float())
    stored, want = in_units(name, arguments(2, 70, hidden, 4, 8)[name], unit)
    assert worst_row(device.call(name, *stored), unit, want) < 2e-3


@pytest.mark.parametrize("name", IN_UNITS)
def test_far_differences(device: Device, name: str) -> None:
    """Changes as large as the activations: attention moves whole probabilities, a LayerNorm's variance shrinks."""
    args = arguments(19, 6, 64, 2, 96, size=3.0)[name]
    assert relative_error(device.call(name, *to32(args)), getattr(reference, name)(*args)) < 1e-5
    unit = torch.full((6,), 0.25)
    stored, want = in_units(name, args, unit)
    # An operand rounded to eleven bits moves a score of 30 by 0.01.
    assert worst_row(device.call(name, *stored), unit, want) < 4e-2


def test_scores_that_leave_the_range_of_exp(device: Device) -> None:
    for tokens in (9, 40):
        dqkv, q, k, v, p = arguments(tokens, 4, 64, 2, 96, size=0.05)["delta_attention"]
        dqkv = dqkv.clone()
        dqkv[:, :, :128] *= 4000
        want = reference.delta_attention(dqkv, q, k, v, p)
        got = device.call("delta_attention", *to32((dqkv, q, k, v, p)))
        assert relative_error(got, want) < 1e-4
        unit = torch.full((4,), 2.0)
        stored = (dqkv / 2).half()
        want = reference.delta_attention(stored.double() * 2, q, k, v, p)
        got = device.call("delta_attention", stored, *to32((q, k, v, p)), unit)
        assert relative_error(got.double() * 2, want) < 3e-3


def test_entry_in_units(device: Device) -> None:
    for shape in SHAPES:
        args = to32(arguments(*shape)["delta_entry"])
        unit = torch.exp2(-torch.arange(shape[1]).float() - 3)
        true = [None if a is None else a.double() if a.is_floating_point() else a for a in args]
        true[0], true[3] = true[0] * unit, true[3] * unit
        got = device.call("delta_entry", *args, unit)
        assert worst_row(got, unit, reference.delta_entry(*true)) < 1e-3
        first, a, pick_a, _, _, _, *norm = args
        alone = device.call("delta_entry", first, a[:1], pick_a, None, None, None, *norm)
        want = reference.delta_entry(first.double(), a[:1].double(), pick_a, None, None, None, *true[6:])
        assert relative_error(alone, want) < 1e-6


def test_units(device: Device) -> None:
    size = torch.tensor([1.0, 0.7, 3e-30, 16.0, 1e30, 0.0, float("inf"), float("nan")])
    unit = reference.units(size)
    assert torch.equal(torch.log2(unit), torch.log2(unit).round())
    assert torch.equal(unit[5:], torch.ones(3))
    stored = size[:5] / unit[:5]
    assert bool((stored <= reference.STORED_SIZE).all() and (stored > reference.STORED_SIZE / 2).all())
    for width in (1, 8, 77):
        true = torch.randn(8, width, generator=torch.Generator().manual_seed(width)) * size[:, None]
        true[3] = torch.where(torch.arange(width) == 0, 16.0, 0.5)  # a power of two
        stored, unit = device.call("delta_units", true)
        want_stored, want_unit = reference.delta_units(true)
        assert torch.equal(unit[:6], want_unit[:6]) and torch.equal(stored[:6], want_stored[:6])
        assert not torch.isfinite(stored[6:].float()).all(dim=-1).any()
    torch.library.opcheck(torch.ops.pyneuro.delta_units.default, (true[:5],))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 50),
    candidates=st.integers(1, 20),
    heads=st.integers(1, 3),
    width=st.sampled_from([1, 5, 8, 16, 32, 64]),
    inner=st.integers(1, 70),
    name=st.sampled_from(IN_UNITS),
)
def test_any_shape(
    device: Device,
    tokens: int,
    candidates: int,
    heads: int,
    width: int,
    inner: int,
    name: str,
) -> None:
    args = arguments(tokens, candidates, heads * width, heads, inner)[name]
    want = getattr(reference, name)(*args)
    got = device.call(name, *to32(args))
    if heads * width > 1:  # a LayerNorm of one column gives nothing
        assert relative_error(got, want) < 1e-5
    unit = torch.full((candidates,), 2.0**-20)
    stored, want = in_units(name, args, unit)
    found = device.call(name, *stored)
    assert found.shape == want.shape and bool(torch.isfinite(found).all())
    if heads * width > 4:
        assert worst_row(found, unit, want) < 5e-3


def test_nothing_to_do(device: Device) -> None:
    for name, args in arguments(5, 0, 16, 2, 12).items():
        assert device.call(name, *to32(args)).numel() == 0


def test_nan_reaches_the_caller(device: Device) -> None:
    for name in IN_UNITS:
        args = list(to32(arguments(9, 3, 64, 2, 64)[name]))
        args[0] = args[0].clone()
        args[0][..., 1, :] = float("nan")
        got = device.call(name, *args)
        assert bool(torch.isnan(got[..., 1, :]).any()) and bool(torch.isfinite(got[..., 0, :]).all())
        half = device.call(
            name, *(a.half() if i in differences(name) else a for i, a in enumerate(args)), torch.ones(3)
        )
        assert bool(torch.isnan(half[..., 1, :]).any()) and bool(torch.isfinite(half[..., 0, :]).all())


def test_hidden_sizes_beyond_the_kernels_are_refused(device: Device) -> None:
    du, norm = torch.zeros(1, 1, 2056), (torch.zeros(1, 2056), torch.ones(1), torch.ones(2056))
    with pytest.raises(RuntimeError, match=r"CUDA: .*invalid"):
        device.call("delta_layernorm", du, *norm)


def test_head(device: Device) -> None:
    generator = torch.Generator().manual_seed(0)
    for candidates, hidden, classes in [(1, 5, 2), (33, 64, 3), (7, 130, 5)]:
        pooler = torch.randn(candidates, hidden, generator=generator)
        pooled = torch.tanh(torch.randn(hidden, generator=generator, dtype=torch.float64) * 3)
        classifier = torch.randn(classes, hidden, generator=generator, dtype=torch.float64)
        got = device.call("delta_head", pooler, pooled, classifier)
        want = (torch.tanh(torch.atanh(pooled) + pooler.double()) - pooled) @ classifier.T
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_gelu_series(device: Device) -> None:
    a = torch.linspace(-9, 9, 77, dtype=torch.float64).view(7, 11)
    got = device.call("gelu_series", a, torch.float32)
    want = reference.gelu_series(a)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-40)
    assert torch.equal(torch.ops.pyneuro.gelu_series(a, torch.float64), want)
    torch.library.opcheck(torch.ops.pyneuro.gelu_series.default, (a, torch.float32))


@pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device, or no CUDA kernels built")
@pytest.mark.parametrize("size", [0.01, 30.0], ids=["in the series", "beyond it"])
@pytest.mark.parametrize("shape", [(5, 37, 64, 96), (1, 1, 8, 8), (3, 300, 768, 1544)], ids=str)
@pytest.mark.parametrize("architecture", ["sm80", "sm90"])
def test_products_with_the_gelu_difference_in_their_epilogue(
    architecture: str, shape: tuple[int, int, int, int], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cuda.cuda_module().product_epilogues:
        pytest.skip("built without CUTLASS")
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) != (9, 0) if architecture == "sm90" else major < 8:
        pytest.skip(f"this device does not run code for {architecture}")  # newer ones run that for sm80
    tokens, candidates, hidden, width = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    dx, weight, pre_gelu = (
        normal(tokens, candidates, hidden).half(),
        normal(width, hidden).half(),
        normal(tokens, width),
    )
    unit = torch.exp2(normal(candidates).round()) * size / hidden**0.5
    true = dx.double() @ weight.double().T * unit.double()[:, None]
    want = reference.delta_gelu(pre_gelu.double(), true, reference.gelu_series(pre_gelu.double()))
    series = reference.gelu_series(pre_gelu.double()).float()
    monkeypatch.setattr(cuda, "product_epilogue", lambda dx, weight: architecture)
    got = gelu_linear(*(x.cuda() for x in (dx, weight, pre_gelu, series, unit)))
    assert worst_row(got.cpu(), unit, want) < 2e-3


class TestMaskedLinear:
    @pytest.mark.parametrize("shape", [(5, 7, 9), (3, 16, 24), (1, 1, 1), (0, 4, 8)], ids=str)
    def test_equals_the_definition(self, device: Device, shape: tuple[int, int, int]) -> None:
        rows, out, inner = shape
        generator = torch.Generator().manual_seed(0)
        x, dy = torch.randn(rows, inner, generator=generator), torch.randn(rows, out, generator=generator)
        weight, scores = (torch.randn(out, inner, generator=generator) for _ in range(2))
        bias = torch.randn(out, generator=generator)
        for mask_bias in (False, True):
            y, bits = device.call("masked_linear", x, weight, scores, 0.2, bias, mask_bias)
            want, want_bits = reference.masked_linear(x, weight, scores, 0.2, bias, mask_bias)
            assert torch.equal(bits, want_bits)
            torch.testing.assert_close(y, want)
            torch.testing.assert_close(device.call("masked_linear_packed", x, weight, bits, bias, mask_bias), want)
        got = device.call("masked_linear_backward", dy, x, weight, bits, True, True)
        for found, expected in zip(got, reference.masked_linear_backward(dy, x, weight, bits), strict=True):
            torch.testing.assert_close(found, expected)
        several = torch.stack([bits, torch.zeros_like(bits)])
        got = device.call("masked_linear_multi", x, weight, several, bias, False, True)
        torch.testing.assert_close(got, reference.masked_linear_multi(x, weight, several, bias, False, True))

    def test_sixteen_bit_weights(self, device: Device) -> None:
        x, weight, scores = torch.randn(6, 20).bfloat16(), torch.randn(10, 20).bfloat16(), torch.randn(10, 20)
        y, bits = device.call("masked_linear", x, weight, scores, 0.0, None, False)
        want, want_bits = reference.masked_linear(x, weight, scores, 0.0, None, False)
        assert torch.equal(bits, want_bits)
        torch.testing.assert_close(y, want)
