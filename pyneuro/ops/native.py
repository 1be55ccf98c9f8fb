"""The native module: found, checked, and one instruction set of it chosen."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch  # before the native module, so that both share torch's OpenMP runtime

from pyneuro.errors import BackendError

_module: ModuleType | None
_import_error: ImportError | None
try:
    _module, _import_error = importlib.import_module("pyneuro._native"), None
except ImportError as error:  # a source tree that was never built
    _module, _import_error = None, error

ISA_VARIABLE = "PYNEURO_ISA"


@dataclass(frozen=True)
class Native:
    """The native kernels of one instruction set."""

    module: ModuleType
    isa: str
    panel_width: int
    tile_rows: int
    bf16: bool


def built() -> bool:
    """Whether the native module is there at all."""
    return _module is not None


def instruction_sets() -> dict[str, dict[str, int | bool]]:
    """Instruction sets this build holds and this machine runs, best first; empty where nothing is built."""
    found: dict[str, dict[str, int | bool]] = {} if _module is None else _module.instruction_sets()
    return found


@cache
def native() -> Native:
    """The kernels in use: the best instruction set, or the one named by the environment variable ``PYNEURO_ISA``.

    Raises BackendError where the module is not built or the named set is not available.
    """
    if _module is None:
        raise BackendError(
            f"the native kernels are not built ({_import_error}); run 'pip install .' in the source tree with a C++20 "
            "compiler, or use backend='reference'"
        )
    available = instruction_sets()
    isa = os.environ.get(ISA_VARIABLE) or next(iter(available))
    if isa not in available:
        raise BackendError(f"{ISA_VARIABLE}={isa!r} is not available here; choose one of {', '.join(available)}")
    facts = available[isa]
    return Native(_module, isa, int(facts["panel_width"]), int(facts["tile_rows"]), bool(facts["bf16"]))


def threads() -> int:
    """Threads a kernel may use: torch's own setting."""
    return torch.get_num_threads()
