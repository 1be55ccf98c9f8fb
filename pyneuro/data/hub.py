"""Rows of a Hugging Face dataset: from the hub by its id, or from a folder that ``save_to_disk`` wrote.

``datasets`` is imported when it is needed, not before: reading a file must not depend on it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyneuro.data.rows import Rows, RowStream, format_of
from pyneuro.errors import InputError

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?::(?P<config>[\w.+-]+))?")
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
# MNLI's matched dev set is the one the notes and the paper use; other corpora call theirs plainly "validation".
_DEFAULT_SPLITS = ("validation_matched", "validation")


def looks_like_hub_id(source: str) -> bool:
    """Whether a text could be ``name``, ``owner/name`` or either with ``:config``, and is not plainly a file's name.

    A file's name has a known suffix, or is in a folder that exists, or has any suffix and no folder.
    """
    match = _HUB_ID.fullmatch(source)
    if match is None or format_of(Path(source))[0] is not None or source.endswith(".gz"):
        return False
    path = Path(match["id"])
    return not (path.parent.is_dir() if "/" in match["id"] else path.suffix)


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by ``datasets.save_to_disk``."""
    return any((path / name).is_file() for name in _SAVED)


def hub_rows(source: str, split: str | None) -> Rows:
    """Rows of a dataset on the hub, e.g. ``"nyu-mll/multi_nli"`` or, with a configuration, ``"nyu-mll/glue:mnli"``.

    Raises
    ------
    InputError
        ``datasets`` is not installed, the hub cannot be reached, it has no such dataset or configuration, or the split
        is missing or not clear.
    """
    match = _HUB_ID.fullmatch(source)
    if match is None:
        raise InputError(f"{source!r} is no Hugging Face id; write 'owner/name' or 'owner/name:config'")
    name, config = match["id"], match["config"]
    datasets = _import_datasets(source)
    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # the libraries beneath raise a dozen unrelated types; each becomes one of four messages
        raise InputError(_why(source, name, error)) from error
    return _rows(loaded, source, (config or name.split("/")[-1]), split)


def saved_rows(path: Path, split: str | None) -> Rows:
    """Rows of a folder that ``datasets.save_to_disk`` wrote. Raises InputError as :func:`hub_rows`."""
    datasets = _import_datasets(str(path))
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # as above: pyarrow, json and os errors, according to what is damaged
        raise InputError(f"{path}: the saved dataset cannot be read ({error}); save it again") from error
    return _rows(loaded, str(path), path.name, split)


def _import_datasets(source: str) -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"{source!r} is no file, and reading it as a Hugging Face dataset needs the package 'datasets'; "
            "pip install datasets, or pass the path of a JSONL, TSV, CSV or Parquet file"
        ) from error


def _why(source: str, name: str, error: Exception) -> str:
    detail = " ".join(str(error).split())[:400]
    if type(error).__name__ == "DatasetNotFoundError":
        return f"no file {source!r}, and no dataset {name!r} on the Hugging Face hub for you; check the name ({detail})"
    if isinstance(error, (ConnectionError, TimeoutError)) or "Connect" in type(error).__name__:
        return (
            f"no file {source!r}, and the Hugging Face hub cannot be reached ({detail}); "
            "check the path or the network, or download the corpus and pass its file"
        )
    if isinstance(error, ValueError) and "config" in str(error).lower():
        return f"dataset {source!r} needs a configuration that it has; write it as '{name}:config' ({detail})"
    return f"Hugging Face dataset {source!r} cannot be loaded: {type(error).__name__}: {detail}"


def _rows(loaded: Any, source: str, stem: str, split: str | None) -> Rows:
    if isinstance(loaded, Mapping):
        split = _pick_split(tuple(map(str, loaded)), source, split)
        table = loaded[split]
        source, stem = f"{source}[{split}]", f"{stem}-{split}"
    else:
        own = None if loaded.split is None else str(loaded.split)
        if split not in (None, own):
            raise InputError(f"{source} holds one split, {own or 'unnamed'}, not {split!r}; leave split out")
        table = loaded

    def rows() -> RowStream:
        yield from enumerate(table, 1)

    names = {column: feature.names for column, feature in table.features.items() if hasattr(feature, "names")}
    return Rows(source, stem, rows(), "row ", names)


def _pick_split(found: tuple[str, ...], source: str, split: str | None) -> str:
    if split is not None:
        if split not in found:
            raise InputError(f"{source} has no split {split!r}; its splits are {', '.join(found)}")
        return split
    for default in _DEFAULT_SPLITS:
        if default in found:
            return default
    if len(found) != 1:
        raise InputError(f"{source} has the splits {', '.join(found) or '(none)'}; choose one with split='...'")
    return found[0]
