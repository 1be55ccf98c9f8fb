"""Moments counted by the device kernel are those counted on the host."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyneuro.data.pairs import LABELS
from pyneuro.effects import RESPONSES, Moments, Response
from pyneuro.effects.on_device import DeviceMoments
from tests.device import Device

N, SAMPLES = 37, 7


def fresh(columns: int) -> list[Moments]:
    return [Moments.zeros(N) for _ in range(columns)]


def drawn(rng: np.random.Generator, treatments: int, classes: int, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and changes [T, N, C] of them, some 0."""
    delta = rng.standard_normal((treatments, N, classes)) * size * rng.choice([1e-6, 1e-2, 1.0], (treatments, N, 1))
    delta[:, ::5] = 0.0
    return rng.standard_normal(classes) * 3, delta - delta[..., :1]


@pytest.mark.parametrize("size", [1.0, 60.0], ids=["near", "far"])
@pytest.mark.parametrize("treatments", [1, 2, 3])
@pytest.mark.parametrize("name", RESPONSES)
def test_the_same_as_on_the_host(device: Device, name: str, treatments: int, size: float) -> None:
    rng = np.random.default_rng(treatments)
    response = Response(name, 1)
    columns = treatments + (treatments >= 2)
    wanted, found, sizes = fresh(columns), fresh(columns), np.zeros((3, N))
    order = rng.permutation(treatments * N).reshape(treatments, N)
    exact = torch.from_numpy((rng.random(N) < 0.3).astype(np.int64)).to(device.device)
    counted: DeviceMoments | None = None
    size_of = np.zeros((3, N))
    for sample in range(SAMPLES):
        if sample in (0, 4):  # as after a stop: what there is goes out and in again
            if counted is not None:
                sizes = counted.read(found)
            counted = DeviceMoments.of(response, torch.from_numpy(order).to(device.device), exact, found, sizes)
        logits, delta = drawn(rng, treatments, 3, size)
        label = None if sample == 3 else LABELS[sample % 3]
        left_out = rng.random((treatments, N))
        moved = np.zeros((treatments * N, 3))
        moved[order.ravel()] = np.concatenate([delta[..., 1:], left_out[..., None]], axis=-1).reshape(-1, 3)
        assert counted is not None
        counted.add(torch.from_numpy(moved).to(device.device), logits, label, 10 + sample, 2.0)
        terms = [response.terms(logits, d) for d in delta]
        terms += [terms[0] - terms[1]] if treatments >= 2 else []
        for moments, of_column in zip(wanted, terms, strict=True):
            moments.update(of_column, label, 10 + sample)
        reach = np.ptp(delta, axis=-1).sum(0)
        sensitivity = 2.0 * (reach if name == "kl" else np.ones(N))
        leaves = sensitivity * left_out.sum(0)
        larger = 1 + np.abs([t.effect for t in terms]).max(0) if response.is_ratio else 1.0
        size_of += [
            np.where(exact.cpu() == 1, 0.0, leaves * larger),
            sensitivity * reach,
            np.sqrt(sensitivity * leaves),
        ]
    assert counted is not None
    np.testing.assert_allclose(counted.read(found), size_of, rtol=1e-12)
    assert counted.first_bad() is None
    for got, want in zip(found, wanted, strict=True):
        scale = np.abs(want.mean).max(axis=1)
        for field, values in want.to_arrays().items():
            other = got.to_arrays()[field]
            if values.dtype.kind == "f":
                np.testing.assert_allclose(
                    other, values, rtol=1e-9, atol=1e-12 * float(np.nanmax(scale)), err_msg=field
                )
            else:
                np.testing.assert_array_equal(other, values, err_msg=field)


def test_a_change_that_is_not_finite_is_named(device: Device) -> None:
    where = torch.arange(2 * N).view(2, N).to(device.device)
    exact = torch.zeros(N, dtype=torch.int64, device=device.device)
    counted = DeviceMoments.of(Response("probability", 0), where, exact, fresh(3), np.zeros((3, N)))
    for sample, value in enumerate((0.0, float("nan"), float("inf"))):
        moved = torch.zeros(2 * N, 3, dtype=torch.float64)
        moved[N + 5, 1] = moved[N + 30, 0] = value
        counted.add(moved.to(device.device), np.zeros(3), None, sample, 1.0)
    assert counted.first_bad() == (5, 1)


def test_effects_of_any_size_and_the_weights_of_the_classes(device: Device) -> None:
    """The kernel's formulas near 0, where differences of the two sides would have no digits."""
    logits, tiny = np.array([2.0, -1.0, 0.5]), np.zeros((1, N, 3))
    tiny[0, :, 1] = 10.0 ** -np.linspace(1, 14, N)
    for name in ("probability", "odds", "log_odds", "logit_difference", "kl"):
        response, found = Response(name, 1), fresh(1)
        where = torch.arange(N).view(1, N).to(device.device)
        exact = torch.zeros(N, dtype=torch.int64, device=device.device)
        counted = DeviceMoments.of(response, where, exact, found, np.zeros((3, N)))
        moved = torch.from_numpy(np.concatenate([tiny[0, :, 1:], np.zeros((N, 1))], axis=1))
        counted.add(moved.to(device.device), logits, None, 0, 1.0)
        counted.read(found)
        want = response.terms(logits, tiny[0])
        np.testing.assert_allclose(found[0].mean[0], want.effect, rtol=1e-12)
        np.testing.assert_allclose(found[0].mean[2], want.difference, rtol=1e-12)
