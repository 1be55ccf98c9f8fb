"""Which code computes, and in which precision. One switch, one environment variable (``PYNEURO_BACKEND``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from pyneuro import ops
from pyneuro.engine.arrival import send
from pyneuro.engine.difference import Difference
from pyneuro.errors import BackendError, InputError

Precision = Literal["fp32", "fp16", "bf16", "float64"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS = ("cuda", "cpu", "reference")
CPU = torch.device("cpu")
BACKEND_VARIABLE = "PYNEURO_BACKEND"


@dataclass(frozen=True)
class Backend:
    """Operations and precision of an engine.

    Attributes
    ----------
    name : "cpu", "cuda" or "reference"
        Native kernels, device kernels, or plain torch.
    precision : "fp32", "fp16", "bf16" or "float64"
        Of the differences. With fp16 they are stored in candidates' units (``Difference``) and products take fp16
        operands; sums and everything nonlinear are fp32. With bf16, operands of the large products over all rows are
        rounded and sums stay fp32; everything else, row 0 included, is fp32.
    device : torch.device
        Where the differences and the base run live.
    """

    name: str
    precision: Precision
    device: torch.device = CPU

    @property
    def dtype(self) -> torch.dtype:
        """Of the cached base values, and of differences that are not in units."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def in_units(self) -> bool:
        """Whether differences are stored in their candidates' units."""
        return self.precision == "fp16"

    @property
    def tile_rows(self) -> int:
        """Candidates a kernel takes at once; chunks that are a multiple of it waste nothing."""
        return ops.native().tile_rows if self.name == "cpu" else 1

    def exactly(self) -> Backend:
        """The same backend with differences stored as they are, fp32 at least; it reads the same packed weights."""
        return replace(self, precision="fp32") if self.in_units else self

    def operation(self, name: str) -> Callable[..., Tensor]:
        """One of ``torch.ops.pyneuro``, or its definition."""
        source = ops.reference if self.name == "reference" else torch.ops.pyneuro
        found: Callable[..., Tensor] = getattr(source, name)
        return found

    def move(self, tensor: Tensor) -> Tensor:
        """A tensor of the CPU to the device, without waiting for what the device is doing."""
        return send(tensor, self.device)

    def keep(self, true: Tensor) -> Difference:
        """True differences of row 0, [N, d], as this backend carries them."""
        if not self.in_units:
            return Difference(true)
        stored, unit = self.operation("delta_units")(true)
        return Difference(stored, unit)

    def pack(self, weight: Tensor) -> Tensor | None:
        """The weight laid out for this backend's large products. The reference reads only the dtype of it."""
        if self.name == "cpu":
            return ops.pack_weight(weight, torch.bfloat16 if self.precision == "bf16" else torch.float32)
        if self.precision == "bf16":
            return torch.empty(0, dtype=torch.bfloat16)
        return weight.half() if self.in_units else None

    def pack_exact(self, weight: Tensor) -> Tensor | None:
        """As ``pack``, for products of row 0 alone: fp32 where the large products are bf16."""
        return ops.pack_weight(weight) if self.name == "cpu" else self.pack(weight) if self.in_units else None

    def pack_transposed(self, weight: Tensor) -> Tensor | None:
        """As ``pack_exact``, for products with the transposed weight."""
        return self.pack_exact(weight.T if self.name == "cpu" else weight)

    def pack_heads(self, weight: Tensor, heads: int) -> Tensor | None:
        """As ``pack_exact``, for products with W_V [H e, d] head by head."""
        return ops.pack_heads(weight, heads) if self.name == "cpu" else self.pack_exact(weight)


def choose_backend(backend: str | None = None, precision: str = "fp32") -> Backend:
    """The backend asked for, or the best one.

    Parameters
    ----------
    backend : "cuda", "cuda:1", "cpu", "reference" or None
        None reads the environment variable ``PYNEURO_BACKEND``; where that is not set, ``cuda`` is taken if it is
        built, the machine has a device and the precision is fp32 or fp16; else ``cpu`` if it is built and offers the
        precision; else ``reference``.
    precision : "fp32", "fp16", "bf16" or "float64"

    Raises
    ------
    InputError
        For a name that is no backend or precision.
    BackendError
        For a backend that is not built, or cannot compute in this precision on this machine.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    asked = backend or os.environ.get(BACKEND_VARIABLE) or _best(precision)
    name, _, number = asked.partition(":")
    if name not in BACKENDS or (number and (name != "cuda" or not number.isdecimal())):
        raise InputError(f"backend {asked!r} is not one of {', '.join(BACKENDS)}, or cuda:1 for another device")
    if name == "cuda":
        return Backend(name, precision, _cuda_device(precision, int(number or 0)))
    if name == "cpu":
        native = ops.native()  # raises with the way to build it
        if precision in ("float64", "fp16"):
            raise BackendError(
                f"the cpu backend computes in fp32 and bf16; use backend='reference' for {precision}"
                + (", or backend='cuda'" if precision == "fp16" else "")
            )
        if precision == "bf16" and not native.bf16:
            raise BackendError(
                f"bf16 differences need a CPU with avx512_bf16 (instruction set in use: {native.isa}); use "
                "precision='fp32', or backend='reference' to emulate the rounding"
            )
    return Backend(name, precision)


def _best(precision: str) -> str:
    if precision in ("fp32", "fp16") and ops.cuda_built() and torch.cuda.is_available():
        return "cuda"
    offered = precision == "fp32" or (precision == "bf16" and ops.built() and ops.native().bf16)
    return "cpu" if ops.built() and offered else "reference"


def _cuda_device(precision: str, number: int) -> torch.device:
    ops.cuda_module()  # raises with the way to build it
    if precision not in ("fp32", "fp16"):
        raise BackendError(
            f"the cuda backend computes in fp32 and fp16, not {precision}; use backend='reference' for it"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        found = f"torch sees {count} of them" if torch.version.cuda else "this torch is built without CUDA"
        raise BackendError(f"there is no CUDA device {number} ({found}); use backend='cpu'")
    return torch.device("cuda", number)
