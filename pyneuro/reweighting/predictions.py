"""What a bias model makes of every pair: class probabilities with the names of pairs and classes, in memory and on
disk."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.data import Pair
from pyneuro.data.probabilities import check_probabilities
from pyneuro.data.rows import file_rows, format_of
from pyneuro.errors import InputError, is_number
from pyneuro.models.labels import canonical_label
from pyneuro.results.files import write_atomic

Float = npt.NDArray[np.float64]
PREFIX = "p_"  # of the columns with probabilities, so that a file may hold others beside them
NAMED = 3  # ids that a message names


@dataclass(frozen=True, eq=False)
class BiasPredictions:
    """Class probabilities of pairs, by id.

    Parameters
    ----------
    ids : sequence of str [n]
        Each once.
    classes : sequence of str [K]
        Labels in the order of the columns, in any spelling that ``pyneuro.load`` understands.
    probabilities : float [n, K]
        Kept in float64. Rows sum to 1 within 0.001, as files round them.

    Raises
    ------
    InputError
        For repeated ids or classes, another number of rows or columns than names, and rows with NaN or that are no
        probabilities; the id is named.

    Examples
    --------
    >>> bias = BiasPredictions(["a", "b"], ["entailment", "non-entailment"], [[0.75, 0.25], [0.5, 0.5]])
    >>> bias.for_pairs([Pair("b", "It rains.", "It pours.")], ["non-entailment", "entailment"]).tolist()
    [[0.5, 0.5]]
    >>> bias.three_classes().probabilities[0].tolist()
    [0.75, 0.125, 0.125]
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Float

    def __init__(self, ids: Iterable[str], classes: Iterable[str], probabilities: npt.ArrayLike) -> None:
        names = tuple(str(name) for name in ids)
        labels = tuple(canonical_label(label) for label in classes)
        for what, values in (("id", names), ("class", labels)):
            if twice := _repeated(values):
                raise InputError(f"more than one row or column has {what} {_some(twice)}; give each {what} once")
        shape = np.shape(probabilities)
        if shape != (len(names), len(labels)):
            raise InputError(
                f"probabilities are {list(shape)} for {len(names)} ids and {len(labels)} classes; pass a row an id and "
                "a column a class"
            )
        table = check_probabilities("probabilities", probabilities, names).copy()
        table.flags.writeable = False
        object.__setattr__(self, "ids", names)
        object.__setattr__(self, "classes", labels)
        object.__setattr__(self, "probabilities", table)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BiasPredictions:
        """Read a JSON lines or Parquet file (``.jsonl``, ``.parquet``, gzipped or not): a row a pair, with a column
        ``id`` and for every class a column ``p_`` and its name, as ``p_entailment``. Other columns are left alone.

        It need not come from pyneuro: a fine-tuned model's softmax, written this way, is a bias model too.

        Raises
        ------
        InputError
            As ``BiasPredictions``, for a file that cannot be read, columns that are missing, and cells that are no
            numbers; the line is named.
        """
        source = Path(path).expanduser()
        if format_of(source)[0] not in ("jsonl", "parquet"):
            raise InputError(f"{source}: predictions are read from .jsonl and .parquet; convert the file")
        if not source.is_file():
            raise InputError(f"no file {str(source)!r}; check the path")
        rows = file_rows(source)
        ids: list[str] = []
        table: list[list[float]] = []
        columns: tuple[str, ...] = ()
        for number, row in rows.rows:
            columns = columns or tuple(name for name in row if name.startswith(PREFIX))
            if missing := [name for name in ("id", *columns) if name not in row]:
                raise InputError(f"{rows.where(number)}: no field {missing[0]!r}; fields here: {', '.join(row)}")
            ids.append(str(row["id"]))
            table.append([_number(row, name, rows.where(number)) for name in columns])
        if len(columns) < 2:
            raise InputError(
                f"{source} holds no class probabilities; name their columns {PREFIX}entailment, "
                f"{PREFIX}non-entailment and so on"
            )
        try:
            return cls(ids, [name.removeprefix(PREFIX) for name in columns], table)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what ``load`` reads, in float64, JSON lines or Parquet by the suffix; returns the path. Replaces what
        is there, whole or not at all. Raises InputError for another suffix, and where it cannot be written."""
        target = Path(path).expanduser()
        names = [PREFIX + label for label in self.classes]
        match target.suffix:
            case ".jsonl":
                rows = zip(self.ids, self.probabilities.tolist(), strict=True)
                lines = (json.dumps({"id": name, **dict(zip(names, row, strict=True))}) + "\n" for name, row in rows)
                content = "".join(lines).encode()
            case ".parquet":
                frame = pd.DataFrame(self.probabilities, columns=names)
                frame.insert(0, "id", self.ids)
                buffer = io.BytesIO()
                frame.to_parquet(buffer, index=False)
                content = buffer.getvalue()
            case _:
                raise InputError(f"{target}: predictions are written as .jsonl or .parquet; choose one of these")
        write_atomic(target, content)
        return target

    def for_pairs(self, pairs: Sequence[Pair], classes: Iterable[str] | Mapping[str, int] | None = None) -> Float:
        """Probabilities [n, K] in the order of some pairs, and of some classes: what losses take as ``known["bias"]``.

        Parameters
        ----------
        pairs : sequence of Pair
            A pair may come more than once; predictions of other pairs are left out.
        classes : iterable of str, optional
            Order of the columns, such as ``clf.label_index``. Default: as they are.

        Raises
        ------
        InputError
            Where pairs have no prediction (how many, and the first of them), and for classes of other names.
        """
        return self.for_ids([pair.id for pair in pairs], classes)

    def for_ids(self, ids: Sequence[str], classes: Iterable[str] | Mapping[str, int] | None = None) -> Float:
        """As ``for_pairs``, of pairs that are known by their ids, as another model's predictions are."""
        columns = self._columns(self.classes if classes is None else tuple(map(canonical_label, classes)))
        place = {name: row for row, name in enumerate(self.ids)}
        if missing := list(dict.fromkeys(name for name in ids if name not in place)):
            raise InputError(
                f"{len(missing)} of {len(set(ids))} pairs have no prediction: {_some(missing)}; the "
                f"predictions are of {_some(self.ids)}: predict the pairs that are missing, or leave them out"
            )
        rows = [place[name] for name in ids]
        return self.probabilities[np.ix_(rows, columns)]

    def three_classes(self) -> BiasPredictions:
        """P(non-entailment) shared equally by neutral and contradiction: log p(non-entailment) − log 2 each (Clark et
        al. 2019). Raises InputError for predictions of other classes than entailment and non-entailment."""
        entailment, rest = self.probabilities[:, self._columns(("entailment", "non-entailment"))].T
        table = np.stack([entailment, rest / 2, rest / 2], axis=1)
        return BiasPredictions(self.ids, ("entailment", "neutral", "contradiction"), table)

    def _columns(self, classes: Sequence[str]) -> list[int]:
        if sorted(classes) != sorted(self.classes):
            two = set(self.classes) == {"entailment", "non-entailment"}
            mend = "call three_classes() first" if two and len(classes) == 3 else "rename the classes, or predict anew"
            raise InputError(
                f"predictions are of the classes {', '.join(self.classes)}, and {', '.join(classes)} are asked for; "
                f"{mend}"
            )
        return [self.classes.index(label) for label in classes]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"BiasPredictions({len(self)} pairs, {', '.join(self.classes)})"


def _repeated(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row[name]
    if not is_number(value):
        raise InputError(f"{where}: {name} is {value!r}, not a number; write the probability of the class")
    return float(value)
