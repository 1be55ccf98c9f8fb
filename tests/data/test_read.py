"""Every layout NLI corpora come in reads to the same pairs; every way a file can be wrong is named with its place."""

from __future__ import annotations

import csv
import gzip
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pyneuro.data.pairs import Pair, Pairs
from pyneuro.data.read import read_pairs
from pyneuro.errors import InputError

ROWS: list[dict[str, Any]] = [
    {"id": "r1", "premise": "It rains.", "hypothesis": 'Water "falls.', "label": "entailment", "genre": "weather"},
    {"id": "r2", "premise": "A, b", "hypothesis": "Café\u2028au lait", "label": "neutral", "genre": ""},
    {"id": "r3", "premise": "x", "hypothesis": "y", "label": "contradiction", "genre": ""},
]
PAIRS = Pairs([Pair(row["id"], row["premise"], row["hypothesis"], row["label"]) for row in ROWS])


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    return write(path, "\n".join(lines) + "\n")


def as_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow: Any = pytest.importorskip("pyarrow")
    importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), str(path))
    return path


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8"))
    return path


def gzipped(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


WRITERS: Mapping[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "corpus.jsonl": jsonl,
    "corpus.ndjson": jsonl,
    "corpus.json": jsonl,
    "corpus.tsv": tsv,
    "corpus.txt": tsv,
    "corpus.csv": as_csv,
    "corpus.parquet": parquet,
}


class TestFormats:
    @pytest.mark.parametrize("name", WRITERS)
    @pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzipped"])
    def test_all_formats_read_to_the_same_pairs(self, tmp_path: Path, name: str, pack: bool) -> None:
        path = WRITERS[name](tmp_path / name, ROWS)
        path = gzipped(path) if pack else path
        pairs = read_pairs(path)
        assert pairs == PAIRS
        assert pairs.digest() == PAIRS.digest()
        assert pairs[0].meta == {"genre": "weather"}
        assert pairs.source == str(path) and not pairs.dropped

    def test_gzip_is_seen_without_its_suffix(self, tmp_path: Path) -> None:
        packed = gzipped(jsonl(tmp_path / "a.jsonl", ROWS))
        assert read_pairs(packed.rename(tmp_path / "b.jsonl")) == PAIRS

    def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(self, tmp_path: Path) -> None:
        text = "premise\thypothesis\tlabel\r\na\tb\tneutral\r\n\r\n"
        assert read_pairs(write(tmp_path / "w.tsv", "\ufeff" + text))[0] == Pair("w-0", "a", "b", "neutral")

    def test_paths_may_be_text_and_start_at_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        jsonl(tmp_path / "a.jsonl", ROWS)
        assert read_pairs("~/a.jsonl") == PAIRS

    def test_quotes_in_tsv_are_literal(self, tmp_path: Path) -> None:
        text = 'sentence1\tsentence2\tgold_label\n"He said\tshe "left"\tneutral\nnext\trow\tneutral\n'
        pairs = read_pairs(write(tmp_path / "a.tsv", text))
        assert [pair.premise for pair in pairs] == ['"He said', "next"]

    def test_quoted_csv_may_run_over_lines(self, tmp_path: Path) -> None:
        text = 'premise,hypothesis,label\n"two\nlines","a, ""b""",neutral\n"p","h","neutral"\n'
        pairs = read_pairs(write(tmp_path / "a.csv", text))
        assert (pairs[0].premise, pairs[0].hypothesis, len(pairs)) == ("two\nlines", 'a, "b"', 2)

    def test_class_names_left_in_parquet_by_datasets_say_what_codes_mean(self, tmp_path: Path) -> None:
        datasets: Any = pytest.importorskip("datasets")
        features = datasets.Features(
            premise=datasets.Value("string"),
            hypothesis=datasets.Value("string"),
            label=datasets.ClassLabel(names=["contradiction", "entailment", "neutral"]),
        )
        rows = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
        assert read_pairs(tmp_path / "a.parquet").labels == ("contradiction", "entailment")


class TestLayouts:
    def test_mnli_and_snli_originals(self, tmp_path: Path) -> None:
        row = {
            "annotator_labels": ["neutral"], "gold_label": "neutral", "pairID": "63735n", "promptID": "63735",
            "sentence1": "p", "sentence1_binary_parse": "( p )", "sentence1_parse": "(ROOT p)",
            "sentence2": "h", "sentence2_binary_parse": "( h )", "sentence2_parse": "(ROOT h)", "genre": "slate",
        }  # fmt: skip
        undecided = {**row, "gold_label": "-", "pairID": "2"}
        pairs = read_pairs(jsonl(tmp_path / "m.jsonl", [undecided, row, {**undecided, "pairID": "3"}]))
        assert list(pairs) == [Pair("63735n", "p", "h", "neutral")]
        assert pairs.dropped == {"label '-'": 2}
        assert pairs[0].meta == {"annotator_labels": ["neutral"], "promptID": "63735", "genre": "slate"}, "no parses"
        kept = read_pairs(tmp_path / "m.jsonl", parses=True)[0].meta
        assert (kept["sentence1_parse"], kept["sentence2_parse"]) == ("(ROOT p)", "(ROOT h)")

    def test_glue_with_codes(self, tmp_path: Path) -> None:
        rows = [{"premise": "p", "hypothesis": "h", "label": code, "idx": at} for at, code in enumerate([0, 1, 2, -1])]
        for name in ("g.jsonl", "g.tsv", "g.csv", "g.parquet"):
            pairs = read_pairs(WRITERS["corpus" + Path(name).suffix](tmp_path / name, rows))
            assert pairs.labels == ("entailment", "neutral", "contradiction")
            assert pairs.ids == ("0", "1", "2")
            assert pairs.dropped == {"label -1": 1}

    def test_glue_tsv(self, tmp_path: Path) -> None:
        rows = [{"index": 5, "sentence1": "p", "sentence2": "h", "label": "not_entailment"}]
        assert list(read_pairs(tsv(tmp_path / "rte.tsv", rows))) == [Pair("5", "p", "h", "non-entailment")]

    @pytest.mark.parametrize(
        "label", ["non-entailment", "not_entailment", "Non-Entailment", "not entailment", " non_entailment "]
    )
    def test_spellings_of_the_hans_label(self, tmp_path: Path, label: str) -> None:
        rows = [{"gold_label": label, "sentence1": "p", "sentence2": "h", "pairID": "ex0"}]
        assert read_pairs(jsonl(tmp_path / "h.jsonl", rows)).labels == ("non-entailment",)

    def test_codes_of_a_column_with_blanks(self, tmp_path: Path) -> None:
        rows = [{"premise": "p", "hypothesis": "h", "label": code} for code in (0.0, None, float("nan"), 2.0)]
        pairs = read_pairs(parquet(tmp_path / "a.parquet", rows))
        assert pairs.labels == ("entailment", "contradiction") and pairs.dropped == {"label missing": 2}

    def test_rows_without_an_id_are_numbered_as_they_stand_in_the_file(self, tmp_path: Path) -> None:
        rows = [{"premise": "p", "hypothesis": "h", "label": label} for label in ("neutral", "-", "neutral")]
        assert read_pairs(gzipped(jsonl(tmp_path / "dev.jsonl", rows))).ids == ("dev-0", "dev-2")

    def test_rows_without_text_are_dropped_and_counted(self, tmp_path: Path) -> None:
        rows = [
            {"premise": p, "hypothesis": h, "label": "neutral"}
            for p, h in [("p", "h"), ("", "h"), ("p", " "), ("p", None)]
        ]
        pairs = read_pairs(jsonl(tmp_path / "a.jsonl", rows))
        assert len(pairs) == 1 and pairs.dropped == {"premise empty": 1, "hypothesis empty": 2}


class TestOptions:
    def test_columns_name_what_is_not_clear(self, tmp_path: Path) -> None:
        rows = [{"text_a": "p", "text_b": "h", "y": "neutral", "key": 7, "label": "of something else"}]
        columns = {"premise": "text_a", "hypothesis": "text_b", "label": "y", "id": "key"}
        pairs = read_pairs(jsonl(tmp_path / "a.jsonl", rows), columns=columns)
        assert list(pairs) == [Pair("7", "p", "h", "neutral")]
        assert pairs[0].meta == {"label": "of something else"}

    def test_unlabelled_pairs_are_read_when_asked_for(self, tmp_path: Path) -> None:
        rows = [{"premise": "p", "hypothesis": "h"}]
        assert read_pairs(jsonl(tmp_path / "a.jsonl", rows), columns={"label": None}).labels == (None,)

    def test_limit_counts_kept_pairs_and_stops_reading(self, tmp_path: Path) -> None:
        rows = [{"premise": "p", "hypothesis": "h", "label": label} for label in ("-", "neutral", "neutral")]
        path = jsonl(tmp_path / "a.jsonl", rows)
        path.write_text(path.read_text() + "not JSON, and never reached\n")
        assert read_pairs(path, limit=2).ids == ("a-1", "a-2")

    @pytest.mark.parametrize("limit", [0, -1, 1.5, True])
    def test_a_limit_must_be_a_positive_number(self, tmp_path: Path, limit: Any) -> None:
        with pytest.raises(InputError, match=f"limit must be a positive number of pairs, got {limit}"):
            read_pairs(jsonl(tmp_path / "a.jsonl", ROWS), limit=limit)

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"text": "a"}, "columns names 'text', which no pair has; its keys are premise, hypothesis, label, id"),
            ({"premise": None}, r"columns\['premise'\] must be a column name, got None"),
            ({"premise": "premis"}, "no column 'premis' for the premise among .*; did you mean 'premise'?"),
        ],
    )
    def test_wrong_columns_are_named(self, tmp_path: Path, columns: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_pairs(jsonl(tmp_path / "a.jsonl", ROWS), columns=columns)

    def test_a_file_has_no_split(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"split 'dev' was given, but .* is a file"):
            read_pairs(jsonl(tmp_path / "a.jsonl", ROWS), split="dev")


HEAD = "premise\thypothesis\tlabel\n"
GOOD = '{"premise": "p", "hypothesis": "h", "label": "neutral"}\n'


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.jsonl", "", r"a\.jsonl is empty \(0 bytes\)"),
            ("a.jsonl", "\n\n", r"a\.jsonl is empty: it holds no rows"),
            ("a.tsv", HEAD, r"a\.tsv is empty: it holds no rows"),
            ("a.csv", "premise,hypothesis,label\n", r"a\.csv is empty: it holds no rows"),
            ("a.jsonl", GOOD + GOOD[:20], r"a\.jsonl:2: not valid JSON \(Unterminated string"),
            ("a.jsonl", GOOD + "\n[1]\n", r"a\.jsonl:3: a JSON list, not an object"),
            ("a.json", "[\n" + GOOD + "]", r"a\.json:1: not valid JSON .* one whole object"),
            ("a.jsonl", GOOD + "[" * 100_000, r"a\.jsonl:2: not valid JSON"),
            ("a.tsv", HEAD + "p\th\tneutral\np\th\n", r"a\.tsv:3: 2 fields where the header has 3; .* cut off"),
            ("a.tsv", HEAD + "p\t\th\tneutral\n", r"a\.tsv:2: 4 fields where the header has 3.*tab inside"),
            ("a.csv", "premise,hypothesis,label\np,a, b,neutral\n", r"a\.csv:2: 4 fields .* quote texts"),
            ("a.csv", 'premise,hypothesis,label\np,h,neutral\n"p,h,neutral\nx', r"a\.csv:3: malformed CSV \(unexp"),
            ("a.tsv", "label\tpremise\tpremise\nx\ty\tz\n", r"a\.tsv:1: the header names 'premise' more than once"),
            ("a.jsonl", '{"text": "p", "hypothesis": "h"}\n', r"no premise column \(premise or sentence1\) among text"),
            ("a.jsonl", '{"premise": "p", "hypothesis": "h"}\n', r"no label column .*columns=\{'label': None\}"),
            ("a.jsonl", GOOD + '{"premise": "p", "label": "neutral"}\n', r"a\.jsonl:2: no field 'hypothesis'"),
            ("a.jsonl", GOOD.replace('"p"', "5"), r"a\.jsonl:1: the premise \('premise'\) is int 5, not text"),
            ("a.jsonl", GOOD.replace('"h"', '"\\ud800"'), r"a\.jsonl:1: the hypothesis .* half a surrogate pair"),
            ("a.tsv", HEAD + "p\th\tmaybe\n", r"a\.tsv:2: unknown label 'maybe' in column 'label'; known are ent"),
            ("a.tsv", HEAD + "p\th\t3\n", r"a\.tsv:2: unknown label '3'.*codes 0 entailment, 1 neutral, 2 con"),
            ("a.jsonl", GOOD.replace('"neutral"', "true"), r"a\.jsonl:1: unknown label True"),
            ("a.jsonl", GOOD.replace('"neutral"', "[0]"), r"a\.jsonl:1: unknown label \[0\]"),
            ("a.tsv", HEAD + "p\th\t-\np\th\t-1\n", r"every row was dropped \(label '-' 1, label -1 1\)"),
            ("a.xlsx", "x", r"a\.xlsx: the suffix does not say what it is; use one of \.jsonl, .*\.parquet"),
            ("a.jsonl.gz", GOOD, r"a\.jsonl\.gz: damaged or cut-off gzip data after line 0 \(Not a gzipped file"),
            ("a.parquet", GOOD, r"a\.parquet: damaged or cut-off Parquet data after row 0"),
            ("a.parquet.gz", GOOD, r"a\.parquet\.gz: damaged or cut-off Parquet data after row 0 \(Not a gzipped"),
        ],
    )  # fmt: skip
    def test_it_is_named_with_its_place(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_pairs(write(tmp_path / name, text))

    def test_text_that_is_not_utf8(self, tmp_path: Path) -> None:
        (tmp_path / "a.tsv").write_bytes(HEAD.encode() + "p\tcafé\tneutral\n".encode("latin-1"))
        with pytest.raises(InputError, match=r"a\.tsv:2: byte 6 is not UTF-8"):
            read_pairs(tmp_path / "a.tsv")

    def test_a_cut_off_gzip_file_names_the_last_whole_line(self, tmp_path: Path) -> None:
        path = gzipped(jsonl(tmp_path / "a.jsonl", [{**ROWS[0], "id": str(at), "x": at * 7919} for at in range(5000)]))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match=r"cut-off gzip data after line [1-9]\d+ \(.*fetch or compress it again"):
            read_pairs(path)

    def test_damaged_gzip_bytes(self, tmp_path: Path) -> None:
        path = gzipped(jsonl(tmp_path / "a.jsonl", [{**ROWS[0], "id": str(at)} for at in range(50)]))
        data = bytearray(path.read_bytes())
        data[20:60] = bytes(40)
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged or cut-off gzip data"):
            read_pairs(path)

    def test_a_cut_off_parquet_file(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "a.parquet", ROWS)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(InputError, match=r"a\.parquet: damaged or cut-off Parquet data"):
            read_pairs(path)

    def test_damaged_parquet_pages(self, tmp_path: Path) -> None:
        path = parquet(tmp_path / "a.parquet", ROWS)
        data = bytearray(path.read_bytes())
        data[4:120] = b"\xff" * 116
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.parquet: damaged or cut-off Parquet data after row 0"):
            read_pairs(path)

    def test_parquet_rows_are_named_by_number(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a\.parquet:row 2: unknown label 'maybe'"):
            read_pairs(parquet(tmp_path / "a.parquet", [ROWS[0], {**ROWS[1], "label": "maybe"}]))

    def test_a_repeated_id_names_both_places_and_the_mend(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path / "a.jsonl", [*ROWS, {**ROWS[0], "premise": "other"}])
        with pytest.raises(InputError, match=r"a\.jsonl:4: id 'r1' was used at .*a\.jsonl:1 already; .*'id': None"):
            read_pairs(path)
        assert read_pairs(path, columns={"id": None}).ids == ("a-0", "a-1", "a-2", "a-3")

    def test_a_missing_file_suggests_its_neighbour(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "mnli_dev.jsonl", ROWS)
        with pytest.raises(InputError, match=r"no file '.*mnli_dew\.jsonl'; did you mean '.*mnli_dev\.jsonl'\?"):
            read_pairs(tmp_path / "mnli_dew.jsonl")
        with pytest.raises(InputError, match=r"no file '.*'; check the path"):
            read_pairs(tmp_path / "no" / "such.jsonl")

    @pytest.mark.parametrize("source", [None, 0, 1.5, True, b"pairs.jsonl", ["pairs.jsonl"]])
    def test_what_is_no_path_is_named_by_its_type(self, source: Any) -> None:
        with pytest.raises(InputError, match=f"source is {type(source).__name__}; pass the path of a file"):
            read_pairs(source)

    def test_a_folder_lists_what_it_holds(self, tmp_path: Path) -> None:
        jsonl(tmp_path / "a.jsonl", ROWS)
        with pytest.raises(InputError, match=r"is a folder \(with a\.jsonl\); pass one of its files"):
            read_pairs(tmp_path)

    def test_parquet_without_pyarrow_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = parquet(tmp_path / "a.parquet", ROWS)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(InputError, match="pip install pyarrow"):
            read_pairs(path)
