"""How exact the exact engine is, relative to the effect: against forward hooks on a float64 copy of the model.

    OMP_NUM_THREADS=1 python benchmarks/exactness.py [--pairs 8] [--neurons 64]

Real pairs, random neurons of every (layer, module), both conventions, all interventions; replacement values are
standard normal draws times 0.5. Also reported: plain fp32 hooks, which is what a search by hooks would give.
"""

from __future__ import annotations

import argparse
import copy
import time

import models
import numpy as np
import torch
from harness import real_pairs, save

import pyneuro as pn
from pyneuro import ops
from pyneuro.baselines.patching import Patching
from pyneuro.baselines.suffix_only import SuffixOnly
from pyneuro.effects import Response
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import KINDS, Intervention
from pyneuro.search.evaluator import Float
from pyneuro.search.exact import ExactEvaluator
from pyneuro.sites import CONVENTIONS

SMALLEST = 1e-6  # effects below this are not judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--neurons", type=int, default=64)
    args = parser.parse_args()
    clf = models.classifier("bundled")
    wide = pn.wrap(copy.deepcopy(clf.model).double(), clf.tokenizer, name="float64")
    engines = {"fp32": ExactEngine.create(clf, choose_backend("cpu", "fp32"))}
    if ops.native().bf16:
        engines["bf16"] = ExactEngine.create(clf, choose_backend("cpu", "bf16"))
    response = Response("probability", clf.target_index("entailment"))
    generator = np.random.default_rng(0)
    errors: dict[str, list[Float]] = {name: [] for name in [*engines, "fp32 hooks"]}
    square: dict[tuple[int, str], np.ndarray] = {}  # bf16 error and effect, summed squares by (layer, module)
    started = time.perf_counter()
    for number, pair in enumerate(real_pairs(args.pairs)):
        encoding = clf.encode(pair)
        for convention in CONVENTIONS:
            for kind in KINDS:
                how = Intervention(kind, 0.9 if kind == "weaken" else None)
                sides = {name: ExactEvaluator(e, convention, how) for name, e in engines.items()}
                sides["fp32 hooks"] = SuffixOnly(Patching(clf, convention, how, 0), 32)
                oracle = SuffixOnly(Patching(wide, convention, how, 0), 32)
                states = {name: side.begin([encoding]) for name, side in [*sides.items(), ("oracle", oracle)]}
                for layer, module in clf.shape.groups():
                    index = generator.choice(clf.shape.width(module), args.neurons, replace=False)
                    z = generator.standard_normal((1, args.neurons)) * 0.5 if how.needs_values else None

                    def effect(name: str, side: object, site=(layer, module, index, z), states=states) -> Float:
                        state, logits = states[name]
                        return response.terms(logits[0], side.neurons(state, *site)[0, 0]).effect

                    want = effect("oracle", oracle)
                    judged = np.abs(want) >= SMALLEST
                    for name, side in sides.items():
                        off = effect(name, side) - want
                        errors[name].append(np.abs(off[judged]) / np.abs(want[judged]))
                        if name == "bf16":
                            square.setdefault((layer, module), np.zeros(2))[:] += (off @ off, want @ want)
        print(f"pair {number + 1} of {args.pairs}, {time.perf_counter() - started:.0f} s", flush=True)

    summary = {}
    for name, parts in errors.items():
        found = np.concatenate(parts)
        summary[name] = {"effects": len(found), "median": float(np.median(found)), "worst": float(found.max())}
        print(f"{name}: {len(found):,} effects, relative error median {np.median(found):.1e}, worst {found.max():.1e}")
    l2 = {f"L{layer}.{module}": float(np.sqrt(e / w)) for (layer, module), (e, w) in square.items()}
    if l2:
        print(f"bf16, relative L2 by (layer, module): worst {max(l2.values()):.2%}")
    save("exactness", {"pairs": args.pairs, "neurons": args.neurons, "relative_error": summary, "bf16_l2": l2})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
