"""``pyneuro mask``: train masks over frozen weights, and say what they mask."""

from __future__ import annotations

import argparse
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyneuro import masking
from pyneuro.cli.arguments import BUNDLED, add_model_options
from pyneuro.cli.prepare import load_classifier
from pyneuro.data import Pairs, read_pairs
from pyneuro.data.rows import file_rows
from pyneuro.errors import InputError
from pyneuro.masking.apply import STARTS
from pyneuro.masking.linear import RULES
from pyneuro.masking.trainer import find_checkpoint
from pyneuro.models import Classifier
from pyneuro.models.quiet import no_bars
from pyneuro.reweighting import LOSSES, BiasPredictions

# Options of 'train' that are of masks alone, and their defaults.
MASK_OPTIONS: dict[str, Any] = {
    "modules": "all",
    "layers": "all",
    "rule": "threshold",
    "tau": None,
    "tau_last": None,
    "sparsity": None,
    "target_sparsity": None,
    "start": None,
    "structure": "weight",
    "l1": 0.0,
    "mask_bias": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    own = commands.add_parser("train", help="train masks, or all weights to compare with")
    add_model_options(own, max_length=128, convention=False)
    own.add_argument("--new-head", action="store_true", help="--model is an encoder: put a fresh NLI classifier on it")
    own.add_argument("--data", required=True, metavar="FILE", help="training pairs")
    own.add_argument("--validation", required=True, metavar="FILE", help="pairs on which accuracy is measured")
    own.add_argument("--limit", type=int, metavar="N", help="the first N training pairs")
    own.add_argument("--limit-validation", type=int, metavar="N", help="the first N validation pairs")
    own.add_argument("--out", required=True, metavar="FOLDER", help="for masks, history and checkpoints")
    own.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    own.add_argument("--fine-tune", action="store_true", help="no masks: train all weights, and save the model")
    own.add_argument("--epochs", type=float, default=3.0)
    own.add_argument("--lr", type=float, help="default 1e-3 for masks, 5e-5 with --fine-tune")
    own.add_argument("--batch-size", type=int, default=32)
    own.add_argument("--warmup", type=float, help="share of the steps (default 0 for masks, 0.1 with --fine-tune)")
    own.add_argument("--seed", type=int, default=0)
    own.add_argument("--loss", choices=tuple(LOSSES), default="plain")
    own.add_argument(
        "--known",
        metavar="FILE",
        help="what the loss wants to know of every pair: .npz, as 'bias', or what 'pyneuro reweight' wrote",
    )
    masks = own.add_argument_group("masks")
    masks.add_argument("--modules", type=_words, metavar="Q,K,...", help="or 'encoder' or 'all' (default)")
    masks.add_argument("--layers", type=_layers, metavar="0,1,...", help="or 'all' (default), 'top:N', 'bottom:N'")
    masks.add_argument("--rule", choices=RULES)
    masks.add_argument("--tau", type=float, help="threshold of the rule")
    masks.add_argument("--tau-last", type=float, help="let tau move to this, along a cubic")
    masks.add_argument("--sparsity", type=float, help="share masked at the start (default 0.05, or 0 for 'sigmoid')")
    masks.add_argument("--target-sparsity", type=float, help="pull the share masked towards this")
    masks.add_argument("--start", choices=STARTS)
    masks.add_argument("--structure", choices=("weight", "row", "head"))
    masks.add_argument("--l1", type=float, help="penalty on what is kept, for the rule 'sigmoid'")
    masks.add_argument("--mask-bias", action="store_true", help="a bias counts where its row keeps any weight")
    own.set_defaults(what=train, resumable=True)

    own.set_defaults(**MASK_OPTIONS)

    report = commands.add_parser("report", help="share masked by layer and module")
    report.add_argument("masks", metavar="MASKS", help="a file that 'mask train' wrote")
    report.add_argument("--figure", metavar="PNG", help="draw it as a heat map too")
    report.add_argument("--published", action="store_true", help="beside the rates of Meissner et al. (2022)")
    report.add_argument("--format", choices=("text", "csv"), default="text")
    report.set_defaults(what=_report)

    overlap = commands.add_parser("overlap", help="how much two masks agree")
    overlap.add_argument("masks", metavar="MASKS")
    overlap.add_argument("other", metavar="OTHER")
    overlap.add_argument("--format", choices=("text", "csv"), default="text")
    overlap.set_defaults(what=_overlap)

    effects = commands.add_parser("effects", help="accuracy without each layer's mask, and with it alone")
    effects.add_argument("masks", metavar="MASKS")
    add_model_options(effects, max_length=128, convention=False)
    effects.add_argument("--data", required=True, metavar="FILE", help="pairs with labels")
    effects.add_argument("--limit", type=int, metavar="N", help="the first N of them")
    effects.add_argument("--format", choices=("text", "csv"), default="text")
    effects.set_defaults(what=_effects)

    export = commands.add_parser("export", help="write the masked model as an ordinary Hugging Face folder")
    export.add_argument("masks", metavar="MASKS")
    add_model_options(export, convention=False)
    export.add_argument("--out", required=True, metavar="FOLDER")
    export.set_defaults(what=_export)


def run(args: argparse.Namespace) -> int:
    status: int = args.what(args)
    return status


def train(args: argparse.Namespace) -> int:
    if args.fine_tune:
        given = [name for name, default in MASK_OPTIONS.items() if getattr(args, name) != default]
        if given:
            raise InputError(f"--{given[0].replace('_', '-')} has no meaning with --fine-tune; leave one of them out")
    find_checkpoint(args.out, args.resume)  # before anything there is touched
    if args.new_head:
        if args.model == BUNDLED:
            raise InputError("--new-head puts a classifier on an encoder; name it with --model")
        with no_bars():
            clf = masking.classifier_on(args.model, seed=args.seed)
    else:
        clf = load_classifier(args)
    pairs, validation = _pairs(args.data, args.limit), _pairs(args.validation, args.limit_validation)
    options: dict[str, Any] = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "loss": args.loss,
        "known": _known(args.known, pairs, clf),
        "max_length": args.max_length,
        "seed": args.seed,
        "out": args.out,
        "resume": args.resume,
    }
    options |= {name: value for name in ("lr", "warmup") if (value := getattr(args, name)) is not None}
    if args.fine_tune:
        done = masking.fine_tune(clf, pairs, validation, **options)
        clf.model.save_pretrained(Path(args.out) / "model")  # type: ignore[operator]
        clf.tokenizer.save_pretrained(Path(args.out) / "model")
        print(f"accuracy {done.accuracy:.4f}, {done.seconds:.0f} s; the model is in {Path(args.out) / 'model'}")
        return 0
    if args.new_head:  # masks belong to this head: keep it
        clf.model.save_pretrained(Path(args.out) / "base")  # type: ignore[operator]
        clf.tokenizer.save_pretrained(Path(args.out) / "base")
    masking.apply(
        clf,
        args.modules,
        args.layers,
        rule=args.rule,
        tau=args.tau,
        sparsity=args.sparsity,
        start=args.start,
        structure=args.structure,
        mask_bias=args.mask_bias,
        seed=args.seed,
    )
    if args.tau_last is not None:
        first = next(iter(masking.masked_layers(clf).values())).tau
        options["tau"] = masking.CubicSchedule(float(first), args.tau_last)  # type: ignore[arg-type]
    if args.target_sparsity is not None:
        options["sparsity"] = masking.SparsityControl(args.target_sparsity)
    done = masking.train(clf, pairs, validation, l1_attention=args.l1, l1_dense=args.l1, **options)
    assert done.masks is not None
    print(
        f"accuracy {done.accuracy:.4f}, {done.masks.sparsity:.2%} masked, {done.masks.nbytes / 1e6:.3f} MB of bits, "
        f"{done.seconds:.0f} s; the masks are in {Path(args.out) / 'masks.safetensors'}"
    )
    return 0


