"""The definitions themselves, against the plain difference of two evaluations in 50 digits or in float64."""

from __future__ import annotations

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F

from pyneuro.ops import reference


def gelu_exact(x: float) -> mp.mpf:
    return mp.mpf(x) * mp.ncdf(mp.mpf(x))


@pytest.mark.parametrize("a", [-6.0, -3.0, -0.7517916243, -0.1, 0.0, 0.3, 1.7, 5.0])
@pytest.mark.parametrize("d", [1e-12, 1e-6, -3e-3, 0.05, -0.0999])
def test_gelu_series(a: float, d: float) -> None:
    with mp.workdps(50):
        want = float(gelu_exact(mp.mpf(a) + mp.mpf(d)) - gelu_exact(mp.mpf(a)))
    base = torch.tensor([[a]], dtype=torch.float64)
    got = reference.delta_gelu(base, torch.tensor([[[d]]], dtype=torch.float64), reference.gelu_series(base)).item()
    # First omitted term: d^5 / 120 times the fifth derivative, below 4.5 everywhere.
    assert abs(got - want) <= abs(d) ** 5 * 4.5 / 120 + 1e-15 * abs(d)


def test_gelu_beyond_the_radius_is_the_plain_difference() -> None:
    a, d = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 2, 5, dtype=torch.float64) * 3
    want = F.gelu(a[:, None] + d) - F.gelu(a[:, None])
    got = reference.delta_gelu(a, d, reference.gelu_series(a))
    far = d.abs() > reference.GELU_SERIES_RADIUS[torch.float64]
    torch.testing.assert_close(got[far], want[far], rtol=1e-14, atol=1e-15)


def test_softmax() -> None:
    s, ds = torch.randn(4, 9, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    want = (s + ds).softmax(-1) - s.softmax(-1)
    torch.testing.assert_close(reference.delta_softmax(s.softmax(-1), ds), want, rtol=1e-13, atol=1e-15)


def test_layernorm() -> None:
    u, du, eps = torch.randn(3, 16, dtype=torch.float64), torch.randn(3, 2, 16, dtype=torch.float64), 1e-12
    gamma, beta = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    centred = u - u.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1) + eps).rsqrt()
    want = F.layer_norm(u[:, None] + du, (16,), gamma, beta, eps) - F.layer_norm(u, (16,), gamma, beta, eps)[:, None]
    torch.testing.assert_close(reference.delta_layernorm(du, centred, rstd, gamma), want, rtol=1e-12, atol=1e-14)


def test_layernorm_of_a_tiny_change_keeps_its_digits_in_fp32() -> None:
    u = torch.randn(1, 64, dtype=torch.float64)
    du = torch.randn(1, 1, 64, dtype=torch.float64) * 1e-9
    centred = u - u.mean(-1, keepdim=True)
    rstd = (centred.square().mean(-1) + 1e-12).rsqrt()
    gamma = torch.ones(64, dtype=torch.float64)
    want = reference.delta_layernorm(du, centred, rstd, gamma)
    got = reference.delta_layernorm(du.float(), centred.float(), rstd.float(), gamma.float())
    assert ((got.double() - want).norm() / want.norm()).item() < 1e-6


def test_attention_is_the_difference_of_two_attentions() -> None:
    s, n, d, h = 6, 3, 12, 2
    q, k, v = (torch.randn(s, d, dtype=torch.float64) for _ in range(3))
    dqkv = torch.randn(s, n, 3 * d, dtype=torch.float64)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (x.view(s, h, d // h).transpose(0, 1) for x in (q, k, v))
        p = (q @ k.transpose(1, 2) / (d // h) ** 0.5).softmax(-1)
        return p, (p @ v).transpose(0, 1).reshape(s, d)

    p, base = attend(q, k, v)
    got = reference.delta_attention(dqkv, q, k, v, p)
    for c in range(n):
        dq, dk, dv = dqkv[:, c].chunk(3, -1)
        torch.testing.assert_close(got[:, c], attend(q + dq, k + dk, v + dv)[1] - base, rtol=1e-11, atol=1e-13)

    only_first = torch.zeros_like(dqkv)
    only_first[0] = dqkv[0]
    want = reference.delta_attention(only_first, q, k, v, p)[0]
    torch.testing.assert_close(reference.delta_attention_row0(dqkv[0], q, k, v, p), want, rtol=1e-11, atol=1e-13)


def test_low_rank_and_row0_forms_are_the_dense_form() -> None:
    from tests.ops.cases import arguments

    cases = arguments(7, 4, 24, 3, 20, size=0.3)
    dqkv0, dx0, q, k, v, p, *_, wao, _, centred, rstd, gamma = cases["delta_attention_low_rank"]
    dqkv, dx = torch.zeros(7, 4, 72, dtype=torch.float64), torch.zeros(7, 4, 24, dtype=torch.float64)
    dqkv[0], dx[0] = dqkv0, dx0
    dctx = reference.delta_attention(dqkv, q, k, v, p)
    want = reference.delta_linear_norm(dctx, dx, wao, None, centred, rstd, gamma)
    got = reference.delta_attention_low_rank(*cases["delta_attention_low_rank"])
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)

    dx, _, q, k, v, p, wk, _, wv, _ = cases["delta_attention_row0_dense"]
    wq = torch.randn(24, 24, dtype=torch.float64)
    dqkv = torch.cat([dx @ wq.T, dx @ wk.T, dx @ wv.T], -1)
    got = reference.delta_attention_row0_dense(dx, dqkv[0, :, :24], q, k, v, p, wk, None, wv, None)
    torch.testing.assert_close(got, reference.delta_attention(dqkv, q, k, v, p)[0], rtol=1e-10, atol=1e-13)
