"""The streaming bootstrap against its definition, and against the errors known in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyneuro.effects.bootstrap import Bootstrap, poisson_weights
from pyneuro.errors import InputError


def fed(effects: np.ndarray, samples: Sequence[int], replicates: int = 200, seed: int = 0) -> Bootstrap:
    out = Bootstrap.zeros(replicates, effects.shape[1], seed)
    for sample in samples:
        out.update(effects[sample], sample)
    return out


def noise(samples: int = 30, neurons: int = 5) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((samples, neurons))


def test_weights_are_poisson() -> None:
    weights = np.concatenate([poisson_weights(1000, 0, sample) for sample in range(200)])
    for k in range(6):
        p = math.exp(-1) / math.factorial(k)
        assert (weights == k).mean() == pytest.approx(p, abs=5 * math.sqrt(p / len(weights)))
    assert weights.mean() == pytest.approx(1, abs=5 / math.sqrt(len(weights)))


def test_weights_of_samples_and_seeds_are_independent_and_those_of_one_are_fixed() -> None:
    rows = [poisson_weights(4000, seed, sample) for seed, sample in ((0, 0), (0, 1), (1, 0), (7, 7))]
    correlations = np.corrcoef(rows)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 5 / math.sqrt(4000)
    np.testing.assert_array_equal(poisson_weights(50, 0, 1), rows[1][:50])
    assert poisson_weights(12, 0, 0).tolist() == rows[0][:12].tolist()


def test_a_replicate_is_the_weighted_mean() -> None:
    effects = noise()
    weights = np.stack([poisson_weights(200, 3, sample) for sample in range(30)])
    means = (weights.T @ effects) / weights.sum(axis=0)[:, None]
    found = fed(effects, range(30), seed=3).columns(ci=0.8)
    np.testing.assert_allclose(found["boot_se"], means.std(axis=0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(found["boot_low"], np.percentile(means, 10, axis=0), rtol=1e-10)
    np.testing.assert_allclose(found["boot_high"], np.percentile(means, 90, axis=0), rtol=1e-10)


def test_its_error_is_that_of_a_mean() -> None:
    effects = noise(samples=200, neurons=400) * np.linspace(0.1, 10, 400) + 3.0
    found = fed(effects, range(200), replicates=500).columns()
    se = effects.std(axis=0, ddof=1) / math.sqrt(200)
    ratio = found["boot_se"] / se
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert (np.abs(ratio - 1) < 0.2).all()
    width = (found["boot_high"] - found["boot_low"]) / (2 * 1.96 * se)
    assert np.median(width) == pytest.approx(1, abs=0.06)


def test_its_intervals_cover() -> None:
    """Each neuron is an experiment of its own with mean 1."""
    effects = np.random.default_rng(2).exponential(size=(150, 1500))
    found = fed(effects, range(150)).columns(ci=0.9)
    covered = ((found["boot_low"] <= 1) & (found["boot_high"] >= 1)).mean()
    assert covered == pytest.approx(0.9, abs=0.05)


def test_skew_shows_in_the_interval() -> None:
    effects = np.random.default_rng(2).lognormal(sigma=1.5, size=(40, 200))
    found = fed(effects, range(40), replicates=400).columns()
    mean = effects.mean(axis=0)
    assert np.median((found["boot_high"] - mean) / (mean - found["boot_low"])) > 1.2


@given(st.permutations(range(12)), st.integers(0, 12), st.integers(0, 5))
def test_order_chunks_and_tiles_do_not_matter(order: list[int], cut: int, split: int) -> None:
    effects = np.round(1024 * noise(12)) / 1024  # sums of these are exact
    whole = fed(effects, range(12)).to_arrays()
    merged = fed(effects, order[:cut]).merge(fed(effects, order[cut:])).to_arrays()
    for name, values in whole.items():
        np.testing.assert_array_equal(merged[name], values)
    tiles = [fed(effects[:, :split], order), fed(effects[:, split:], order)]
    np.testing.assert_array_equal(np.concatenate([tile.total for tile in tiles], axis=1), whole["total"])


def test_it_goes_on_from_its_arrays() -> None:
    effects = noise()
    half = fed(effects, range(13), seed=4)
    back = Bootstrap.from_arrays({**half.to_arrays(), "other": np.zeros(1)})
    half.update(effects[13], 13)
    assert back.count == 13
    back.update(effects[13], 13)
    for name, values in fed(effects, range(14), seed=4).to_arrays().items():
        np.testing.assert_array_equal(back.to_arrays()[name], values)


def test_edges() -> None:
    for samples in (0, 1):
        assert all(np.isnan(column).all() for column in fed(noise(), range(samples)).columns().values())
    same = fed(np.full((20, 2), 0.1), range(20)).columns()
    np.testing.assert_allclose(same["boot_se"], 0, atol=1e-16)
    np.testing.assert_allclose(same["boot_low"], 0.1, rtol=1e-14)
    few = fed(noise(2), range(2)).columns()  # some replicates count neither
    assert all(np.isfinite(column).all() for column in few.values())
    assert fed(noise(neurons=0), range(3)).columns()["boot_se"].shape == (0,)


@pytest.mark.parametrize("replicates", [-1, 1, 19, 2.5, True, "200", None])
def test_too_few_replicates_are_refused(replicates: object) -> None:
    with pytest.raises(InputError, match="bootstrap = "):
        Bootstrap.zeros(replicates, 3)


def test_what_does_not_fit_is_refused() -> None:
    found = Bootstrap.zeros(20, 3)
    with pytest.raises(InputError, match=r"shape \[4\]"):
        found.update(np.zeros(4), 0)
    for other in (Bootstrap.zeros(20, 4), Bootstrap.zeros(21, 3), Bootstrap.zeros(20, 3, seed=1)):
        with pytest.raises(InputError, match="cannot be merged"):
            found.merge(other)
    arrays = found.to_arrays()
    with pytest.raises(InputError, match="lacks the arrays weight"):
        Bootstrap.from_arrays({name: values for name, values in arrays.items() if name != "weight"})
    with pytest.raises(InputError, match="do not fit"):
        Bootstrap.from_arrays({**arrays, "weight": np.zeros(4)})
    with pytest.raises(InputError, match="seed = -1"):
        Bootstrap.zeros(20, 3, seed=-1)
    with pytest.raises(InputError, match="ci = 2"):
        found.columns(2)
