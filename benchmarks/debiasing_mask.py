"""A debiasing mask on the bundled classifier: MNLI dev and HANS before and after, beside random masks as sparse.

    python benchmarks/debiasing_mask.py [--pairs 3000] [--epochs 2] [--seeds 3] [--losses plain reweight]

The biased model is a logistic regression on word overlap (``OverlapModel("clark2019_words")``), cross-fitted so that no
pair is judged by a model that saw it. On HANS, neutral and contradiction count as non-entailment after the argmax.
Finished runs are kept in --out.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from harness import CORPORA, once, save

import pyneuro as pn
from pyneuro.data import Pair


def biased(clf: pn.Classifier, pairs: Any, seed: int) -> np.ndarray:
    """Probabilities [n, 3] of a word overlap model, out of fold."""
    crossed = pn.reweighting.cross_fit(pn.reweighting.OverlapModel("clark2019_words"), pairs, seed=seed)
    return crossed.three_classes().for_pairs(pairs, clf.label_index)


def measured(clf: pn.Classifier, dev: Any, hans: list[Pair]) -> dict[str, float]:
    found = pn.evaluation.hans(pn.evaluation.predict(clf, hans), hans, labels=clf.label_index)
    by_label = found.cells.groupby("label")["accuracy"].mean()
    return {
        "mnli": pn.masking.accuracy(clf, dev),
        "hans": found.accuracy,
        "hans_entailed": float(by_label["entailment"]),
        "hans_non_entailed": float(by_label["non-entailment"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--dev", type=int, default=2000)
    parser.add_argument("--hans", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    # A score must fall from 0 to logit(0.1) = -2.2 before anything is masked, and Adam moves it by `lr` a step at most.
    parser.add_argument("--lr", type=float, default=0.15)
    parser.add_argument("--losses", nargs="*", default=["plain", "product_of_experts"])
    parser.add_argument("--out", default="runs/debiasing-mask")
    args = parser.parse_args()
    pairs = pn.data.read_pairs(CORPORA / "mnli_train.jsonl.gz")[: args.pairs]
    dev = pn.data.read_pairs(CORPORA / "mnli_dev_matched.jsonl.gz")[: args.dev]
    every = pn.data.read_pairs(CORPORA / "hans_eval.jsonl.gz")
    hans = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: args.hans].tolist()]

    def trained(loss: str, seed: int) -> dict[str, Any]:
        """Sanh et al.'s and Meissner et al.'s setting: sigmoid scores from 0, τ to 0.1 along a cubic."""
        clf = pn.load(pn.bundled_model())
        pn.masking.apply(clf, "encoder", rule="sigmoid", tau=0.0, mask_bias=True, seed=seed)
        done = pn.masking.train(
            clf,
            pairs,
            epochs=args.epochs,
            lr=args.lr,
            batch_size=args.batch,
            loss=loss,
            known={"bias": biased(clf, pairs, seed)},
            tau=pn.masking.CubicSchedule(0.0, 0.1),
            l1_attention=1.0,
            l1_dense=1.0,
            seed=seed,
            progress=True,
        )
        assert done.masks is not None
        found = {**measured(clf, dev, hans), "sparsity": done.masks.sparsity, "seconds": done.seconds}
        control = pn.load(pn.bundled_model())
        pn.masking.Masks.random(done.masks, seed).put_on(control)
        return {**found, "rates": done.masks.rates().to_dict(), "random": measured(control, dev, hans)}

    found: dict[str, Any] = {
        "before": once(args.out, "before", lambda: measured(pn.load(pn.bundled_model()), dev, hans))
    }
    for loss in args.losses:
        found[loss] = [
            once(args.out, f"{loss}-{seed}", lambda n=loss, s=seed: trained(n, s)) for seed in range(args.seeds)
        ]
    save("debiasing_mask", {"settings": vars(args), **found})


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
