"""``pyneuro compare``: how well one result folder agrees with another that is taken as the truth."""

from __future__ import annotations

import argparse
import sys

from pyneuro.results import compare, load_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the result judged, such as a screen's or an estimate's")
    parser.add_argument("truth", metavar="TRUTH", help="folder of the result it is judged by")
    parser.add_argument("--by", default="nie", metavar="COLUMN", help="column compared (default nie)")
    parser.add_argument(
        "--format", choices=("text", "csv"), default="text", help="text (default), or the whole table as csv"
    )


def run(args: argparse.Namespace) -> int:
    found = compare(load_result(args.folder), load_result(args.truth), by=args.by)
    if args.format == "text":
        print(found.text(), end="")
        return 0
    for line in found.warnings:
        print(f"pyneuro: warning: {line}", file=sys.stderr)
    found.table.to_csv(sys.stdout, index=False)
    return 0
