"""How far the bundled classifier takes word overlap for entailment: on the embedded pairs, and on HANS where present.

    python benchmarks/shortcut_of_bundled_model.py [--pairs 2000] [--seed 0] [--hans 6000] [--out runs/shortcut.json]

Prints accuracy and mean P(entailment) by label x overlap level, label x construction, and for HANS label x heuristic;
writes the same as JSON. "merged" accuracy makes neutral and contradiction one class after the argmax, as HANS does.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import transformers

from pyneuro.data.generator import embedded_pairs
from pyneuro.data.grammar.phrases import LEVELS, level_of
from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.data.read import read_pairs
from pyneuro.models import Classifier, bundled_model, load

HANS = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "hans_eval.jsonl.gz"


def probabilities(clf: Classifier, pairs: Iterable[Pair], batch: int = 64) -> np.ndarray:
    """softmax(logits), float64 [n, 3] in the order of ``pairs``; batches of like length."""
    encodings = [clf.encode(pair) for pair in pairs]
    order = sorted(range(len(encodings)), key=lambda i: len(encodings[i]))
    rows = np.empty((len(encodings), len(clf.label_index)))
    with torch.no_grad():
        for start in range(0, len(order), batch):
            at = order[start : start + batch]
            rows[at] = clf.logits([encodings[i] for i in at]).double().softmax(-1).numpy()
    return rows


def table(
    clf: Classifier, pairs: Pairs, probability: np.ndarray, key: Callable[[Pair], str], order: Iterable[str] = ()
) -> list[dict[str, object]]:
    """One row for every (label, key) that occurs: n, accuracy, merged accuracy, mean P(entailment)."""
    entailment = clf.target_index("entailment")
    predicted = probability.argmax(1)
    keys = np.array([key(pair) for pair in pairs])
    labels = np.array(pairs.labels)
    rows: list[dict[str, object]] = []
    for label in (label for label in LABELS if label in set(pairs.labels)):
        for value in list(order) or sorted(set(keys[labels == label])):
            at = np.flatnonzero((labels == label) & (keys == value))
            if not len(at):
                continue
            merged = float(((predicted[at] == entailment) == (label == "entailment")).mean())
            known = label in clf.label_index
            rows.append(
                {
                    "label": label,
                    "group": value,
                    "n": len(at),
                    "accuracy": float((predicted[at] == clf.label_index[label]).mean()) if known else merged,
                    "merged_accuracy": merged,
                    "mean_p_entailment": float(probability[at, entailment].mean()),
                }
            )
    return rows


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}\n{'label':15}{'group':44}{'n':>6}{'accuracy':>10}{'merged':>8}{'P(ent)':>8}")
    for row in rows:
        print("{label:15}{group:44}{n:6}{accuracy:10.3f}{merged_accuracy:8.3f}{mean_p_entailment:8.3f}".format(**row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--hans", type=int, default=6000, help="HANS rows, taken evenly from its 30 subcases; 0 for none"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/shortcut_of_bundled_model.json"))
    options = parser.parse_args()

    clf = load(bundled_model())
    pairs = embedded_pairs(options.pairs, options.seed)
    probability = probabilities(clf, pairs)
    report: dict[str, object] = {
        "model": {"name": clf.name, "digest": clf.digest},
        "pairs": {"source": pairs.source, "digest": pairs.digest()},
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "machine": platform.processor() or platform.machine(),
    }
    tables = {
        "embedded: label x overlap level": table(
            clf, pairs, probability, lambda p: level_of(p.meta["overlap"]), LEVELS
        ),
        "embedded: label x construction": table(clf, pairs, probability, lambda p: p.meta["construction"]),
    }
    if options.hans and HANS.is_file():
        hans = read_pairs(HANS)
        hans = hans.subset(range(0, len(hans), max(1, len(hans) // options.hans)))  # its rows are ordered by subcase
        probability = probabilities(clf, hans)
        tables["HANS: label x heuristic"] = table(clf, hans, probability, lambda p: str(p.meta["heuristic"]))
    elif options.hans:
        print(f"HANS left out: no {HANS}")
    for title, rows in tables.items():
        show(title, rows)
    report["tables"] = tables
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
