"""``pyneuro ablate``: what a classifier still does without the strongest neurons of a search, beside random ones."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from pyneuro import evaluation
from pyneuro.cli.arguments import add_data_options, add_model_options, add_ranking_options, add_threads_option
from pyneuro.cli.prepare import check_roles, choose_samples, load_classifier, read_corpus, say
from pyneuro.data import ROLES, split_roles
from pyneuro.errors import InputError
from pyneuro.results import load_result
from pyneuro.results.files import writable_folder, write_atomic
from pyneuro.search import rank
from pyneuro.search.controls import CONTROLS

INTERVENTIONS = ("remove", "weaken", "negate")  # those that need no replacement values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("search", metavar="FOLDER", help="written by 'pyneuro search --out', with the same --data")
    add_data_options(parser)
    parser.add_argument("--role", choices=ROLES[2:], default="test", help="pairs that are scored (default test)")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="N of them, equally many of every label (default: all)"
    )
    add_model_options(parser, convention=False)
    add_ranking_options(parser)
    curve = parser.add_argument_group("curve")
    curve.add_argument(
        "--counts", type=int, nargs="+", metavar="N", help="numbers of neurons (default 10 15 25 39 63 100 ...)"
    )
    curve.add_argument(
        "--intervention", choices=INTERVENTIONS, default="remove", help="at [CLS]; default remove, which sets to 0"
    )
    curve.add_argument("--strength", type=float, metavar="E", help="of weaken")
    curve.add_argument("--metric", choices=tuple(evaluation.METRICS), default="accuracy", help="default accuracy")
    curve.add_argument(
        "--controls", type=int, default=CONTROLS, metavar="N", help=f"random rankings beside it (default {CONTROLS})"
    )
    parser.add_argument("--out", metavar="FILE", help="the curve (.csv); a figure (.png) beside it")
    add_threads_option(parser)


def run(args: argparse.Namespace) -> int:
    out = None if args.out is None else Path(args.out).expanduser()
    if out is not None and out.suffix != ".csv":
        raise InputError(f"--out {args.out}: a curve is written as .csv; choose such a name")
    if out is not None:
        writable_folder(out.parent)  # before any work, not after it
    ranking = rank(load_result(args.search), treatment=args.treatment, by=args.by, order=args.order)
    roles = split_roles(read_corpus(args), args.seed)
    check_roles(Path(args.search), roles)
    pairs = choose_samples(getattr(roles, args.role), args.samples, args.seed)
    found = evaluation.ablation_curve(
        load_classifier(args),
        ranking,
        pairs,
        args.counts,
        metric=args.metric,
        intervention=args.intervention,
        strength=args.strength,
        controls=args.controls,
        seed=args.seed,
    )
    print(
        f"{args.metric} on {len(pairs):,} pairs of the role {args.role}, {args.controls} matched random rankings beside"
    )
    print(found.curve.to_string(index=False, float_format="{:.4f}".format, na_rep=""))
    if out is None:
        return 0
    write_atomic(out, found.curve.to_csv(index=False).encode())
    print(f"written: {out}")
    if find_spec("matplotlib") is None:
        say("no figure: matplotlib is not installed (pip install 'pyneuro[figures]')")
    else:
        print(f"figure:  {found.save_figure(out.with_suffix('.png'))}")
    return 0
