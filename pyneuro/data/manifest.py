"""Manifests: which pairs a set held and how it was made, as plain JSON that needs no pyneuro to read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyneuro.data.pairs import Pairs
from pyneuro.errors import InputError


def describe(pairs: Pairs) -> dict[str, Any]:
    """Ids in order, their number, how many are distinct, pairs per label, and ``Pairs.digest`` of the contents."""
    return {
        "n": len(pairs),
        "unique": len(set(pairs.ids)),
        "labels": {label or "unlabelled": count for label, count in pairs.label_counts.items()},
        "sha256": pairs.digest(),
        "ids": list(pairs.ids),
    }


def write_json(content: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a manifest whole or not at all: a reader never sees half a file.

    Raises InputError when the folder is missing or cannot be written.
    """
    target = Path(path).expanduser()
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}); choose a folder that exists and is yours"
        ) from error
    return target
