"""``pyneuro evaluate``: accuracy of a classifier by class and word overlap; on HANS by cell, under both merge rules."""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from typing import Any

import pandas as pd

from pyneuro import evaluation
from pyneuro.cli.arguments import add_data_options, add_model_options, add_scorer_option, add_threads_option
from pyneuro.cli.prepare import load_classifier, read_corpus
from pyneuro.data import Pairs
from pyneuro.errors import InputError
from pyneuro.evaluation.hans import is_hans
from pyneuro.mitigation import Weakening
from pyneuro.models import Classifier
from pyneuro.reweighting import BiasPredictions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_model_options(parser, convention=False)
    parser.add_argument("--weaken", metavar="FILE", help="weaken neurons as 'pyneuro mitigate weaken' chose them")
    add_scorer_option(parser)
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="pairs a forward (default 64)")
    parser.add_argument(
        "--predictions", metavar="FILE", help="write the class probabilities of every pair (.jsonl or .parquet)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    add_threads_option(parser)


def run(args: argparse.Namespace) -> int:
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size} is no batch; pass 1 or more")
    weakening = None if args.weaken is None else Weakening.load(args.weaken)
    pairs = read_corpus(args)
    labelled = any(label is not None for label in pairs.labels)
    if not labelled and args.predictions is None:
        raise InputError(f"{pairs.source} has no labels to compare with; pass --predictions to write probabilities")
    clf = load_classifier(args)
    with nullcontext() if weakening is None else weakening.on(clf):
        predicted = evaluation.predict(clf, pairs, batch_size=args.batch_size)
    if args.predictions is not None:
        BiasPredictions(pairs.ids, clf.label_index, predicted).save(args.predictions)
    if not labelled:
        print(f"predictions  {args.predictions}")
        return 0
    facts: dict[str, Any] = {"model": clf.name, "data": pairs.source, "pairs": len(pairs)}
    facts["weakening"] = None if weakening is None else repr(weakening)
    facts |= _hans(clf, predicted, pairs) if is_hans(pairs) else _labelled(clf, predicted, pairs, args.scorer)
    if args.format == "json":
        print(json.dumps({k: v.to_dict("records") if isinstance(v, pd.DataFrame) else v for k, v in facts.items()}))
    else:
        print(_text(facts))
    return 0


def _labelled(clf: Classifier, predicted: Any, pairs: Pairs, scorer: str) -> dict[str, Any]:
    found = evaluation.accuracy(clf, predicted, pairs)
    return {
        "accuracy": found.accuracy,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "by label": found.classes,
        f"by word overlap ({scorer}) and label": evaluation.overlap_accuracy(clf, predicted, pairs, scorer=scorer),
    }


def _hans(clf: Classifier, predicted: Any, pairs: Pairs) -> dict[str, Any]:
    found = {
        rule: evaluation.hans(predicted, pairs, labels=clf.label_index, merge_rule=rule) for rule in evaluation.MERGES
    }
    first = next(iter(found.values()))
    tables = {}
    for name in ("cells", "subcases"):
        table = getattr(first, name).drop(columns="accuracy")
        tables[name] = table.assign(**{rule: getattr(one, name)["accuracy"] for rule, one in found.items()})
    accuracies = {f"accuracy, merge rule {rule!r}": one.accuracy for rule, one in found.items()}
    return {**accuracies, "by heuristic and label": tables["cells"], "by subcase": tables["subcases"]}


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['data']}: {facts['pairs']:,} pairs, model {facts['model']}"]
    if facts["weakening"] is not None:
        lines[0] += f", {facts['weakening']}"
    for name, value in facts.items():
        if isinstance(value, pd.DataFrame):
            lines += ["", name, value.to_string(index=False, float_format="{:.4f}".format)]
        elif name == "accuracy":
            lines.append(f"accuracy {value:.4f} [{facts['ci_low']:.4f}, {facts['ci_high']:.4f}]")
        elif name.startswith("accuracy"):
            lines.append(f"{name}: {value:.4f}, mean over the six cells")
    return "\n".join(lines)
