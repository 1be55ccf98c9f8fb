"""Fixtures shared by all rooms. ``tests.tiny`` makes random classifiers of any size."""

from __future__ import annotations

import os

# Before torch is imported: spinning OpenMP threads cost milliseconds a region on a busy machine, and the hub is never
# needed.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable

import pytest

from pyneuro.models import Classifier, bundled_model, load
from tests.device import DEVICES, Device, cuda, emulated
from tests.tiny import PAIRS, SamplePair, make_tiny


@pytest.fixture(scope="session")
def bundled() -> Classifier:
    """The NLI classifier that comes with pyneuro, on the CPU."""
    return load(bundled_model())


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The device kernels, on the host and on a CUDA device."""
    if request.param == "host":
        monkeypatch.setattr(cuda, "_module", emulated())
    return Device(request.param)


@pytest.fixture(scope="session")
def pairs() -> tuple[SamplePair, ...]:
    """Eight real-looking pairs of different lengths, among them a one-word hypothesis and a one-word premise."""
    return PAIRS


@pytest.fixture(scope="session")
def tiny_bert() -> Callable[..., Classifier]:
    """``tiny_bert(layers=3, hidden=24, heads=3, intermediate=40, labels=3, seed=0, ...)``."""
    return lambda **sizes: make_tiny("bert", **sizes)


@pytest.fixture(scope="session")
def tiny_roberta() -> Callable[..., Classifier]:
    """As ``tiny_bert``, RoBERTa."""
    return lambda **sizes: make_tiny("roberta", **sizes)
