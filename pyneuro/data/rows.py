"""Rows of a file, each with the place it stands at: JSON lines, TSV, CSV or Parquet, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from pyneuro.errors import InputError

RowStream = Generator[tuple[int, Mapping[str, Any]], None, None]
"""(number of the line or row, counted from 1; column -> value)"""


@dataclass(frozen=True)
class Rows:
    """The rows of one corpus, read as they are asked for.

    Attributes
    ----------
    source : str
        What messages and manifests call it.
    stem : str
        Short name, from which ids are made for rows that have none.
    rows : generator of (number, row)
    unit : str
        What stands before the number in a message: nothing for lines, ``"row "`` where lines mean nothing.
    label_names : mapping of column to its class names
        Where the corpus names the codes of its labels itself.
    """

    source: str
    stem: str
    rows: RowStream
    unit: str = ""
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def where(self, number: int) -> str:
        return f"{self.source}:{self.unit}{number}"


def format_of(path: Path) -> tuple[str | None, str]:
    """(format, stem) by suffix, ``.gz`` set aside; format None when the suffix says nothing."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    kind = _FORMATS.get(bare.suffix.lower())
    return kind, bare.stem if kind else bare.name


def file_rows(path: Path) -> Rows:
    """Open a file by its suffix.

    Raises
    ------
    InputError
        Now or while reading: an unknown suffix, a file that cannot be opened, a malformed line (``file:line``), a
        damaged or truncated gzip or Parquet file, text that is not UTF-8.
    """
    kind, stem = format_of(path)
    if kind is None:
        raise InputError(
            f"{path}: the suffix does not say what it is; use one of {', '.join(_FORMATS)}, each also with .gz"
        )
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); fetch or write it again")
        with _open(path):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error
    if kind == "parquet":
        return _parquet(path, stem)
    return Rows(str(path), stem, {"jsonl": _jsonl, "tsv": _tsv, "csv": _csv}[kind](path))


_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".tsv": "tsv",
    ".txt": "tsv",  # how MNLI, SNLI and HANS name their tab-separated files
    ".csv": "csv",
    ".parquet": "parquet",
}


def _open(path: Path) -> IO[bytes]:
    """The bytes of the file, decompressed when it says or shows that it is gzipped."""
    stream = path.open("rb")
    if path.suffix.lower() != ".gz" and stream.peek(2)[:2] != b"\x1f\x8b":
        return stream
    stream.close()
    return cast(IO[bytes], gzip.open(path, "rb"))


def _lines(path: Path) -> Generator[tuple[int, str], None, None]:
    """(number, text with its line end). Only ``\\n`` ends a line: U+2028 and a lone ``\\r`` occur inside real texts."""
    number = 0
    try:
        with _open(path) as stream:
            for number, raw in enumerate(stream, 1):
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}:{number}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8"
                    ) from error
                yield number, text
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: damaged or cut-off gzip data after line {number} ({error}); fetch or compress it again"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: reading stopped after line {number}: {error.strerror or error}") from error


def _jsonl(path: Path) -> RowStream:
    for number, text in _lines(path):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}:{number}: not valid JSON ({error}); each line must hold one whole object"
            ) from error
        if not isinstance(row, dict):
            raise InputError(
                f"{path}:{number}: a JSON {type(row).__name__}, not an object; write one object on each line"
            )
        yield number, row


def _tsv(path: Path) -> RowStream:
    """Quotes are literal: MNLI's TSV opens many it never closes; a reader that heeds them would swallow rows."""
    header: list[str] | None = None
    for number, text in _lines(path):
        fields = text.removesuffix("\n").removesuffix("\r").split("\t")
        if fields == [""]:
            continue
        if header is None:
            header = _check_header(fields, f"{path}:{number}")
        else:
            yield number, _record(header, fields, f"{path}:{number}", "a tab inside a text must be removed")


def _csv(path: Path) -> RowStream:
    reader = csv.reader((text for _, text in _lines(path)), strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1  # of the record, which may run over several lines
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}:{start}: malformed CSV ({error}); quote texts that hold commas or quotes"
            ) from error
        if fields is None:
            return
        if not fields:
            continue
        if header is None:
            header = _check_header(fields, f"{path}:{start}")
        else:
            yield start, _record(header, fields, f"{path}:{start}", "quote texts that hold commas")


def _check_header(names: list[str], where: str) -> list[str]:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: the header names {', '.join(map(repr, twice))} more than once; rename the columns")
    return names


def _record(header: list[str], fields: list[str], where: str, mend: str) -> dict[str, str]:
    if len(fields) != len(header):
        raise InputError(
            f"{where}: {len(fields)} fields where the header has {len(header)}; the line is cut off, or {mend}"
        )
    return dict(zip(header, fields, strict=True))


def _parquet(path: Path, stem: str) -> Rows:
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise InputError(
            f"{path}: reading Parquet needs pyarrow; pip install pyarrow, or write the pairs as JSON lines"
        ) from error
    broken = (pyarrow.ArrowException, OSError, EOFError, zlib.error)

    def damaged(error: Exception, row: int) -> InputError:
        return InputError(f"{path}: damaged or cut-off Parquet data after row {row} ({error}); fetch or write it again")

    try:
        with _open(path) as stream:
            gzipped = isinstance(stream, gzip.GzipFile)
            table = parquet.ParquetFile(io.BytesIO(stream.read()) if gzipped else str(path))
        schema = table.schema_arrow
    except broken as error:
        raise damaged(error, 0) from error

    def rows() -> RowStream:
        number = 0
        try:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except broken as error:
            raise damaged(error, number) from error
        finally:
            table.close()

    return Rows(str(path), stem, rows(), "row ", _parquet_label_names(schema.metadata))


def _parquet_label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, Sequence[str]]:
    """Class names that Hugging Face ``datasets`` leaves in the Parquet files it writes."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {column: feature["names"] for column, feature in features.items() if "names" in feature}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}  # another writer's file, or another layout: the codes then mean what GLUE means by them
