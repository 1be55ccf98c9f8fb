"""What ``gpu_check.py`` measures. torch and pyneuro are imported where they are used: a stage may yet build pyneuro."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyneuro.data import Pairs
    from pyneuro.models import Classifier

ROOT = Path(__file__).resolve().parents[1]
REPEATED = 8  # texts, each of which comes again as another sample


def seconds(run: Callable[[], object], rounds: int = 10) -> float:
    """Median of device times."""
    import torch

    run()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def ceilings(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    found: dict[str, Any] = {"copy_bytes_per_second": 2 * source.nbytes / seconds(lambda: target.copy_(source))}
    rows = 1 << 17
    shapes = {
        "square": (8192, 8192, 8192),
        "qkv": (rows, 768, 2304),
        "ao": (rows, 768, 768),
        "i": (rows, 768, 3072),
        "o": (rows, 3072, 768),
    }
    for dtype in (torch.float16, torch.float32):
        for name, (m, k, n) in shapes.items():
            a, b = torch.randn(m, k, device="cuda").to(dtype), torch.randn(n, k, device="cuda").to(dtype)
            found[f"{name}_{str(dtype)[6:]}_flops"] = 2.0 * m * n * k / seconds(partial(torch.mm, a, b.T))
    for name, value in found.items():
        print(f"{name:32} {value / 1e12:8.2f} T/s")
    return found


def kernels(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from gpu_kernels import kernel_calls

    bandwidth = ceilings_of(args).get("copy_bytes_per_second", 3.0e12)
    candidates = (1 << 17) // args.tokens
    found: dict[str, Any] = {"tokens": args.tokens, "candidates": candidates}
    for dtype in (torch.float16, torch.float32):
        for name, (run, moved) in kernel_calls(args.tokens, candidates, dtype).items():
            took = seconds(run)
            share = moved / bandwidth / took
            found[f"{name}_{str(dtype)[6:]}"] = {"milliseconds": took * 1e3, "bytes": moved, "of_bandwidth": share}
            print(f"{name:28} {str(dtype)[6:]:8} {took * 1e3:8.3f} ms, {share:5.2f} of the copy's bandwidth")
    return found


def ceilings_of(args: argparse.Namespace) -> dict[str, Any]:
    path = result_path(args)
    found: dict[str, Any] = json.loads(path.read_text()).get("ceilings", {}) if path.exists() else {}
    return found


def errors(clf: Any, encodings: list[Any], backends: dict[str, Any], per_site: int) -> dict[str, Any]:
    """Relative L2 error of the changes of the log-ratios, per (layer, module), against float64."""
    import torch

    from pyneuro.engine.backend import Backend
    from pyneuro.engine.exact import ExactEngine

    device = torch.device("cuda", 0)
    truth = ExactEngine.create(clf, Backend("reference", "float64", device))
    engines = {name: ExactEngine.create(clf, backend) for name, backend in backends.items()}
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {name: {} for name in engines}
    picks = {
        site: torch.randperm(clf.shape.width(site[1]), generator=generator)[:per_site] for site in clf.shape.groups()
    }
    squares: dict[tuple[str, Any], list[float]] = {}
    for encoding in encodings:
        want_base = truth.begin(encoding)
        bases = {name: engine.begin(encoding) for name, engine in engines.items()}
        for site, index in picks.items():
            z = torch.randn(len(index), generator=generator, dtype=torch.float64) * 0.5
            want = truth.delta_logits(want_base, *site, index, z)
            want = want - want[:, :1]
            for name, engine in engines.items():
                got = engine.delta_logits(bases[name], *site, index, z)
                sums = squares.setdefault((name, site), [0.0, 0.0])
                sums[0] += float((got - got[:, :1] - want).square().sum())
                sums[1] += float(want.square().sum())
    for (name, (layer, module)), (error, size) in squares.items():
        found[name][f"L{layer}.{module}"] = (error / size) ** 0.5
    return {
        name: {"worst": max(each.values()), "median": statistics.median(each.values()), "sites": each}
        for name, each in found.items()
    }


def accuracy(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from harness import real_pairs
    from models import classifier

    from pyneuro.engine.backend import Backend

    device = torch.device("cuda", 0)
    backends = {precision: Backend("cuda", precision, device) for precision in ("fp32", "fp16")}
    found: dict[str, Any] = {}
    for model, pairs, per_site in (("bundled", 4, 16), ("bert-base", 1, 8)):
        clf = classifier(model)
        found[model] = errors(clf, [clf.encode(pair) for pair in real_pairs(pairs)], backends, per_site)
        for name, each in found[model].items():
            worst, middle = each["worst"], each["median"]
            print(f"{model:10} {name}: error of a site's log-ratios {worst:.1e} at worst, {middle:.1e} at the median")
    return found


def search(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch
    from exact_search import Share, effects
    from harness import real_pairs
    from models import classifier, lengthened

    import pyneuro as pn
    from pyneuro.baselines.neurons_in_batch import NeuronsInBatch
    from pyneuro.baselines.patching import Patching
    from pyneuro.engine.backend import Backend
    from pyneuro.engine.exact import ExactEngine
    from pyneuro.engine.intervention import Intervention
    from pyneuro.engine.plan import patch_flops
    from pyneuro.search.evaluator import Launcher
    from pyneuro.search.exact import ExactEvaluator

    device = torch.device("cuda", 0)
    clf = classifier("bert-base")
    donor, sample = (lengthened(clf.encode(pair), args.tokens) for pair in real_pairs(2))
    # Every neuron; all neurons of six groups, one of each module, for sides whose cost does not depend on the layer.
    every, some = Share(clf, donor, 1), Share(clf, donor, 1, 13)
    few = Share(clf, donor, 64)
    groups = list(clf.shape.groups())
    flops = sum(patch_flops(clf.shape, args.tokens, *site) * clf.shape.width(site[1]) for site in groups)
    truth = ExactEvaluator(ExactEngine.create(clf, Backend("reference", "float64", device)), "linear", Intervention())
    want = effects(*few.run(truth, [sample]))
    del truth
    found: dict[str, Any] = {"tokens": args.tokens, "neurons": every.n, "flops_per_sample": flops, "sides": {}}

    def sweep(evaluator: Any, share: Any) -> None:
        """All of a share, launched ahead as the search does where the evaluator can."""
        if not isinstance(evaluator, Launcher):
            share.run(evaluator, [sample])
            return
        state, _ = evaluator.begin([sample])
        layers = groupby(share.groups, key=lambda group: group[0])
        for results in [evaluator.launch(state, list(groups)) for _, groups in layers]:
            results()

    def measure(name: str, evaluator: Any, share: Any, rounds: int) -> float:
        got = effects(*few.run(evaluator, [sample]))
        error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
        sweep(evaluator, share)
        times = []
        for _ in range(rounds):
            torch.cuda.synchronize()
            started = time.perf_counter()
            sweep(evaluator, share)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        took = statistics.median(times) / share.n
        side = {"patched_runs_per_second": 1 / took, "effect_error": error, "neurons": share.n, "seconds": times}
        found["sides"][name] = side
        minutes = 2000 * every.n * took / 60
        print(
            f"{name:14} {1 / took:10.0f} patched runs/s, effect error {error:.1e}, 2,000 samples in {minutes:.1f} min"
        )
        return took

    for precision, rounds in (("fp16", 3), ("fp32", 1)):
        evaluator = ExactEvaluator(
            ExactEngine.create(clf, Backend("cuda", precision, device)), "linear", Intervention()
        )
        took = measure(f"exact {precision}", evaluator, every, rounds)
        found["sides"][f"exact {precision}"]["flops_per_second"] = flops / every.n / took
        print(f"{'':14} {flops / every.n / took / 1e12:10.1f} TFLOP/s of the engine's own operations")
        found[f"profile {precision}"] = profile(partial(sweep, evaluator, every))
        del evaluator
    pairs = real_pairs(args.search_pairs)
    lengths = [len(clf.encode(pair)) for pair in pairs]
    started = time.perf_counter()
    pn.search(clf, pairs, intervention="remove", backend="cuda", precision="fp16", progress=False)
    took = (time.perf_counter() - started) / len(pairs)
    found["search fp16"] = {"pairs": len(pairs), "mean_tokens": statistics.mean(lengths), "seconds_per_pair": took}
    print(f"pyneuro.search fp16: {took:.3f} s a pair for all neurons, {statistics.mean(lengths):.0f} tokens")

    hooked = pn.wrap(clf.model.cuda(), clf.tokenizer, name="bert-base-random")
    for name, dtype, tf32 in (
        ("hooks fp32", torch.float32, False),
        ("hooks TF32", torch.float32, True),
        ("hooks bf16", torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        hooked.model.to(dtype)
        measure(name, NeuronsInBatch(Patching(hooked, "linear", Intervention(), 0), args.batch), some, 1)
        ratio = (
            found["sides"]["exact fp16"]["patched_runs_per_second"] / found["sides"][name]["patched_runs_per_second"]
        )
        found["sides"][name]["ratio"] = ratio
        print(f"exact fp16 / {name}: {ratio:.1f}x", flush=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def profile(run: Callable[[], object]) -> dict[str, Any]:
    """Where the device's time goes in one sweep."""
    import torch
    from torch.profiler import ProfilerActivity

    started = time.perf_counter()
    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as trace:
        run()
        torch.cuda.synchronize()
    wall = time.perf_counter() - started
    events = sorted(trace.key_averages(), key=lambda e: -e.self_device_time_total)
    busy = sum(e.self_device_time_total for e in events) / 1e6
    print(f"one sweep under the profiler: {wall:.3f} s, device busy {busy:.3f} s")
    for e in events[:16]:
        print(f"  {e.self_device_time_total / 1e3:9.2f} ms {e.count:6} x {e.key[:90]}")
    kernels = {e.key[:120]: {"milliseconds": e.self_device_time_total / 1e3, "calls": e.count} for e in events[:24]}
    return {"wall": wall, "busy": busy, "kernels": kernels}


