"""Entries times adjoints: the definitions against the plain computation, and the device kernels against them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyneuro.ops import reference
from tests.device import Device
from tests.ops.cases import relative_error, to32

NAMES = ("adjoint_query", "adjoint_key", "adjoint_norm")
SHAPES = [(7, 5, 24, 3, 2), (1, 1, 8, 1, 1), (2, 30, 36, 4, 2), (33, 70, 66, 3, 4), (40, 5, 96, 3, 2)]  # S, N, d, H, G


def arguments(
    tokens: int, candidates: int, hidden: int, heads: int, differences: int, size: float = 1.0
) -> dict[str, tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    s, d, h, g = tokens, hidden, heads, differences
    index = torch.randint(d, (candidates,), generator=generator)
    change = draw(candidates) * size
    q, k = draw(s, d), draw(s, d)
    scores = torch.einsum("the,she->hts", q.view(s, h, -1), k.view(s, h, -1)) / math.sqrt(d // h)
    p = scores.softmax(-1)
    u, slope = draw(d), draw(g, d)
    centred, slope = u - u.mean(), slope - slope.mean(-1, keepdim=True)
    facts = torch.cat([torch.stack([(centred.square().mean() + 1e-3).rsqrt(), draw(1)[0].abs()]), slope @ centred])
    others = draw(h, g, s) * (s > 1)  # along the context of tokens that there are
    return {
        "adjoint_query": (index, change, k, p, draw(h, g, s), draw(h).abs()),
        "adjoint_key": (index, change, q, p, p[:, :, 1:].sum(-1), others, draw(h, g, s), draw(h, s).abs()),
        "adjoint_norm": (
            index,
            change,
            torch.cat([centred[None], slope]),
            torch.full((d,), 1 - 1 / d, dtype=torch.float64),
            facts,
            d,
        ),
    }


def working(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """As an engine passes them: change in float64, the base run of Q and K in fp32."""
    return args if name == "adjoint_norm" else (*args[:2], *to32(args[2:]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_definitions_move_the_row_and_subtract(shape: tuple[int, ...]) -> None:
    cases = arguments(*shape)
    _, _, d, heads, _ = shape
    index, change, k, p, along, strength = cases["adjoint_query"]
    found = reference.adjoint_query(*cases["adjoint_query"])
    for n, (i, step) in enumerate(zip(index.tolist(), change.tolist(), strict=True)):
        h = i // (d // heads)
        row, key = p[h, 0], k[:, i]
        moved = (row.log() + step * key / math.sqrt(d // heads)).softmax(-1)
        torch.testing.assert_close(found[n, :-1], along[h] @ (moved - row), rtol=1e-9, atol=1e-12)
        spread = (row * key.square()).sum() - (row * key).sum().square()
        torch.testing.assert_close(found[n, -1], strength[h] * spread * step**2, rtol=1e-9, atol=1e-12)

    index, change, q, p, rest, along_rest, along_first, strength = cases["adjoint_key"]
    found = reference.adjoint_key(*cases["adjoint_key"])
    for n, (i, step) in enumerate(zip(index.tolist(), change.tolist(), strict=True)):
        h = i // (d // heads)
        scores = p[h].log()
        scores[:, 0] += step * q[:, i] / math.sqrt(d // heads)
        moved = (scores.softmax(-1) - p[h])[:, 0]
        # What the other tokens lose, they lose in proportion: their context shrinks as a whole.
        want = along_first[h] @ moved - along_rest[h] @ (moved / rest[h].clamp(min=1e-300))
        torch.testing.assert_close(found[n, :-1], want, rtol=1e-8, atol=1e-11)
        spread = (strength[h] * p[h, :, 0] * (1 - p[h, :, 0]) * q[:, i].square()).sum()
        torch.testing.assert_close(found[n, -1], spread * step**2, rtol=1e-9, atol=1e-12)

    index, change, products, _, facts, _ = cases["adjoint_norm"]
    found = reference.adjoint_norm(*cases["adjoint_norm"])
    centred, eps = products[0], 1 / facts[0] ** 2 - products[0].square().mean()
    for n, (i, step) in enumerate(zip(index.tolist(), change.tolist(), strict=True)):
        u = centred.clone()
        u[i] += step
        after = (u - u.mean()) / (u.var(unbiased=False) + eps).sqrt()
        torch.testing.assert_close(found[n, :-1], products[1:] @ (after - centred * facts[0]), rtol=1e-8, atol=1e-11)
        torch.testing.assert_close(found[n, -1], facts[1] * step**2)


@pytest.mark.parametrize("size", [1e-6, 1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_kernels_equal_the_definition(device: Device, name: str, shape: tuple[int, ...], size: float) -> None:
    args = arguments(*shape, size=size)[name]
    want = getattr(reference, name)(*args)
    got = device.call(name, *working(name, args))
    for part in (slice(-1), slice(-1, None)):
        assert relative_error(got[:, part], want[:, part]) < (1e-12 if name == "adjoint_norm" else 1e-5)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 70),
    candidates=st.integers(0, 40),
    heads=st.integers(1, 4),
    width=st.integers(2, 20),
    differences=st.integers(1, 5),
    name=st.sampled_from(NAMES),
)
def test_any_shape(
    device: Device, tokens: int, candidates: int, heads: int, width: int, differences: int, name: str
) -> None:
    args = arguments(tokens, candidates, heads * width, heads, differences)[name]
    got = device.call(name, *working(name, args))
    assert got.shape == (candidates, differences + 1)
    assert relative_error(got, getattr(reference, name)(*args)) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_opcheck_and_wrong_arguments(name: str) -> None:
    args = working(name, arguments(5, 4, 12, 2, 2)[name])
    op = getattr(torch.ops.pyneuro, name)
    torch.library.opcheck(op.default, args)
    with pytest.raises(ValueError, match=f"{name}: change must be float64"):
        op(args[0], args[1].float(), *args[2:])
    with pytest.raises(ValueError, match=rf"{name}: change must be \[4\]"):
        op(args[0], args[1][:3], *args[2:])
