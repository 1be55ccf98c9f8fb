"""``pyneuro mitigate``: less biased predictions without training: counterfactual inference, weakened neurons."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro import evaluation, mitigation
from pyneuro.cli.arguments import add_data_options, add_model_options, add_ranking_options, add_threads_option
from pyneuro.cli.prepare import check_roles, load_classifier, read_corpus, say
from pyneuro.data import read_pairs, split_roles
from pyneuro.errors import InputError
from pyneuro.evaluation.hans import is_hans
from pyneuro.evaluation.metrics import find_metric
from pyneuro.mitigation import Counterfactual
from pyneuro.mitigation.sharpness import BOUNDS, OBJECTIVES, SOLVERS
from pyneuro.results import load_result
from pyneuro.results.files import writable_folder, write_atomic
from pyneuro.reweighting import BiasPredictions
from pyneuro.search import measure_beside_controls, rank
from pyneuro.search.controls import CONTROLS
from pyneuro.sites import NeuronSet

Float = npt.NDArray[np.float64]
SHOWN = 5  # of the grid


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    _add_counterfactual(commands.add_parser("counterfactual", help="counterfactual inference on saved probabilities"))
    _add_weaken(commands.add_parser("weaken", help="weaken the strongest neurons of a search at [CLS]"))


def _add_counterfactual(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--main", required=True, metavar="FILE", help="main model's probabilities (.jsonl or .parquet)")
    parser.add_argument("--bias", required=True, metavar="FILE", help="bias model's, of the same pairs")
    parser.add_argument("--fit-main", metavar="FILE", help="main model's on other pairs, on which c is fitted")
    parser.add_argument("--fit-bias", metavar="FILE", help="bias model's on those (without both: c = 1 / K, c_te = 1)")
    parser.add_argument("--objective", choices=OBJECTIVES, default="paper", help="of c (default paper)")
    parser.add_argument("--solver", choices=SOLVERS, default="exact", help="default exact")
    parser.add_argument("--per-class", action="store_true", help="one c a class")
    parser.add_argument("--fusion", choices=mitigation.FUSIONS, default="sum", help="default sum")
    parser.add_argument("--data", metavar="FILE", help="the pairs with labels, to report accuracy")
    parser.add_argument("--out", metavar="FILE", help="fields and predictions (.jsonl), a row a pair")
    parser.set_defaults(what=_counterfactual)


def _add_weaken(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("search", metavar="FOLDER", help="written by 'pyneuro search --out', with the same --data")
    add_data_options(parser)
    add_model_options(parser, convention=False)
    add_ranking_options(parser)
    grid = parser.add_argument_group("grid")
    grid.add_argument(
        "--strengths", type=float, nargs="+", default=mitigation.STRENGTHS, metavar="E", help="default 0 0.1 ... 1"
    )
    grid.add_argument(
        "--shares", type=float, nargs="+", default=mitigation.SHARES, metavar="S", help="default 0.01 0.02 ... 0.2"
    )
    grid.add_argument("--metric", choices=tuple(evaluation.METRICS), default="accuracy", help="default accuracy")
    parser.add_argument(
        "--controls", type=int, default=CONTROLS, metavar="N", help=f"random sets beside it (default {CONTROLS})"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="what was chosen (.json); the grid (.csv) beside it"
    )
    add_threads_option(parser)
    parser.set_defaults(what=_weaken)


def run(args: argparse.Namespace) -> int:
    status: int = args.what(args)
    return status


@dataclass(frozen=True, eq=False)
class _Both:
    """Main and bias model's probabilities of the same pairs and classes."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    main: Float
    bias: Float

    @classmethod
    def load(cls, main_path: str, bias_path: str) -> _Both:
        main, bias = BiasPredictions.load(main_path), BiasPredictions.load(bias_path)
        if len(bias.classes) == 2 and len(main.classes) == 3:
            bias = bias.three_classes()
        return cls(main.ids, main.classes, main.probabilities, bias.for_ids(main.ids, main.classes))


def _counterfactual(args: argparse.Namespace) -> int:
    if (args.fit_main is None) != (args.fit_bias is None):
        raise InputError("--fit-main and --fit-bias belong together; pass both, or neither")
    if args.out is not None and Path(args.out).suffix != ".jsonl":
        raise InputError(f"--out {args.out}: fields are written as .jsonl; choose such a name")
    both = _Both.load(args.main, args.bias)
    c = c_te = None
    if args.fit_main is not None:
        fit = _Both.load(args.fit_main, args.fit_bias)
        if fit.classes != both.classes:
            raise InputError(f"--fit-main has classes {', '.join(fit.classes)}, --main {', '.join(both.classes)}")
        if set(fit.ids) & set(both.ids):
            say("c is fitted on pairs that it is applied to: what comes out looks better than it is")
        c, c_te = (_fitted(args, fit, of) for of in ("tie_a", "te_model"))
    found = mitigation.counterfactual(both.main, both.bias, c, c_te, args.fusion)
    table = pd.DataFrame({"field": list(found.changed), "changed": list(found.changed.values())})
    table["share"] = table["changed"] / len(both.ids)
    if args.data is not None:
        accuracies = _accuracies(found, both, args.data)
        print(f"accuracy of the main model: {accuracies['main']:.4f}")
        table["accuracy"] = [accuracies[name] for name in table["field"]]
    print(f"predictions of {len(both.ids):,} pairs that differ from the main model's")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    if args.out is not None:
        _write(found, both, Path(args.out))
        print(f"written: {args.out}")
    return 0


