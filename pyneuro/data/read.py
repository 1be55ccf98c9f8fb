"""Read an NLI corpus from a file or from the Hugging Face hub."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from pyneuro.data.columns import Columns, check_override, find_columns, row_to_pair
from pyneuro.data.hub import hub_rows, is_saved_dataset, looks_like_hub_id, saved_rows
from pyneuro.data.pairs import Pair, Pairs
from pyneuro.data.rows import Rows, file_rows
from pyneuro.errors import InputError, is_whole


def read_pairs(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    columns: Mapping[str, str | None] | None = None,
    limit: int | None = None,
    parses: bool = False,
) -> Pairs:
    """Read premise-hypothesis pairs.

    Parameters
    ----------
    source : path or str
        A file, its format told by the suffix: JSON lines (``.jsonl``, ``.ndjson``, ``.json``), TSV (``.tsv``, ``.txt``;
        quotes are literal, as in MNLI), CSV or Parquet, each gzipped or not; a folder that ``datasets.save_to_disk``
        wrote; or, when nothing of that name exists, a Hugging Face id: ``"nyu-mll/multi_nli"``,
        ``"nyu-mll/glue:mnli"``. A text is no id but a missing file's path when its folder exists (``"nyu-mll/..."``
        beside a folder ``nyu-mll``) or when it has a suffix and no folder (``"pairs.xyz"``).
    split : str, optional
        Of a Hugging Face dataset. By default ``validation_matched``, else ``validation``, else the only one.
    columns : mapping, optional
        Which column holds ``premise``, ``hypothesis``, ``label`` and ``id`` where that is not clear from the names.
        ``{"label": None}`` reads unlabelled pairs, ``{"id": None}`` numbers the rows.
        Understood without it: ``premise``/``sentence1``, ``hypothesis``/``sentence2``, ``gold_label``/``label``, and
        ``id``/``pairID``/``idx``/``index``/``uid``.
    limit : int, optional
        Stop after this many pairs, counted after dropping.
    parses : bool
        Keep the columns whose name ends in ``_parse``, as ``pyneuro.reweighting.heuristic_flags`` needs them; they take
        more memory than all the rest.

    Returns
    -------
    Pairs
        In file order. Labels are canonical: names in any spelling (``not_entailment`` is ``non-entailment``), or codes.
        Codes mean what the corpus says they mean (Hugging Face class names), else GLUE's 0 entailment, 1 neutral,
        2 contradiction. Rows without a gold label (``-``, -1, blank) or without text are dropped and counted in
        ``dropped``. A row without an id is called ``<stem>-<row>``, rows counted from 0 and dropped rows included.
        Other columns go to ``meta``, parses only where asked for.

    Raises
    ------
    InputError
        The source is no path, not found or empty, a file is damaged or cut off, a line is malformed, a column is
        missing, a label is not known, two rows have the same id, or every row was dropped. The message names
        ``file:line`` (``file:row n`` for Parquet and the hub), the value and the mend.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "two.tsv"
    >>> rows = ["gold_label sentence1 sentence2", "neutral Dogs. Brown-dogs.", "- Dogs. Cats."]
    >>> _ = file.write_text("\\n".join(rows).replace(" ", "\\t"))
    >>> pairs = read_pairs(file)
    >>> pairs.ids, pairs.labels, dict(pairs.dropped)
    (('two-0',), ('neutral',), {"label '-'": 1})
    """
    if limit is not None and (not is_whole(limit) or limit < 1):
        raise InputError(f"limit must be a positive number of pairs, got {limit!r}")
    override = check_override(columns)
    corpus = _open_source(source, split)

    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    seen: dict[str, int] = {}
    chosen: Columns | None = None
    with closing(corpus.rows) as rows:
        for index, (number, row) in enumerate(rows):
            if chosen is None:
                chosen = find_columns(tuple(row), override, corpus.source)
            pair = row_to_pair(
                row,
                chosen,
                where=corpus.where(number),
                fallback_id=f"{corpus.stem}-{index}",
                label_names=corpus.label_names.get(chosen.label or ""),
                parses=parses,
            )
            if isinstance(pair, str):
                dropped[pair] += 1
                continue
            first = seen.setdefault(pair.id, number)
            if first != number:
                raise InputError(
                    f"{corpus.where(number)}: id {pair.id!r} was used at {corpus.where(first)} already; "
                    "make ids unique, or pass columns={'id': None} to number the rows"
                )
            pairs.append(pair)
            if len(pairs) == limit:
                break
    if chosen is None:
        raise InputError(f"{corpus.source} is empty: it holds no rows")
    if not pairs:
        why = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
        raise InputError(
            f"{corpus.source}: every row was dropped ({why}); name the right columns with columns={{...}}, "
            "or read unlabelled pairs with columns={'label': None}"
        )
    return Pairs(pairs, corpus.source, dropped)


def _open_source(source: str | os.PathLike[str], split: str | None) -> Rows:
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise InputError(
            f"source is {type(source).__name__}; pass the path of a file, or a Hugging Face id such as "
            "'nyu-mll/multi_nli'"
        )
    path = Path(name).expanduser()
    if path.is_dir():
        if is_saved_dataset(path):
            return saved_rows(path, split)
        inside = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        raise InputError(f"{path} is a folder (with {inside}); pass one of its files")
    if path.exists():
        if split is not None:
            raise InputError(f"split {split!r} was given, but {path} is a file and has none; leave split out")
        return file_rows(path)
    if isinstance(source, str) and looks_like_hub_id(source):
        return hub_rows(source, split)
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    hint = f"did you mean {str(path.parent / near[0])!r}?" if near else "check the path"
    raise InputError(f"no file {name!r}; {hint}")
