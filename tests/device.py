"""Where the device kernels run in tests: on the host, through csrc/emulator, and on a CUDA device where there is one.

The host build is made on the first use, from the very files that nvcc compiles.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pyneuro import ops
from pyneuro.engine.backend import Backend
from pyneuro.ops.registry import ON_CUDA

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "emulated"
HAS_DEVICE = ops.cuda_built() and torch.cuda.is_available()
DEVICES = [
    "host",
    pytest.param("cuda", marks=pytest.mark.skipif(not HAS_DEVICE, reason="no CUDA device, or no CUDA kernels built")),
]
cuda = importlib.import_module("pyneuro.ops.cuda")


@cache
def emulated() -> ModuleType:
    """The device kernels as a module for the host. Skips the test where it cannot be built."""
    pybind11 = pytest.importorskip("pybind11", reason="the host build of the device kernels needs pybind11")
    for tool in ("cmake", "ninja", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"the host build of the device kernels needs {tool}")
    configure = [
        "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(BUILD), "-DPN_EMULATE=ON", "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
    ]  # fmt: skip
    environment = {**os.environ, "CXX": "g++"}
    for command in (configure, ["cmake", "--build", str(BUILD), "--target", "_cuda_emulated"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, f"the host build of the device kernels failed:\n{done.stdout}\n{done.stderr}"
    (path,) = BUILD.glob("_cuda_emulated*.so")
    spec = importlib.util.spec_from_file_location("_cuda_emulated", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OnHost(Backend):
    """The cuda backend whose kernels run on the host, on tensors of the CPU."""

    def operation(self, name: str) -> Callable[..., Any]:
        return ON_CUDA[name]


class Device:
    """Runs operations and engines by the device kernels."""

    def __init__(self, name: str) -> None:
        self.device = torch.device("cpu" if name == "host" else "cuda")

    def call(self, name: str, *args: Any) -> Any:
        """An operation; tensors move there and back."""
        moved = [a.to(self.device) if isinstance(a, torch.Tensor) else a for a in args]
        found = (ON_CUDA[name] if self.device.type == "cpu" else getattr(torch.ops.pyneuro, name))(*moved)
        return tuple(x.cpu() for x in found) if isinstance(found, tuple) else found.cpu()

    def backend(self, precision: Any) -> Backend:
        if self.device.type == "cpu":
            return OnHost("cuda", precision)
        return Backend("cuda", precision, torch.device("cuda", 0))
