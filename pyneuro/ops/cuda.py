"""The module of the device kernels: found, checked, and its calls given a device and a stream."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyneuro.errors import BackendError

_module: ModuleType | None
_import_error: ImportError | None
try:
    _module, _import_error = importlib.import_module("pyneuro._cuda"), None
except ImportError as error:  # built without a CUDA compiler, or never
    _module, _import_error = None, error


def cuda_built() -> bool:
    """Whether the device kernels are there; whether there is a device to run them is another question."""
    return _module is not None


def cuda_module() -> ModuleType:
    """The device kernels. Raises BackendError, with the way to build them, where they are not there."""
    if _module is None:
        raise BackendError(
            f"the CUDA kernels are not built ({_import_error}); run 'pip install .' in the source tree with nvcc on "
            "the PATH, or use backend='cpu'"
        )
    return _module


def architectures() -> str:
    """Architectures the kernels are built for, such as ``"80;90"``; empty where they are not built."""
    return "" if _module is None else str(_module.architectures)


def launch(name: str, near: Tensor, *args: Any) -> None:
    """Launch a kernel on the device and the current stream of `near`."""
    kernel = getattr(cuda_module(), name)
    if near.device.type != "cuda":  # kernels that run on the host, in tests
        kernel(*args, 0)
        return
    stream = torch.cuda.current_stream(near.device).cuda_stream
    if near.device.index == torch.cuda.current_device():
        kernel(*args, stream)
        return
    with torch.cuda.device(near.device):
        kernel(*args, stream)


def address(tensor: Tensor | None) -> int:
    """Of its data; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def whole(columns: int) -> int:
    """Columns rounded up to whole vectors, so that every row of a product's operand begins aligned."""
    return -(-columns // 8) * 8


def is_half(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float16


def weight_for(dx: Tensor, weight: Tensor, packed: Tensor | None) -> Tensor:
    """The weight in the dtype of the differences it multiplies; `packed`, its fp16 copy, where that is the one."""
    if dx.dtype == weight.dtype:
        return weight
    return weight.to(dx.dtype) if packed is None else packed


def product_epilogue(dx: Tensor, weight: Tensor, *base: Tensor) -> str | None:
    """Architecture whose products of dx and weight carry a difference to `base` in their epilogue: fp16 in whole
    vectors, on Ampere and Ada (sm80) or Hopper (sm90), in a build with CUTLASS. None where there is none."""
    if not (cuda_module().product_epilogues and is_half(dx) and dx.device.type == "cuda"):
        return None
    whole = dx.shape[-1] % 8 == 0 and weight.shape[0] % 8 == 0 and dx.numel() > 0
    if not whole or any(tensor.data_ptr() % 16 for tensor in (dx, weight, *base)):
        return None
    major, minor = _capability(dx.device.index)
    return "sm80" if major == 8 else "sm90" if (major, minor) == (9, 0) else None


@cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
