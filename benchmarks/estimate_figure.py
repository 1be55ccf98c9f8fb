"""Draws docs/estimate.png: an estimate against the exhaustive answer, on the bundled model.

OMP_NUM_THREADS=1 python benchmarks/estimate_figure.py [--pairs 100] [--neurons 12]
"""

from __future__ import annotations

import argparse

import models
import numpy as np
import torch
from harness import ROOT, real_pairs
from matplotlib.figure import Figure
from scipy import stats

import pyneuro as pn
from pyneuro.sites import NeuronSet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--neurons", type=int, default=12, help="of every layer and module")
    args = parser.parse_args()
    clf = models.classifier("bundled")
    pairs = real_pairs(600 + args.pairs)
    values = pn.mean_activations(clf, pn.data.treatment_sets(pairs[:600], 20, 80))
    generator = np.random.default_rng(0)
    ids = [
        clf.shape.offset(*site) + generator.choice(clf.shape.width(site[1]), args.neurons, replace=False)
        for site in clf.shape.groups()
    ]
    sites = NeuronSet(clf.shape, np.concatenate(ids))
    exact, linear, estimate = (
        pn.search(clf, pairs[600:], values, method=method, sites=sites, **more).frame()
        for method, more in (("exact", {}), ("linear", {"depth": "inside"}), ("estimate", {}))
    )
    live = exact["se"] > 0
    predicted = ((linear["nie"] - exact["nie"]).abs() / exact["se"])[live]
    corrected = ((estimate["nie"] - exact["nie"]).abs() / exact["se"])[live]
    sampled = estimate["design_se"] > 0
    pull = ((estimate["nie"] - exact["nie"]) / estimate["design_se"])[sampled]

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.logspace(-7, 1, 60)
    left.hist(predicted, bins, histtype="step", lw=2, color="#D55E00", label="predictions alone")
    left.hist(corrected, bins, histtype="step", lw=2, color="#0072B2", label="estimate, tolerance 0.5")
    left.axvline(0.5, color="#999999", lw=1)
    left.set(xscale="log", xlabel="error of the mean / its sampling error", ylabel="neurons × treatments")
    left.legend(frameon=False, loc="upper left")
    grid = np.linspace(-6, 6, 200)
    right.hist(pull.clip(-6, 6), 60, density=True, color="#0072B2", alpha=0.4, label="estimates")
    right.plot(grid, stats.t.pdf(grid, 6), color="#333333", lw=1.5, label="Student's t, 6 degrees of freedom")
    right.set(xlabel="error of the mean / design_se", ylabel="density")
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    inside = ((estimate["design_low"] <= exact["nie"]) & (exact["nie"] <= estimate["design_high"]))[sampled]
    figure.suptitle(
        f"{len(sites)} neurons of the bundled model, {args.pairs} pairs: 95 % intervals hold the exhaustive answer in "
        f"{inside.mean():.1%}",
        fontsize=10,
    )
    path = ROOT.parent / "docs" / "estimate.png"
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
