"""Masking instead of fine-tuning: accuracy of both on the same encoder, data and seeds, and by how many layers are
masked.

    python benchmarks/mask_training.py --encoder FOLDER [--pairs 6000] [--epochs 2] [--seeds 3] [--curve]

FOLDER is an encoder that save_pretrained wrote, such as all-MiniLM-L6-v2. With --curve the mask is also trained on the
top n and on the bottom n layers (pooler and classifier always), one seed, and drawn. Finished runs are kept in --out
and not repeated.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from harness import CORPORA, once, save

import pyneuro as pn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--validation", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr-mask", type=float, default=2e-3)
    parser.add_argument("--sparsity", type=float, default=0.03, help="at the start")
    parser.add_argument("--lr-tune", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--curve-pairs", type=int, default=3000, help="training pairs of a point of the curve")
    parser.add_argument("--only", choices=("mask", "tune"), help="these runs alone, and no record: to share the work")
    parser.add_argument("--out", default="runs/mask-training")
    args = parser.parse_args()
    pairs = pn.data.read_pairs(CORPORA / "mnli_train.jsonl.gz")[: args.pairs]
    validation = pn.data.read_pairs(CORPORA / "mnli_dev_matched.jsonl.gz")[: args.validation]
    options = {"epochs": args.epochs, "max_length": args.max_length}

    def mask(seed: int, layers: str, rows: int | None = None) -> dict[str, Any]:
        clf = pn.masking.classifier_on(args.encoder, seed=seed)
        pn.masking.apply(clf, "all", layers, sparsity=args.sparsity, seed=seed)
        done = pn.masking.train(clf, pairs[:rows], validation, lr=args.lr_mask, seed=seed, progress=True, **options)
        assert done.masks is not None
        return {"accuracy": done.accuracy, "seconds": done.seconds, "sparsity": done.masks.sparsity}

    def tune(seed: int) -> dict[str, Any]:
        clf = pn.masking.classifier_on(args.encoder, seed=seed)
        done = pn.masking.fine_tune(clf, pairs, validation, lr=args.lr_tune, seed=seed, progress=True, **options)
        return {"accuracy": done.accuracy, "seconds": done.seconds}

    found: dict[str, Any] = {"mask": [], "fine_tune": [], "curve": {}}
    for seed in range(args.seeds):
        if args.only != "tune":
            found["mask"].append(once(args.out, f"mask-{seed}", lambda s=seed: mask(s, "all")))
        if args.only != "mask":
            found["fine_tune"].append(once(args.out, f"tune-{seed}", lambda s=seed: tune(s)))
    if args.only:
        return
    if args.curve:
        layers = pn.masking.classifier_on(args.encoder).shape.layers
        none = once(args.out, "none", lambda: mask(0, "top:0", args.curve_pairs))
        every = once(args.out, "every", lambda: mask(0, "all", args.curve_pairs))
        for side in ("top", "bottom"):
            between = [
                once(args.out, f"{side}-{n}", lambda s=side, n=n: mask(0, f"{s}:{n}", args.curve_pairs))
                for n in range(1, layers)
            ]
            found["curve"][side] = [run["accuracy"] for run in (none, *between, every)]
        draw(found["curve"])
    save("mask_training", {"settings": vars(args), **found})


def draw(curve: dict[str, list[float]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for side, marker in (("top", "o"), ("bottom", "s")):
        axes.plot(range(len(curve[side])), [100 * a for a in curve[side]], marker=marker, label=f"{side} n layers")
    axes.set_xlabel("masked encoder layers n (pooler and classifier always)")
    axes.set_ylabel("accuracy, %")
    axes.legend()
    figure.savefig(Path(__file__).resolve().parents[1] / "docs" / "mask_layers.png", dpi=150)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
