"""The errors a caller can act on, and what tells them. Every message names the input, its value and the mend."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, TypeGuard


class PyneuroError(Exception):
    """Base of everything pyneuro raises on purpose."""


class InputError(PyneuroError, ValueError):
    """Something the caller passed cannot be used: a file, a label, a site, a value, an option."""


class BackendError(PyneuroError, RuntimeError):
    """The backend asked for is not built, or the machine cannot run it."""


class ResumeError(InputError):
    """A folder of partial results belongs to another model, other data or other settings."""


def is_number(value: Any) -> TypeGuard[float]:
    """A real number, Python's or numpy's, that is no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> TypeGuard[int]:
    """An integer, Python's or numpy's, that is no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)
