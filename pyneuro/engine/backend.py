"""Which code computes, and in which precision. One switch, one environment variable (``PYNEURO_BACKEND``)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pyneuro import ops
from pyneuro.errors import BackendError, InputError

Precision = Literal["fp32", "bf16", "float64"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BACKENDS = ("cpu", "reference")
BACKEND_VARIABLE = "PYNEURO_BACKEND"


@dataclass(frozen=True)
class Backend:
    """Operations and precision of an engine.

    Attributes
    ----------
    name : "cpu" or "reference"
        Native kernels, or plain torch.
    precision : "fp32", "bf16" or "float64"
        Of the differences. With bf16, operands of the large products over all rows are rounded and sums stay fp32;
        everything else, row 0 included, is fp32.
    """

    name: str
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        """Of the differences and of the cached base values."""
        return torch.float64 if self.precision == "float64" else torch.float32

    @property
    def tile_rows(self) -> int:
        """Candidates a kernel takes at once; chunks that are a multiple of it waste nothing."""
        return ops.native().tile_rows if self.name == "cpu" else 1

    def operation(self, name: str) -> Callable[..., Tensor]:
        """One of ``pyneuro.ops.OPERATIONS``."""
        source = torch.ops.pyneuro if self.name == "cpu" else ops.reference
        found: Callable[..., Tensor] = getattr(source, name)
        return found

    def pack(self, weight: Tensor) -> Tensor | None:
        """The weight laid out for this backend's large products. The reference reads only the dtype of it."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        if self.name == "cpu":
            return ops.pack_weight(weight, dtype)
        return torch.empty(0, dtype=dtype) if self.precision == "bf16" else None

    def pack_exact(self, weight: Tensor) -> Tensor | None:
        """As ``pack``, always fp32."""
        return ops.pack_weight(weight) if self.name == "cpu" else None

    def pack_heads(self, weight: Tensor, heads: int) -> Tensor | None:
        """W_V [H e, d] head by head, fp32."""
        return ops.pack_heads(weight, heads) if self.name == "cpu" else None


def choose_backend(backend: str | None = None, precision: str = "fp32") -> Backend:
    """The backend asked for, or the best one.

    Parameters
    ----------
    backend : "cpu", "reference" or None
        None reads the environment variable ``PYNEURO_BACKEND``; where that is not set, ``cpu`` is taken if it is
        built and offers the precision, else ``reference``.
    precision : "fp32", "bf16" or "float64"

    Raises
    ------
    InputError
        For a name that is no backend or precision.
    BackendError
        For a backend that is not built, or cannot compute in this precision on this machine.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    name = backend or os.environ.get(BACKEND_VARIABLE) or ("cpu" if _cpu_offers(precision) else "reference")
    if name == "cuda":
        raise BackendError("this build has no cuda backend; use backend='cpu' or backend='reference'")
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not one of {', '.join(BACKENDS)}")
    if name == "cpu":
        native = ops.native()  # raises with the way to build it
        if precision == "float64":
            raise BackendError("the cpu backend computes in fp32 and bf16; use backend='reference' for float64")
        if precision == "bf16" and not native.bf16:
            raise BackendError(
                f"bf16 differences need a CPU with avx512_bf16 (instruction set in use: {native.isa}); use "
                "precision='fp32', or backend='reference' to emulate the rounding"
            )
    return Backend(name, precision)


def _cpu_offers(precision: str) -> bool:
    return ops.built() and precision != "float64" and (precision != "bf16" or ops.native().bf16)
