"""The partial state of a search on disk: one file a group of neurons, so that a stopped search goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyneuro.errors import InputError, ResumeError
from pyneuro.results.files import discard_leftovers, plain, read_json, to_json, writable_folder, write_atomic

_GROUP = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
_SETTINGS = "settings.json"
_META = "__meta__"
_ABSENT = "(absent)"
_SHOWN = 100


class TileStore:
    """Partial results in ``folder``: ``settings.json`` and ``tiles/<group>.npz``, independent of each other.

    Parameters
    ----------
    folder : path
        Made when missing.
    settings : dict
        Everything the partial results depend on (model digest, data digest, response, convention, ...), JSON-able.
    resume : bool
        Whether partial results already there may be continued.

    Raises
    ------
    InputError
        The folder cannot be written, or holds partial results and ``resume`` is False; settings JSON cannot hold.
    ResumeError
        The partial results were made with other settings; the message lists what differs.

    Notes
    -----
    ``search`` keeps other processes out. Callers of this class alone may have several write different groups: let one
    open the store first, the others with ``resume=True`` thereafter.
    """

    def __init__(self, folder: str | os.PathLike[str], settings: Mapping[str, Any], resume: bool) -> None:
        text = to_json(settings, "setting")
        self.folder = writable_folder(folder)
        self.settings: dict[str, Any] = json.loads(text)
        self._tiles = writable_folder(self.folder / "tiles")
        discard_leftovers(self.folder)
        discard_leftovers(self._tiles)
        if found := self.groups():
            if not resume:
                raise InputError(
                    f"folder {str(self.folder)!r} holds partial results (tiles: {len(found)}); pass resume=True "
                    "(--resume) to continue them, or choose another folder"
                )
            self._check_settings()
        else:
            write_atomic(self.folder / _SETTINGS, text.encode())

    def _check_settings(self) -> None:
        path = self.folder / _SETTINGS
        stored = read_json(path, f"what {str(self._tiles)!r} was made with is unknown; delete it to start again")
        check_same_settings(stored, self.settings, f"folder {str(self.folder)!r} holds partial results")

    def groups(self) -> list[str]:
        """Names of the groups with partial results, sorted."""
        return sorted(path.stem for path in self._tiles.glob("*.npz"))

    def write(self, group: str, done: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace the state of ``group``, atomically and durably.

        Parameters
        ----------
        group : str
            For example ``"L3.I"``; letters, digits, ``.``, ``_`` and ``-``.
        done : int
            Samples included.
        arrays : dict of numpy arrays
            Plain dtypes (no objects).
        """
        if done < 0:
            raise InputError(f"group {group!r}: done = {done}; pass the number of samples included")
        stored = {name: np.asarray(values) for name, values in arrays.items()}
        for name, values in stored.items():
            if values.dtype.hasobject or name == _META:
                raise InputError(
                    f"group {group!r}: array {name!r} of dtype {values.dtype} cannot be stored; rename or convert"
                )
        meta = {"group": group, "done": int(done), "checksum": _checksum(group, done, stored)}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{_META: np.array(json.dumps(meta))}, **stored)
        write_atomic(self._path(group), buffer.getvalue())

    def read(self, group: str) -> tuple[int, dict[str, np.ndarray]] | None:
        """(done, arrays) of ``group``; None when it has not begun.

        A damaged file is moved aside with a UserWarning and None returned: this group starts again, the others stay.
        """
        path = self._path(group)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(
                f"{str(path)!r} cannot be read ({error.strerror}); fix its permissions or delete it"
            ) from error
        try:
            return _parse(group, content)
        except Exception as error:  # a flipped bit can make zipfile and numpy raise anything
            aside = path.with_name(path.name + ".corrupt")
            os.replace(path, aside)
            warnings.warn(
                f"partial results of group {group!r} are damaged ({error}); moved to {str(aside)!r}, "
                "the group starts again",
                UserWarning,
                stacklevel=2,
            )
            return None

    def clear(self) -> None:
        """Remove the partial results, once the final result is saved. Files of others in the folder stay."""
        for pattern in ("*.npz", "*.npz.corrupt"):
            for path in self._tiles.glob(pattern):
                path.unlink(missing_ok=True)
        discard_leftovers(self._tiles)
        with contextlib.suppress(OSError):
            self._tiles.rmdir()
        (self.folder / _SETTINGS).unlink(missing_ok=True)

    def _path(self, group: str) -> Path:
        if not _GROUP.match(group):
            raise InputError(f"group {group!r} cannot name a file; use letters, digits, '.', '_' and '-', as in 'L3.I'")
        return self._tiles / f"{group}.npz"


def _parse(group: str, content: bytes) -> tuple[int, dict[str, np.ndarray]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays.pop(_META)))
    done = int(meta["done"])
    if meta["group"] != group:
        raise ValueError(f"the file belongs to group {meta['group']!r}")
    if meta["checksum"] != _checksum(group, done, arrays):
        raise ValueError("the checksum does not match")
    return done, arrays


def _checksum(group: str, done: int, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps([group, int(done)]).encode())
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(json.dumps([name, values.dtype.str, list(values.shape)]).encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def check_same_settings(stored: Mapping[str, Any], given: Mapping[str, Any], what: str) -> None:
    """Raise ResumeError listing every setting in which results on disk (`what`) and a request differ."""
    if differing := _differences(stored, given):
        lines = "".join(f"\n  {key}: {there} in the folder, {here} now" for key, there, here in differing)
        raise ResumeError(
            f"{what} made with other settings:{lines}\npass the same settings to continue, or choose another folder"
        )


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """[(dotted key, value in the folder, value now)] for every leaf that differs."""
    out = []
    for key in [*stored, *(key for key in given if key not in stored)]:
        there, here, name = stored.get(key, _ABSENT), given.get(key, _ABSENT), f"{prefix}{key}"
        if isinstance(there, dict) and isinstance(here, dict):
            out += _differences(there, here, f"{name}.")
        elif there != here or isinstance(there, bool) != isinstance(here, bool):
            out.append((name, _shown(there), _shown(here)))
    return out


def _shown(value: Any) -> str:
    text = value if value == _ABSENT else json.dumps(value, ensure_ascii=False, default=plain)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
