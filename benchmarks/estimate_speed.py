"""Time and error of estimates, against an exhaustive search by hooks and the exhaustive answer.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/estimate_speed.py [--pairs 2000] [--truth 1]

Every neuron of the bundled model, two treatments. Exhaustive hooks (neurons in the batch, full forward) and the exact
engine are measured on a part, before and after the rest, and extrapolated. The error is that of the means against the
exact engine's on some random neurons of every (layer, module), in units of the sampling error of the mean, which no
search escapes: root mean square, and the largest.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import models
import numpy as np
import pandas as pd
import torch
from harness import real_pairs, save

import pyneuro as pn
from pyneuro.sites import NeuronSet

PART = 16  # neurons of a (layer, module), for the rates
PART_PAIRS = 3


def rate(run: Any) -> float:
    """Patched runs per second."""
    started = time.perf_counter()
    result = run()
    return float(result.manifest["run"]["patched_runs"]) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--truth", type=int, default=1, help="neurons of every (layer, module) searched exhaustively")
    args = parser.parse_args()
    clf = models.classifier("bundled")
    values = pn.mean_activations(clf, pn.data.treatment_sets(real_pairs(1000, corpus="mnli_train"), 20, 80))
    pairs = real_pairs(args.pairs)
    generator = np.random.default_rng(0)

    def some(n: int) -> NeuronSet:
        sites = [s for s in clf.shape.groups()]
        ids = [clf.shape.offset(*s) + generator.choice(clf.shape.width(s[1]), n, replace=False) for s in sites]
        return NeuronSet(clf.shape, np.concatenate(ids))

    by_length = sorted(pairs, key=lambda pair: len(clf.encode(pair)))
    typical = [by_length[int(len(by_length) * q)] for q in np.linspace(0.2, 0.8, PART_PAIRS)]
    part = some(PART)
    sides = {
        "neurons in batch, hooks": lambda: pn.baselines.neurons_in_batch(clf, typical, values, sites=part),
        "exact": lambda: pn.search(clf, typical, values, sites=part),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}

    def measure() -> None:
        for name, side in sides.items():
            rates[name].append(rate(side))

    measure()
    rows = []
    tables: dict[str, pd.DataFrame] = {}
    ways: dict[str, dict[str, Any]] = {
        "linear, inside": {"method": "linear", "depth": "inside"},
        "estimate, tolerance 1": {"method": "estimate", "tolerance": 1.0},
    }
    for name, how in ways.items():
        started = time.perf_counter()
        result = pn.search(clf, pairs, values, **how)
        rows.append({"method": name, "seconds": time.perf_counter() - started, "run": result.manifest["run"]})
        tables[name] = result.frame()
        print(f"{name}: {rows[-1]['seconds']:.0f} s", flush=True)
    started = time.perf_counter()
    result = pn.screens.attribution_patching(clf, pairs, values)
    rows.append({"method": "attribution patching", "seconds": time.perf_counter() - started})
    tables["attribution patching"] = result.frame()
    measure()
    truth = pn.search(clf, pairs, values, sites=some(args.truth)).frame().set_index(["treatment", "site"])

    runs = clf.shape.n_neurons * len(pairs) * len(values.treatments)
    exhaustive = {name: runs / float(np.mean(found)) for name, found in rates.items()}
    live = truth["se"] > 0
    for row in rows:
        found = tables[row["method"]].set_index(["treatment", "site"]).loc[truth.index]
        off = ((found["nie"] - truth["nie"]) / truth["se"])[live]
        row["error_rms"], row["error_max"] = float(np.sqrt((off**2).mean())), float(off.abs().max())
        row["ratio"] = exhaustive["neurons in batch, hooks"] / row["seconds"]
    for name, seconds in exhaustive.items():
        print(f"{name}: {rates[name][0]:.0f} and {rates[name][1]:.0f} patched runs/s, all {runs:,}: {seconds:,.0f} s")
    for row in rows:
        print(
            f"{row['method']}: {row['seconds']:.0f} s, {row['ratio']:,.0f} times faster than exhaustive hooks; error "
            f"{row['error_rms']:.3f} of the sampling error (rms), {row['error_max']:.3f} at most"
        )
    save(
        "estimate_speed",
        {"pairs": len(pairs), "truth_neurons": len(truth) // 2, "rates": rates, "exhaustive": exhaustive, "rows": rows},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
