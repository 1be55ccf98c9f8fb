"""``pyneuro reweight``: weights of training pairs from what a bias model makes of them."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pyneuro.cli.arguments import add_data_options, add_scorer_option
from pyneuro.cli.prepare import read_corpus, say
from pyneuro.data import Pairs
from pyneuro.errors import InputError
from pyneuro.results.files import writable_folder, write_atomic
from pyneuro.reweighting import (
    BiasModel,
    BiasPredictions,
    HypothesisModel,
    OverlapModel,
    cross_fit,
    sample_weights,
    save_weights_figure,
)
from pyneuro.reweighting.weights import DIRECTIONS, KINDS

MODELS = ("overlap", "notes", "clark2019_words", "hypothesis")
PARSED = ("notes",)  # these look at the premise's parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    group = parser.add_argument_group("bias model")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--bias", choices=MODELS, help="fit one to the pairs, each predicted by one that has not seen it"
    )
    which.add_argument("--probabilities", metavar="FILE", help="class probabilities by pair id (.jsonl or .parquet)")
    group.add_argument("--folds", type=int, default=5, metavar="N", help="of --bias (default 5)")
    add_scorer_option(group)
    weights = parser.add_argument_group("weights")
    weights.add_argument("--kind", choices=KINDS, default="one_minus", help="1 - b (default), (1 - b)^2, 1 / b")
    weights.add_argument(
        "--trim", type=float, default=95.0, metavar="P", help="percentile at which 1 / b is cut (default 95; 100: none)"
    )
    weights.add_argument("--direction", choices=DIRECTIONS, default="debias", help="amplify does the opposite")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="weights (.jsonl), a row a pair; a histogram (.png) goes beside it"
    )


def run(args: argparse.Namespace) -> int:
    out = Path(args.out).expanduser()
    if out.suffix != ".jsonl":
        raise InputError(f"--out {args.out}: weights are written as .jsonl; choose such a name")
    writable_folder(out.parent)  # before any work, not after it
    given = None if args.probabilities is None else BiasPredictions.load(args.probabilities)
    pairs = read_corpus(args, parses=args.bias in PARSED)
    bias = cross_fit(_model(args), pairs, args.folds, args.seed) if given is None else given
    if set(bias.classes) == {"entailment", "non-entailment"} and not set(pairs.labels) <= set(bias.classes):
        bias = bias.three_classes()
    table, gold = bias.for_pairs(pairs), _gold(pairs, bias.classes)
    weights = sample_weights(table, gold, args.kind, trim=args.trim, direction=args.direction)
    easy = table[np.arange(len(pairs)), gold]
    rows = (
        {"id": pair.id, "label": pair.label, "weight": weight, "bias": b}
        | {f"p_{label}": p for label, p in zip(bias.classes, row, strict=True)}
        for pair, weight, b, row in zip(pairs, weights.tolist(), easy.tolist(), table.tolist(), strict=True)
    )
    write_atomic(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    right = float((table.argmax(1) == gold).mean())
    print(
        f"bias model   right on {right:.1%} of {len(pairs):,} pairs, mean probability of the gold class "
        f"{easy.mean():.3f}"
    )
    low, middle, high = np.quantile(weights, [0.05, 0.5, 0.95])
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    print(f"weights      mean 1, 5 % below {low:.3f}, median {middle:.3f}, 5 % above {high:.3f}")
    print(f"             as much as {effective:,.0f} equal ones ((sum w)^2 / sum w^2, Kish 1965)")
    print(f"written      {out}")
    if find_spec("matplotlib") is None:
        say("no figure: matplotlib is not installed (pip install 'pyneuro[figures]')")
    else:
        print(f"figure       {save_weights_figure(weights, [str(p.label) for p in pairs], out.with_suffix('.png'))}")
    return 0


def _model(args: argparse.Namespace) -> BiasModel:
    return HypothesisModel() if args.bias == "hypothesis" else OverlapModel(args.bias, scorer=args.scorer)


def _gold(pairs: Pairs, classes: tuple[str, ...]) -> np.ndarray:
    for pair in pairs:
        if pair.label not in classes:
            raise InputError(
                f"pair {pair.id!r} has label {pair.label!r}, and the bias model knows {', '.join(classes)}; leave the "
                "pair out, or predict with a model of these labels"
            )
    return np.array([classes.index(str(pair.label)) for pair in pairs], dtype=np.int64)
