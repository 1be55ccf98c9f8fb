"""Whether a second level would make estimates cheaper: exact up to a later layer for many pairs, all the way for few.

    OMP_NUM_THREADS=1 python benchmarks/estimate_levels.py [--neurons 48] [--pairs 16]

With x predicted inside the patched layer, x_t by an adjoint that takes over t layers on, and y exact, one level costs
V(y − x) C. Two levels at their best split (Giles 2008) cost (√(V(x_t − x) C_t) + √(V(y − x_t) C))². Reported for every
module of the lower layers: the median over neurons of the ratio, with mean squares for V and operations for C.
"""

from __future__ import annotations

import argparse
from typing import Any

import models
import numpy as np
import torch
from harness import real_pairs, save

import pyneuro as pn
from pyneuro.effects import Response
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import Depth, LinearEngine
from pyneuro.engine.plan import patch_flops
from pyneuro.search.targets import make_groups
from pyneuro.sites import NeuronSet

DEPTHS: tuple[Depth, ...] = ("inside", 0, 1, 2)
TOKENS = 40  # of a typical pair, for the operations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=48, help="of every layer and module")
    parser.add_argument("--pairs", type=int, default=16)
    args = parser.parse_args()
    clf = models.classifier("bundled")
    shape, pairs = clf.shape, real_pairs(300 + args.pairs)
    values = pn.mean_activations(clf, pn.data.treatment_sets(pairs[:300], 20, 80))
    engine = LinearEngine.create(ExactEngine.create(clf, choose_backend("cpu")))
    response = Response("probability", clf.target_index("entailment"))
    generator = np.random.default_rng(0)
    sites = [site for site in shape.groups() if site[0] < shape.layers - 2]
    ids = [shape.offset(*s) + generator.choice(shape.width(s[1]), args.neurons, replace=False) for s in sites]
    groups = make_groups(NeuronSet(shape, np.concatenate(ids)), values)
    found: dict[tuple[int, str], list[list[np.ndarray]]] = {site: [] for site in sites}
    for pair in pairs[300:]:
        run = engine.begin(clf.encode(pair))
        logits = run.base.logits.numpy()
        for group in groups:
            z = torch.from_numpy(np.ascontiguousarray(group.z[0]))
            index = torch.from_numpy(group.index)
            c = engine.exact.candidates(run.base, group.layer, group.module, index, z, "linear", Intervention())
            deltas = [engine.delta_logits(run, c, "linear", depth) for depth in DEPTHS]
            deltas.append(engine.exact.patched(run.base, c, "linear"))
            found[group.layer, group.module].append([response.terms(logits, d.numpy()).effect for d in deltas])
    rows: list[dict[str, Any]] = []
    for (layer, module), effects in found.items():
        inside, *levels, exact = np.moveaxis(np.array(effects), 1, 0)  # [samples, neurons] each
        one = np.square(exact - inside).mean(0)
        live = one > 0
        if not live.any():  # nothing is left out, as of Q, K and V at a token that never differs
            continue
        whole = patch_flops(shape, TOKENS, layer, module)
        for depth, reached in enumerate(levels):
            if layer + depth >= shape.layers - 1:
                continue
            cost = max(1 - patch_flops(shape, TOKENS, layer + depth + 1, "K") / whole, 0.02)
            first, rest = np.square(reached - inside).mean(0), np.square(exact - reached).mean(0)
            ratio = np.square(np.sqrt(first * cost) + np.sqrt(rest))[live] / one[live]
            row = {"layer": layer, "module": module, "depth": depth, "cost": cost}
            rows.append({**row, "left": float(np.median(rest[live] / one[live])), "ratio": float(np.median(ratio))})
            print(
                f"L{layer}.{module}, {depth} layers on: {cost:.2f} of the cost, {rows[-1]['left']:.3f} of the variance "
                f"left, two levels over one {rows[-1]['ratio']:.2f}",
                flush=True,
            )
    save("estimate_levels", {"neurons": args.neurons, "pairs": args.pairs, "rows": rows})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
