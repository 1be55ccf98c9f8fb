"""Peak memory of a search under a budget, by the kernel's high-water mark, beside the model and its packed weights.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--model bundled|bert-base]

Every budget runs in a process of its own. A part of the neurons is searched on one pair of a given length: the peak
depends on neither their number nor the samples'.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

MIB = 1 << 20


def high_water() -> int:
    """Peak resident bytes since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def measure(model: str, budget: int, tokens: int) -> dict[str, float]:
    import models
    import torch
    from harness import real_pairs

    from pyneuro.engine.backend import choose_backend
    from pyneuro.engine.exact import ExactEngine
    from pyneuro.engine.intervention import Intervention
    from pyneuro.engine.plan import Memory

    clf = models.classifier(model)
    engine = ExactEngine.create(clf, choose_backend("cpu"), Memory(budget))
    pairs = real_pairs(200)
    encoding = models.lengthened(clf.encode(max(pairs, key=lambda p: len(p.premise))), tokens)
    index = torch.arange(256)
    Path("/proc/self/clear_refs").write_text("5")  # start the high-water mark anew
    before = high_water()
    base = engine.begin(encoding)
    for layer, module in ((0, "AO"), (0, "K"), (1, "V"), (clf.shape.layers - 2, "I")):
        engine.delta_logits(base, layer, module, index, None, intervention=Intervention("remove"))
    return {"tokens": len(encoding), "budget_mib": budget / MIB, "peak_mib": (high_water() - before) / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("bundled", "bert-base"), nargs="*", default=["bundled", "bert-base"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        model, budget, tokens = args.one
        print(json.dumps(measure(model, int(budget), int(tokens))))
        return

    from harness import save

    rows = []
    for model in args.model:
        for budget in (512 * MIB, 2048 * MIB):
            for tokens in (64, 128):
                command = [sys.executable, __file__, "--one", model, str(budget), str(tokens)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                row = {"model": model, **json.loads(out.splitlines()[-1])}
                row["peak_over_budget"] = row["peak_mib"] / row["budget_mib"]
                rows.append(row)
                print(
                    f"{model}, {row['tokens']} tokens: peak {row['peak_mib']:.0f} MiB of a budget of "
                    f"{row['budget_mib']:.0f} MiB, ratio {row['peak_over_budget']:.2f}",
                    flush=True,
                )
    save("memory", {"rows": rows})


if __name__ == "__main__":
    main()