def estimate(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from harness import real_pairs
    from models import classifier

    import pyneuro as pn

    clf = classifier("bert-base")
    pairs = real_pairs(args.pairs)
    few = len(pairs) // 4
    found: dict[str, Any] = {"pairs": len(pairs)}
    for method, options in (("linear", {}), ("estimate", {"tolerance": 1.0})):
        took = {}
        for number in (few, few, len(pairs)):  # the first also waits for what the process does once
            started = time.perf_counter()
            pn.search(
                clf, pairs[:number], method=method, intervention="remove", backend="cuda", progress=False, **options
            )
            torch.cuda.synchronize()
            took[number] = time.perf_counter() - started
        each = (took[len(pairs)] - took[few]) / (len(pairs) - few)
        found[method] = {"seconds": took[len(pairs)], "seconds_per_pair": each}
        print(f"{method} method, {len(pairs)} pairs: {took[len(pairs)]:.1f} s, {each:.4f} s a pair more", flush=True)
    found["recorded"] = recorded(clf, pairs)
    return found


def recorded(clf: Classifier, pairs: Pairs) -> dict[str, Any]:
    """Samples of a length launched as one CUDA graph, or operation by operation: seconds a pair, from two numbers of
    samples, alternately; means of two. Predictions of every neuron, and exact effects of a few."""
    import torch

    import pyneuro as pn
    from pyneuro.engine import recording

    texts, worth = list(pairs)[:REPEATED], recording.WORTH
    searches: dict[str, dict[str, Any]] = {
        "predictions": {"method": "linear", "depth": "inside"},
        "few neurons": {"method": "exact", "sites": ["L*.*.0", "L*.*.1"]},
    }
    found: dict[str, Any] = {}
    for name, options in searches.items():
        took: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(2):
            for as_graphs, seconds in took.items():
                recording.WORTH = worth if as_graphs else sys.maxsize
                spent = []
                for rounds in (12, 36):  # each long enough that its lengths are recorded
                    samples = [replace(pair, id=f"{pair.id}-{n}") for n in range(rounds) for pair in texts]
                    started = time.perf_counter()
                    pn.search(clf, samples, intervention="remove", backend="cuda", progress=False, **options)
                    torch.cuda.synchronize()
                    spent.append(time.perf_counter() - started)
                seconds.append((spent[1] - spent[0]) / (24 * len(texts)))
        graphs, plain = (statistics.mean(took[as_graphs]) for as_graphs in (True, False))
        found[name] = {"seconds_per_pair": graphs, "seconds_per_pair_without": plain, "ratio": plain / graphs}
        print(f"{name}: {graphs:.4f} s a pair as graphs, {plain:.4f} s without: ratio {plain / graphs:.2f}", flush=True)
    recording.WORTH = worth
    return found


def masked(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from masked_linear import both, case, chain, fused

    found: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float32):
        for inner, out in ((768, 768), (768, 3072), (3072, 768)):
            for rows in (512, 4096, 32768):
                inputs = [x.detach().cuda().requires_grad_(x.requires_grad) for x in case(rows, inner, out, dtype)]
                sides = {side.__name__: seconds(partial(both, side, *inputs)) for side in (chain, fused)}
                name = f"{rows} x {inner} -> {out}, {str(dtype)[6:]}"
                found[name] = {**sides, "ratio": sides["chain"] / sides["fused"]}
                print(f"{name:32} chain / fused {found[name]['ratio']:.2f}")
    return found


def result_path(args: argparse.Namespace) -> Path:
    import torch

    name = "".join(c if c.isalnum() else "-" for c in torch.cuda.get_device_name().lower()).strip("-")
    return Path(args.out) / f"{name}.json"
