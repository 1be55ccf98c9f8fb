"""From a corpus's row to a Pair: which columns are meant, and what its labels mean."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyneuro.data.pairs import LABELS, Pair
from pyneuro.errors import InputError

# First found wins. MNLI and SNLI: sentence1, sentence2, gold_label, pairID; GLUE: index or idx; HANS as MNLI.
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "premise": ("premise", "sentence1"),
    "hypothesis": ("hypothesis", "sentence2"),
    "label": ("gold_label", "label"),
    "id": ("id", "pairID", "idx", "index", "uid"),
}
_OPTIONAL = ("label", "id")

GLUE_LABELS: tuple[str, ...] = ("entailment", "neutral", "contradiction")
"""What 0, 1 and 2 mean where the corpus does not name its classes."""


@dataclass(frozen=True)
class Columns:
    """Which column holds what. ``label`` None: the pairs are unlabelled; ``id`` None: rows are numbered."""

    premise: str
    hypothesis: str
    label: str | None
    id: str | None


def check_override(override: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """The caller's ``columns``, checked: keys of a Columns, and names where a name is needed."""
    checked = dict(override or {})
    for field, column in checked.items():
        if field not in _KNOWN:
            raise InputError(f"columns names {field!r}, which no pair has; its keys are {', '.join(_KNOWN)}")
        if not (isinstance(column, str) or (column is None and field in _OPTIONAL)):
            raise InputError(f"columns[{field!r}] must be a column name, got {column!r}")
    return checked


def find_columns(found: Sequence[str], override: Mapping[str, str | None], source: str) -> Columns:
    """Match the columns of a corpus with the fields of a pair.

    Raises InputError when a column is missing: premise, hypothesis, label (unless ``override["label"]`` is None) or one
    that ``override`` names. An id is not needed.
    """
    chosen: dict[str, str | None] = {}
    for field, names in _KNOWN.items():
        if field in override:
            name = override[field]
            if name is not None and name not in found:
                near = difflib.get_close_matches(name, found, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "name one of these in columns"
                raise InputError(f"{source}: no column {name!r} for the {field} among {', '.join(found)}; {hint}")
            chosen[field] = name
            continue
        chosen[field] = next((name for name in names if name in found), None)
        if chosen[field] is None and field != "id":
            unlabelled = " (or columns={'label': None} to read unlabelled pairs)" if field == "label" else ""
            raise InputError(
                f"{source}: no {field} column ({' or '.join(names)}) among {', '.join(found)}; "
                f"name it with columns={{{field!r}: '...'}}{unlabelled}"
            )
    return Columns(chosen["premise"] or "", chosen["hypothesis"] or "", chosen["label"], chosen["id"])


def row_to_pair(
    row: Mapping[str, Any],
    columns: Columns,
    *,
    where: str,
    fallback_id: str,
    label_names: Sequence[str] | None,
    parses: bool = False,
) -> Pair | str:
    """The pair of a row, or the reason why it is dropped (no gold label, no text).

    Columns not used go to ``meta``, except, unless asked for, the parses of MNLI, SNLI and HANS, which would be most of
    the memory.

    Raises InputError naming ``where`` for a missing field, a text that is not text, or an unknown label.
    """
    texts = {}
    for field, column in (("premise", columns.premise), ("hypothesis", columns.hypothesis)):
        text = _cell(row, column, where)
        if text is not None and not isinstance(text, str):
            raise InputError(f"{where}: the {field} ({column!r}) is {type(text).__name__} {text!r}, not text")
        if text is None or not text.strip():
            return f"{field} empty"
        if not _encodable(text):
            raise InputError(f"{where}: the {field} ({column!r}) holds half a surrogate pair: {text!r}; mend the text")
        texts[field] = text

    label = None
    if columns.label is not None:
        value = _cell(row, columns.label, where)
        if reason := _unlabelled(value):
            return reason
        label = canonical_label(value, label_names)
        if label is None:
            codes = ", ".join(f"{at} {name}" for at, name in enumerate(label_names or GLUE_LABELS))
            raise InputError(
                f"{where}: unknown label {value!r} in column {columns.label!r}; known are {', '.join(LABELS)} and the "
                f"codes {codes}, -1 unlabelled. Rename it, or name another column with columns={{'label': '...'}}"
            )

    identity = row.get(columns.id) if columns.id is not None else None
    name = fallback_id if _blank(identity) else str(identity)
    used = (columns.premise, columns.hypothesis, columns.label, columns.id)
    meta = {key: value for key, value in row.items() if key not in used and (parses or not key.endswith("_parse"))}
    return Pair(name, texts["premise"], texts["hypothesis"], label, meta)


def canonical_label(value: Any, names: Sequence[str] | None = None) -> str | None:
    """The canonical name of a corpus's label, or None when it is not known.

    Parameters
    ----------
    value : str, int or float
        A name in any case, with ``_`` or a blank for ``-`` and ``not`` for ``non`` ("not_entailment"), or a code.
    names : sequence of str, optional
        What the codes mean; ``GLUE_LABELS`` by default. Published corpora and checkpoints use other orders too, so a
        corpus that names its own is believed.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():  # an integer column that holds blanks becomes float
        value = int(value)
    if isinstance(value, str):
        name = value.strip().lower().replace("_", "-").replace(" ", "-")
        name = "non-" + name.removeprefix("not-") if name.startswith("not-") else name
        if name in LABELS:
            return name
        if not name.isdecimal():
            return None
        value = int(name)
    if not isinstance(value, int):
        return None
    known = GLUE_LABELS if names is None else names
    return canonical_label(known[value]) if 0 <= value < len(known) else None


def _unlabelled(value: Any) -> str | None:
    """Why a label says that there is none: MNLI and SNLI's "-", GLUE's -1, or nothing at all."""
    if _blank(value):
        return "label missing"
    if isinstance(value, str) and value.strip() == "-":
        return "label '-'"
    if not isinstance(value, bool) and (value == -1 or (isinstance(value, str) and value.strip() == "-1")):
        return "label -1"
    return None


def _blank(value: Any) -> bool:
    """No value: null, NaN (how an absent cell of a numeric column reads), or white space."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


def _cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise InputError(f"{where}: no field {column!r}, which earlier rows have; fields here: {', '.join(row)}")
    return row[column]


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
