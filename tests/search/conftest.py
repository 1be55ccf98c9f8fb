"""A small classifier, a few pairs, and the ways to compute that every search must agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from pyneuro import ops
from pyneuro.models import Classifier
from tests.tiny import PAIRS, SamplePair, make_tiny

# What subtracting two float64 runs leaves of a difference.
HOOKS = 1e-13


@dataclass(frozen=True)
class Way:
    """Backend and precision, and how far an effect may be off, relative to the largest effect of its search."""

    backend: str
    precision: str
    tolerance: float

    @property
    def options(self) -> dict[str, str]:
        return {"backend": self.backend, "precision": self.precision}

    def check(self, found: pd.Series, wanted: pd.Series) -> None:
        """Raise AssertionError unless they agree, missing values included."""
        a, b = np.asarray(found, dtype=float), np.asarray(wanted, dtype=float)
        largest = np.nanmax(np.abs(b)) if np.isfinite(b).any() else 0.0
        np.testing.assert_allclose(a, b, rtol=0.0, atol=self.tolerance * largest + HOOKS)


FLOAT64 = Way("reference", "float64", 1e-9)
FP32 = Way("reference", "fp32", 1e-5)
CPU = Way("cpu", "fp32", 1e-5)

NATIVE = pytest.mark.skipif(not ops.built(), reason="the native kernels are not built")


@pytest.fixture(params=[FLOAT64, pytest.param(CPU, marks=NATIVE)], ids=["reference-float64", "cpu-fp32"])
def way(request: pytest.FixtureRequest) -> Way:
    """Every way to compute in turn."""
    found: Way = request.param
    return found


@pytest.fixture(scope="session")
def clf() -> Classifier:
    """Three layers of odd sizes: 240 neurons."""
    return make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0)


@pytest.fixture(scope="session")
def few() -> tuple[SamplePair, ...]:
    """Four pairs of different lengths and of all four gold classes."""
    return PAIRS[:4]
