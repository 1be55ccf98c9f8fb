"""Whether estimates are unbiased and their intervals cover: many seeds against the exhaustive answer.

    OMP_NUM_THREADS=1 python benchmarks/estimate_coverage.py [--neurons 96] [--layers 2 4] [--pairs 100] [--seeds 200]

Predicted and exact effects of every (neuron, sample) pair are computed once for some random neurons of every (layer,
module); then the sampling, which is what is random, is repeated over them. Reported: the share of neurons whose
interval holds the exhaustive answer, over all and over the 1 % with the largest effects; and the bias in units of its
own noise (an unbiased estimate gives 1 at the root mean square). For replacement by means and for removal, whose
residuals are heavy-tailed, on the probability and on the odds.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import torch
from harness import real_pairs, save

import pyneuro as pn
from pyneuro.effects import Response, Terms
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import LinearEngine
from pyneuro.search.estimate import estimate as est
from pyneuro.search.estimate.predictor import Prediction, Predictor
from pyneuro.search.estimate.sweep import TwoPhaseSweep
from pyneuro.search.estimate.tolerance import Tolerance
from pyneuro.search.progress import Progress
from pyneuro.search.targets import make_groups
from pyneuro.sites import NeuronSet

CI = 0.95


@dataclass
class Recorded:
    """A predictor that has been asked everything already. Encodings are sample numbers here."""

    predictions: list[Prediction]
    answers: list[list[Terms]]
    offsets: np.ndarray
    neurons: int
    encodings: list[Any]

    def only(self, chosen: np.ndarray) -> Recorded:
        found = {
            id(p): (replace(p, terms=[t[chosen] for t in p.terms], size=p.size[chosen]), [t[chosen] for t in a])
            for p, a in zip(self.predictions, self.answers, strict=True)
        }
        predictions, answers = zip(*found.values(), strict=True)
        return replace(self, predictions=predictions, answers=answers, neurons=len(chosen))

    def predict(self, encoding: Any) -> Prediction:
        return self.predictions[self.encodings.index(encoding)]

    def exact(self, prediction: Prediction, picked: np.ndarray) -> list[Terms]:
        number = next(i for i, p in enumerate(self.predictions) if p is prediction)
        return [terms[picked] for terms in self.answers[number]]


def record(predictor: Predictor, encodings: list[Any]) -> Recorded:
    everyone = np.arange(predictor.neurons)
    predictions, answers = [], []
    started = time.perf_counter()
    for number, encoding in enumerate(encodings):
        found = predictor.predict(encoding)
        answers.append(predictor.exact(found, everyone))
        run = SimpleNamespace(base=SimpleNamespace(logits=found.run.base.logits))  # all that sampling looks at
        predictions.append(replace(found, run=run, candidates=()))  # type: ignore[arg-type]
        if number % 50 == 49:
            print(f"  {number + 1} samples, {time.perf_counter() - started:.0f} s", flush=True)
    return Recorded(predictions, answers, predictor.offsets, predictor.neurons, list(encodings))


def simulate(recorded: Recorded, response: Response, tolerance: Tolerance, seeds: int) -> dict[str, Any]:
    truth = np.mean([[t.effect for t in terms] for terms in recorded.answers], axis=0)  # [J, N]
    columns, neurons = truth.shape
    covered = np.zeros(truth.shape)
    judged = np.zeros(truth.shape)
    error = np.zeros(truth.shape)
    square = np.zeros(truth.shape)
    taken = 0.0
    for seed in range(seeds):
        sweep = TwoPhaseSweep(
            recorded,
            recorded.encodings,
            columns,
            response,
            None,
            seed,
            None,
            Progress(False),  # type: ignore[arg-type]
        )
        est.run_rounds(sweep, est.Budget(tolerance, seed=seed), CI)
        off = est.corrected(sweep, 0) - truth
        found = sweep.design_error()
        sampled = found.se > 0
        judged += sampled
        covered += sampled & (np.abs(off) <= found.half_width(CI))
        error += off
        square += off**2
        taken += sweep.two.corrections.taken.sum()
    mean = error / seeds
    noise = np.sqrt(np.maximum(square / seeds - mean**2, 0) / max(seeds - 1, 1))
    live = noise > 1e-12 * np.abs(truth).max()
    largest = np.abs(truth) >= np.quantile(np.abs(truth), 0.99, axis=1, keepdims=True)
    standard = np.where(live, mean / np.where(live, noise, 1), np.nan)

    def share(where: np.ndarray) -> float:
        return float(covered[where].sum() / max(judged[where].sum(), 1))

    return {
        "coverage": share(np.ones_like(largest)),
        "coverage_top_1_percent": share(largest),
        "bias_rms_in_its_noise": float(np.sqrt(np.nanmean(standard**2))),
        "bias_mean_in_its_noise": float(np.nanmean(standard)),
        "pairs_a_neuron": taken / seeds / neurons,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=96, help="of every layer and module")
    parser.add_argument("--layers", type=int, nargs="*", default=[2, 4], help="0 to 5")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=200)
    args = parser.parse_args()
    clf = models.classifier("bundled")
    pairs = real_pairs(600 + args.pairs)
    values = pn.mean_activations(clf, pn.data.treatment_sets(pairs[:600], 20, 80))
    encodings = [clf.encode(pair) for pair in pairs[600:]]
    generator = np.random.default_rng(0)
    ids = [
        clf.shape.offset(*site) + generator.choice(clf.shape.width(site[1]), args.neurons, replace=False)
        for site in clf.shape.groups()
        if site[0] in args.layers
    ]
    sites = NeuronSet(clf.shape, np.concatenate(ids))
    engine = LinearEngine.create(ExactEngine.create(clf, choose_backend("cpu")))
    rows = []
    for kind in ("replace", "remove"):
        for name in ("probability", "odds"):
            response = Response(name, clf.target_index("entailment"))
            how = Intervention(kind)
            groups = make_groups(sites, values if how.needs_values else None)
            print(f"{kind}, {name}", flush=True)
            recorded = record(Predictor(engine, groups, "linear", how, response, ["inside"] * len(groups)), encodings)
            for value in (0.5, 0.1):
                found = simulate(recorded, response, Tolerance(value), args.seeds)
                rows.append({"intervention": kind, "response": name, "tolerance": value, **found})
                print(
                    "  "
                    + ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items())
                )
    save(
        "estimate_coverage",
        {"neurons": len(sites), "layers": args.layers, "pairs": args.pairs, "seeds": args.seeds, "rows": rows},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
