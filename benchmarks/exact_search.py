"""Exact search against what people do today: patched runs per second, both sides in one process, alternately.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/exact_search.py [--model bert-base] [--pairs 5]

Sides: the engine in fp32 and bf16; neurons-in-batch hooks, suffix-only hooks, vmap over a hooked forward (samples
unpadded), and the published loop (one neuron, a padded batch of samples: 32, and 4, about its
best). Every side takes the same share of every
(layer, module), so that patched runs a second stand for a search over all neurons; the slow sides take a smaller share.
Before anything is timed, effects are compared on common neurons. Replacement values are the site's own values of
another sample plus noise of a tenth of the site's spread: without the noise, layer 0's Q, K and V at [CLS] would be
replaced by themselves, and the engine would skip them.

A floor for the engine is its operations at the rate of torch.mm on the engine's own shapes; ``of_floor`` is that floor
over the measured time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import models
import numpy as np
import torch
from harness import matmul_rate, median, real_pairs, save

import pyneuro as pn
from pyneuro import ops
from pyneuro.baselines.hook_loop import HookLoop
from pyneuro.baselines.neurons_in_batch import NeuronsInBatch
from pyneuro.baselines.patching import Patching
from pyneuro.baselines.suffix_only import SuffixOnly
from pyneuro.baselines.vmap_hooks import VmapHooks
from pyneuro.effects import Response
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.plan import forward_flops, patch_flops
from pyneuro.models.weights import Encoding
from pyneuro.search.evaluator import Evaluator, Float
from pyneuro.search.exact import ExactEvaluator

BATCH = 32  # rows of a baseline's forward


class Share:
    """Every `step`-th neuron of every (layer, module), or of every so-manieth, with values from another sample."""

    def __init__(self, clf: pn.Classifier, donor: Encoding, step: int, every: int = 1) -> None:
        engine = ExactEngine.create(clf, choose_backend("reference", "fp32"))
        sites = engine.begin(donor)
        noise = np.random.default_rng(0)
        self.groups = []
        for layer, module in list(clf.shape.groups())[::every]:
            index = np.arange(step // 2, clf.shape.width(module), step)
            values = sites.layers[layer].sites[module, "linear"][0].numpy()
            z = values[index] + 0.1 * values.std() * noise.standard_normal(len(index))
            self.groups.append((layer, module, index, z[None]))
        self.n = sum(len(index) for _, _, index, _ in self.groups)

    def run(self, evaluator: Evaluator, encodings: list[Encoding]) -> tuple[Float, list[Float]]:
        state, logits = evaluator.begin(encodings)
        return logits, [evaluator.neurons(state, *group) for group in self.groups]


def effects(logits: Float, deltas: list[Float]) -> Float:
    response = Response("probability", 0)
    return np.concatenate([response.terms(logits[0], d[0, 0]).effect for d in deltas])


def validate(sides: dict[str, Evaluator], share: Share, encoding: Encoding) -> dict[str, float]:
    """Relative L2 distance of every side's effects to the first side's."""
    want = effects(*share.run(next(iter(sides.values())), [encoding]))
    found = {}
    for name, evaluator in sides.items():
        got = effects(*share.run(evaluator, [encoding]))
        found[name] = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        limit = 0.03 if "bf16" in name else 5e-3
        if not found[name] <= limit:
            raise SystemExit(f"{name} disagrees: relative L2 distance {found[name]:.1e}, at most {limit}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("bundled", "bert-base"), default="bundled")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clf = models.classifier(args.model)
    small = args.model == "bundled"
    encodings = [clf.encode(p) for p in real_pairs(args.pairs + 1)]
    donor, encodings = encodings[0], encodings[1:]
    wide, narrow = Share(clf, donor, 3 if small else 27), Share(clf, donor, 24 if small else 192)

    patching = Patching(clf, "linear", Intervention(), 0)
    sides: dict[str, Evaluator] = {}
    for precision in ("fp32", "bf16"):
        if precision == "fp32" or ops.native().bf16:
            engine = ExactEngine.create(clf, choose_backend("cpu", precision))
            sides[f"exact {precision}"] = ExactEvaluator(engine, "linear", Intervention())
    sides["neurons in batch"] = NeuronsInBatch(patching, BATCH)
    sides["suffix only"] = SuffixOnly(patching, BATCH)
    sides["vmap"] = VmapHooks(patching, BATCH)
    distances = validate(sides, narrow, encodings[0])
    print("effects agree, relative L2 distance:", {k: f"{v:.1e}" for k, v in distances.items()}, flush=True)

    # The published loop: its batch of samples against a few neurons.
    batch = [clf.encode(p) for p in real_pairs(BATCH, seed=1)]
    sample_of = Share(clf, donor, 192 if small else 768, 1 if small else 7)  # a full forward whatever the neuron
    loops = {f"published loop, {size} samples": HookLoop(patching, size) for size in (4, BATCH)}

    rates: dict[str, list[float]] = {name: [] for name in [*sides, *loops]}
    floors: list[float] = []
    for number, encoding in enumerate(encodings):
        tokens = len(encoding)
        for name, evaluator in sides.items():
            share = wide if name.startswith("exact") else narrow
            seconds = timed(lambda s=share, e=evaluator, x=encoding: s.run(e, [x]))
            rates[name].append(share.n / seconds)
            if name == "exact fp32":
                work = sum(patch_flops(clf.shape, tokens, layer, m) * len(i) for layer, m, i, _ in share.groups)
                floors.append(work / mm_rate(clf, tokens) / seconds)
        if number == 0 or small:
            for name, loop in loops.items():
                some = batch[: loop.samples_at_once]
                seconds = timed(lambda e=loop, x=some: sample_of.run(e, x))
                rates[name].append(sample_of.n * len(some) / seconds)
        print(f"{tokens:4d} tokens:", ", ".join(f"{k} {v[-1]:,.0f}/s" for k, v in rates.items()), flush=True)

    report(args.model, clf, encodings, rates, floors, distances)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def mm_rate(clf: pn.Classifier, tokens: int) -> float:
    """torch.mm on a dense layer's products for a chunk of candidates."""
    d, f = clf.shape.hidden, clf.shape.intermediate
    rows = 56 * tokens
    return matmul_rate([(rows, d, 3 * d), (rows, d, d), (rows, d, f), (rows, f, d)])