def _report(args: argparse.Namespace) -> int:
    masks = masking.Masks.load(args.masks)
    if args.figure:
        masking.save_rates_figure(masks, args.figure)
    if args.format == "text":
        print(
            f"{masks.sparsity:.2%} of {sum(m.weights for m in masks.values()):,} weights, {masks.nbytes / 1e6:.3f} MB"
        )
        print("share masked; layers from 0\n")
    _show(masking.compare_rates(masks) if args.published else masks.rates().reset_index(), args.format)
    return 0


def _overlap(args: argparse.Namespace) -> int:
    _show(masking.Masks.load(args.masks).overlap(masking.Masks.load(args.other)), args.format)
    return 0


def _effects(args: argparse.Namespace) -> int:
    clf = load_classifier(args)
    masking.Masks.load(args.masks).put_on(clf)
    _show(masking.layer_effects(clf, _pairs(args.data, args.limit), max_length=args.max_length), args.format)
    return 0


def _export(args: argparse.Namespace) -> int:
    masking.Masks.load(args.masks).export(load_classifier(args), args.out)
    print(f"written: {args.out}")
    return 0


def _show(table: pd.DataFrame, how: str) -> None:
    if how == "csv":
        table.to_csv(sys.stdout, index=False)
    else:
        print(table.to_string(index=False, float_format="{:.4f}".format, na_rep=""))


def _pairs(path: str, limit: int | None) -> Pairs:
    if not Path(path).is_file():
        raise InputError(f"there is no file {path}")
    return read_pairs(path, limit=limit)


def _known(path: str | None, pairs: Pairs, clf: Classifier) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz file, cut to the pairs that are read; or bias and weight of these pairs, by their ids."""
    if path is None:
        return None
    if Path(path).suffix == ".jsonl":
        known = {"bias": BiasPredictions.load(path).for_pairs(pairs, clf.label_index)}
        weights = {str(row["id"]): row["weight"] for _, row in file_rows(Path(path)).rows if "weight" in row}
        return known | ({"weight": np.array([weights[pair.id] for pair in pairs])} if weights else {})
    try:
        with np.load(path) as file:
            return {name: file[name][: len(pairs)] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path} as .npz: {error}") from error


def _words(text: str) -> str | list[str]:
    return text if text in ("all", "encoder") else text.split(",")


def _layers(text: str) -> str | list[int]:
    if text == "all" or ":" in text:
        return text
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither layers, as 0,1,2, nor 'all', 'top:N' or 'bottom:N'"
        ) from error
