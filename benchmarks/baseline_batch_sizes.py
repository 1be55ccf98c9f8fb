"""The best batch size of every baseline on this machine, which is what the others are compared with.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/baseline_batch_sizes.py [--model bundled|bert-base]

Milliseconds a patched run: 64 candidates of a middle layer's query on one sample of median length (neurons_in_batch,
suffix_only, vmap_hooks); one neuron over 32 padded samples (hook_loop). Attribution patching: milliseconds a sample,
over 16. Base runs are left out of the row methods, as a search over all neurons spreads them thin. Medians over rounds
in which the sizes take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import models
import numpy as np
from harness import interleaved, median, real_pairs, save

from pyneuro.baselines.hook_loop import HookLoop
from pyneuro.baselines.neurons_in_batch import NeuronsInBatch
from pyneuro.baselines.patching import Patching
from pyneuro.baselines.suffix_only import SuffixOnly
from pyneuro.baselines.vmap_hooks import VmapHooks
from pyneuro.engine.intervention import Intervention
from pyneuro.models.weights import Encoding
from pyneuro.screens.attribution_patching import AttributionPatching
from pyneuro.search.evaluator import Evaluator

SIZES = (1, 4, 8, 16, 32, 64)
CANDIDATES = 64
ROWS = (NeuronsInBatch, SuffixOnly, VmapHooks)


def blocks(evaluator: Evaluator, encodings: Sequence[Encoding], size: int) -> list[object]:
    return [evaluator.begin(encodings[start : start + size])[0] for start in range(0, len(encodings), size)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("bundled", "bert-base"), default="bundled")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    clf = models.classifier(arguments.model)
    encodings = [clf.encode(pair) for pair in real_pairs(32)]
    middle = sorted(encodings, key=len)[len(encodings) // 2]
    layer, index = clf.shape.layers // 2, np.arange(CANDIDATES)
    z = np.zeros((1, CANDIDATES))
    patching = Patching(clf, "linear", Intervention("replace"), 0)

    def rows(kind: Callable[[Patching, int], Evaluator], size: int) -> Callable[[], object]:
        evaluator = kind(patching, size)
        state, _ = evaluator.begin([middle])
        return lambda: evaluator.neurons(state, layer, "Q", index, z)

    def loop(size: int) -> Callable[[], object]:
        evaluator = HookLoop(patching, size)
        states = blocks(evaluator, encodings, size)
        return lambda: [evaluator.neurons(state, layer, "Q", index[:1], z[:, :1]) for state in states]

    def attribution(size: int) -> Callable[[], object]:
        removing = Patching(clf, "linear", Intervention("remove"), 0)
        evaluator = AttributionPatching(removing, size, tuple(clf.shape.groups()), None)
        return lambda: blocks(evaluator, encodings[:16], size)

    sides = {
        **{kind.__name__: ({s: rows(kind, s) for s in SIZES}, CANDIDATES) for kind in ROWS},
        "HookLoop": ({s: loop(s) for s in SIZES if s <= 32}, len(encodings)),
        "AttributionPatching": ({s: attribution(s) for s in SIZES if s <= 16}, 16),
    }
    found = {}
    for name, (sizes, runs) in sides.items():
        seconds = interleaved({str(size): run for size, run in sizes.items()}, arguments.rounds)
        found[name] = {size: round(1e3 * median(times) / runs, 3) for size, times in seconds.items()}
        print(f"{name:22}", "  ".join(f"{size}: {ms:.2f} ms" for size, ms in found[name].items()), flush=True)
    save(
        f"baseline_batch_sizes_{arguments.model}",
        {"model": clf.name, "tokens": len(middle), "layer": layer, "milliseconds_by_batch_size": found},
    )


if __name__ == "__main__":
    main()
