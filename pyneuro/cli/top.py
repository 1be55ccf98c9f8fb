"""``pyneuro top``: the strongest neurons of a result folder."""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from pyneuro.results import load_result
from pyneuro.results.table import SITE_COLUMNS

SHOWN = ("site", "treatment", "nie", "ci_low", "ci_high", "log_nie", "diff", "ratio_of_means", "largest_share", "n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="written by 'pyneuro search --out' or Result.save")
    parser.add_argument("-k", type=int, default=20, metavar="N", help="rows (default 20)")
    parser.add_argument("--treatment", metavar="NAME", help="one treatment, or 'contrast' (default: all together)")
    parser.add_argument("--by", default="nie", metavar="COLUMN", help="column to rank by (default nie)")
    parser.add_argument("--absolute", action="store_true", help="rank by magnitude")
    parser.add_argument("--ascending", action="store_true", help="smallest first")
    parser.add_argument(
        "--significant",
        type=float,
        metavar="ALPHA",
        help="only what is significant at this false discovery rate, as 0.05 (Benjamini-Hochberg, within a treatment)",
    )
    parser.add_argument(
        "--format", choices=("text", "csv"), default="text", help="text shows the main columns (default), csv all"
    )


def run(args: argparse.Namespace) -> int:
    table = load_result(args.folder).top(
        args.k,
        treatment=args.treatment,
        by=args.by,
        absolute=args.absolute,
        ascending=args.ascending,
        significant=args.significant,
    )
    if args.format == "csv":
        table.to_csv(sys.stdout, index=False)
        return 0
    if not len(table):
        print(f"nothing is significant at a false discovery rate of {args.significant:.0%}")
        return 0
    shown = [*SHOWN, *([args.by] if args.by not in (*SHOWN, *SITE_COLUMNS) else [])]
    print(as_text(table[shown]))
    return 0


def as_text(table: pd.DataFrame) -> str:
    """Columns of equal width; effects with a sign and three digits, so that they compare at a glance."""
    texts = {name: [_cell(name, value) for value in table[name]] for name in table.columns}
    return pd.DataFrame(texts).to_string(index=False)


def _cell(name: str, value: object) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "-"
    if name == "largest_share":
        return f"{value:.0%}"
    return f"{value:+.2e}" if isinstance(value, float) else str(value)
