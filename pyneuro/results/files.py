"""Writing files so that a crash at any moment leaves the old file or the new one, never half of either."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyneuro.errors import InputError

TEMPORARY = ".partial"
LOCK_FILE = ".in-use"


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the folder and prove that a file can be written there. Raises InputError before any work is lost."""
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path / "probe")
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"folder {str(path)!r} cannot be written ({_reason(error)}); choose another folder") from error
    return path


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for the length of a ``with`` block; the lock dies with the process.

    Raises InputError where another search holds it. On systems without ``flock`` nothing is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = folder / LOCK_FILE
    with open(path, "ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"folder {str(folder)!r} is in use by another search; wait for it to end, or choose another folder"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` through a temporary file beside it, synced to disk first.

    Raises InputError when the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        mend = "free space or fix its permissions, then run again"
        raise InputError(f"{str(path)!r} cannot be written ({_reason(error)}); {mend}") from error


def discard_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that are gone; those of a live process on this machine stay."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if not _alive(path.name.split(".")[-2].split("-")[0]):
            with contextlib.suppress(OSError):
                path.unlink()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def to_json(content: Mapping[str, Any], what: str) -> str:
    """Strict JSON, readable and stable. Raises InputError naming the part of ``what`` that JSON cannot hold."""
    for key, value in content.items():
        try:
            json.dumps(value, allow_nan=False, default=plain)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{what} {key!r} = {value!r} cannot be stored as JSON ({error}); pass strings, finite numbers, "
                "booleans, None, lists and dicts"
            ) from error
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def plain(value: Any) -> Any:
    """A numpy number as Python's, for JSON. Raises TypeError for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """A JSON object from a file. Raises InputError, ending in ``mend``, when missing, broken or of another kind."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{str(path)!r} is missing; {mend}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({_reason(error)}); {mend}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not valid JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds a {type(content).__name__}, not a JSON object; {mend}")
    return content


def _temporary(path: Path) -> Path:
    # The process id lets another process tell a leftover from a file being written.
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself durable; not every system can open a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