def _fitted(args: argparse.Namespace, fit: _Both, of: Any) -> float | Float:
    found = mitigation.fit_sharpness(
        fit.main,
        fit.bias,
        of=of,
        objective=args.objective,
        per_class=args.per_class,
        solver=args.solver,
        fusion=args.fusion,
    )
    shown = ", ".join(f"{value:.6g}" for value in np.atleast_1d(found.c))
    lowest, highest = found.curve["loss"].min(), found.curve["loss"].max()
    print(
        f"c of {of}: {shown} on {len(fit.ids):,} pairs, loss {found.loss:.6g} (scalars: {lowest:.6g} to {highest:.6g})"
    )
    if np.isin(np.atleast_1d(found.c).round(6), BOUNDS[of]).any():
        say(f"c of {of} lies at the end of what was searched, {BOUNDS[of]}: this objective has no optimum inside")
    return found.c


def _accuracies(found: Counterfactual, both: _Both, path: str) -> dict[str, float]:
    """By field, of the pairs of a file; on HANS the mean over cells, merge rule "argmax"."""
    labelled = {pair.id: pair for pair in read_pairs(path)}
    if missing := [name for name in both.ids if name not in labelled]:
        raise InputError(f"{path} lacks {len(missing)} pairs of --main, such as {missing[0]!r}; pass the same pairs")
    pairs = [labelled[name] for name in both.ids]
    index = {label: column for column, label in enumerate(both.classes)}
    scores: Mapping[str, Float] = {f.name: getattr(found, f.name) for f in fields(found)}
    if is_hans(pairs):
        return {name: evaluation.hans(values, pairs, labels=index).accuracy for name, values in scores.items()}
    if odd := [pair for pair in pairs if pair.label not in index]:
        raise InputError(f"pair {odd[0].id!r} has label {odd[0].label!r}, and --main {', '.join(both.classes)}")
    gold = np.array([index[str(pair.label)] for pair in pairs])
    return {name: float((values.argmax(1) == gold).mean()) for name, values in scores.items()}


def _write(found: Counterfactual, both: _Both, path: Path) -> None:
    columns: dict[str, list[Any]] = {"id": list(both.ids)}
    for field in fields(found):
        values: Float = getattr(found, field.name)
        columns[field.name] = [both.classes[i] for i in values.argmax(1)]
        columns |= {f"{field.name}_{label}": values[:, i].tolist() for i, label in enumerate(both.classes)}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    content = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomic(writable_folder(path.parent) / path.name, content.encode())


def _weaken(args: argparse.Namespace) -> int:
    out = Path(args.out).expanduser()
    if out.suffix != ".json":
        raise InputError(f"--out {args.out}: a weakening is written as .json; choose such a name")
    writable_folder(out.parent)  # before any work, not after it
    ranking = rank(load_result(args.search), treatment=args.treatment, by=args.by, order=args.order)
    roles = split_roles(read_corpus(args), args.seed)
    check_roles(Path(args.search), roles)
    clf = load_classifier(args)
    say(
        f"grid: {len(args.shares)} shares x {len(args.strengths)} strengths, each on {len(roles.tune):,} pairs of the "
        f"role tune; tested on {len(roles.test):,} others"
    )
    fit = mitigation.fit_weakening(clf, ranking, roles.tune, args.strengths, args.shares, metric=args.metric)
    measure = find_metric(args.metric)
    chosen = fit.chosen

    def on_test(neurons: NeuronSet) -> float:
        with replace(chosen, neurons=neurons).on(clf):
            return measure(clf, roles.test)

    before = measure(clf, roles.test)
    beside = measure_beside_controls(on_test, chosen.neurons, args.controls, args.seed)
    test = {"n": len(roles.test), "baseline": before, "score": beside.value, "controls": list(beside.controls)}
    replace(chosen, settings={**chosen.settings, "test": test}).save(out)
    write_atomic(out.with_suffix(".csv"), fit.table.to_csv(index=False).encode())
    best = fit.table.sort_values("score", ascending=False, kind="stable").head(SHOWN)
    print(f"{args.metric} on tune: {fit.baseline:.4f} as it is; the best {len(best)} of {len(fit.table)} points")
    print(best.to_string(index=False, float_format="{:.4f}".format))
    if chosen.strength == 1.0:
        print("no point does better than leaving the model as it is, and that was chosen")
    print(f"chosen: {len(chosen.neurons):,} neurons by {chosen.strength:g}")
    print(f"{args.metric} on test: {before:.4f} as it is, {beside.value:.4f} weakened")
    print(
        f"  {len(beside.controls)} random sets, as many neurons of every layer and module: mean {beside.mean:.4f}, "
        f"95 % of such between {beside.low:.4f} and {beside.high:.4f}; p = {beside.p_value:.3g}"
    )
    print(f"written: {out}, {out.with_suffix('.csv')}")
    return 0
