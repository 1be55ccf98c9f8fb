"""The folder of ``pyneuro study``: what it was asked for, and every step that is done, each in a file of its own."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyneuro.cli.prepare import say
from pyneuro.errors import InputError, ResumeError
from pyneuro.results.files import discard_leftovers, read_json, to_json, writable_folder, write_atomic

Float = npt.NDArray[np.float64]
SETTINGS_FILE = "settings.json"
_FACTS = "facts"


@dataclass(frozen=True, eq=False)
class Part:
    """What came of a step.

    Attributes
    ----------
    scores : mapping of evaluation set to float [n, K]
        The classes' probabilities or scores of every pair.
    facts : dict
        In plain JSON types; "seconds" is added when the step is kept.
    """

    scores: Mapping[str, Float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class StudyFolder:
    """Steps are kept as ``parts/<name>.npz``, whole or not at all, so that an interruption loses the running one only.

    Raises InputError where the folder holds a study and `resume` is not set.
    """

    def __init__(self, path: str, *, resume: bool) -> None:
        self.path = writable_folder(path)
        if (self.path / SETTINGS_FILE).exists() and not resume:
            raise InputError(f"folder {path!r} holds a study; pass --resume to go on with it, or choose another folder")
        self.parts = writable_folder(self.path / "parts")
        discard_leftovers(self.parts)

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Write what the study is made of; of one that goes on, check that it is the same.

        Raises ResumeError naming what differs.
        """
        path = self.path / SETTINGS_FILE
        content = to_json(settings, "setting")
        if not path.exists():
            write_atomic(path, content.encode())
            return
        before, now = read_json(path, "start again in another folder"), json.loads(content)
        for name in {**now, **before}:
            if before.get(name) != now.get(name):
                raise ResumeError(
                    f"folder {str(self.path)!r} holds a study with {name} = {before.get(name)!r}, not "
                    f"{now.get(name)!r}; pass the same to go on, or choose another folder"
                )

    def once(self, name: str, work: Callable[[], Part]) -> Part:
        """A step: read where it is kept, else done and kept."""
        path = self.parts / f"{name}.npz"
        if path.exists():
            return _read(path)
        say(f"step     {name}")
        started = time.perf_counter()
        part = work()
        part = Part(part.scores, {**part.facts, "seconds": time.perf_counter() - started})
        buffer = io.BytesIO()
        members: dict[str, Any] = {**part.scores, _FACTS: np.array(to_json(part.facts, "fact"))}
        np.savez_compressed(buffer, **members)
        write_atomic(path, buffer.getvalue())
        return part


def _read(path: Path) -> Part:
    try:
        with np.load(path) as file:
            scores = {name: file[name] for name in file.files if name != _FACTS}
            return Part(scores, json.loads(str(file[_FACTS])))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{str(path)!r} cannot be read ({error}); remove it, and --resume does its step anew"
        ) from error