def report(
    model: str,
    clf: pn.Classifier,
    encodings: list[Encoding],
    rates: dict[str, list[float]],
    floors: list[float],
    distances: dict[str, float],
) -> None:
    tokens = [len(e) for e in encodings]
    shape = clf.shape
    share = [
        sum(patch_flops(shape, t, layer, m) * shape.width(m) for layer, m in shape.groups())
        / shape.n_neurons
        / forward_flops(shape, t)
        for t in tokens
    ]
    ratios: dict[str, dict[str, float]] = {}
    for exact in [name for name in rates if name.startswith("exact")]:
        ratios[exact] = {
            other: median([a / b for a, b in zip(rates[exact], rates[other], strict=False)])
            for other in rates
            if not other.startswith("exact")
        }
        print(exact, "over", ", ".join(f"{other}: {ratio:.2f}x" for other, ratio in ratios[exact].items()))
    print(
        f"operations: {median(share):.3f} of a full forward a neuron; floor at torch.mm's rate: the engine takes "
        f"{1 / median(floors):.2f} of it (fraction reached: {median(floors):.2f})"
    )
    save(
        f"exact_search_{model}",
        {
            "model": clf.name,
            "shape": vars(shape),
            "tokens": tokens,
            "patched_runs_per_second": {k: {"median": median(v), "all": v} for k, v in rates.items()},
            "ratios": ratios,
            "operations_of_a_full_forward": median(share),
            "of_floor": {"median": median(floors), "all": floors},
            "relative_l2_distance_to_exact_fp32": distances,
            "rows_of_a_baseline_forward": BATCH,
        },
    )


if __name__ == "__main__":
    main()
