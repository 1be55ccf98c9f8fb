"""Every instruction set this machine has, one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest

from pyneuro import ops

native_module = importlib.import_module("pyneuro.ops.native")  # the package exports a function of this name
ISAS = list(ops.instruction_sets())


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(native_module.ISA_VARIABLE, request.param)
    native_module.native.cache_clear()
    yield request.param
    native_module.native.cache_clear()
