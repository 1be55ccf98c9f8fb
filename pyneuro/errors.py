"""The errors a caller can act on. Every message names the input, its value and the mend."""

from __future__ import annotations


class PyneuroError(Exception):
    """Base of everything pyneuro raises on purpose."""


class InputError(PyneuroError, ValueError):
    """Something the caller passed cannot be used: a file, a label, a site, a value, an option."""


class BackendError(PyneuroError, RuntimeError):
    """The backend asked for is not built, or the machine cannot run it."""


class ResumeError(InputError):
    """A folder of partial results belongs to another model, other data or other settings."""
