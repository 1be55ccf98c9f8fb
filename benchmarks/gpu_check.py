"""Everything a machine with a GPU can say about the device kernels, in stages that run apart:

    python benchmarks/gpu_check.py [--stages build tests ...] [--cutlass DIR] [--tokens 40]

build      the native modules, in place, for this machine's architecture
tests      the tests of the device kernels and of the engine on them, on the device
sanitizer  the same kernels under compute-sanitizer memcheck and racecheck, at small sizes
ceilings   copy bandwidth and the rate of products, at their best and at the engine's shapes
kernels    every kernel at BERT-base's shapes against the bytes it must move
accuracy   effects of the bundled model in fp32 and fp16 against float64
search     all neurons of BERT-base's shape exactly, against neurons-in-batch hooks in fp32, TF32 and bf16
estimate   predictions and the estimating search on the same model: seconds a pair, from two numbers of pairs
masked     masked linear layers, forward and backward, against the chain of PyTorch operations

Needs no network. Results go to benchmarks/results/<gpu>.json, a stage's replacing what an earlier run of it left there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpu_measure

ROOT = gpu_measure.ROOT
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
BUILD = ROOT / "build" / "gpu-check"


def build(args: argparse.Namespace) -> dict[str, Any]:
    import pybind11
    import torch

    major, minor = torch.cuda.get_device_capability()
    started = time.perf_counter()
    configure = [
        "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=Release", "-DPN_CUDA=on",
        f"-DPN_CUDA_ARCHITECTURES={major}{minor}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DCMAKE_INSTALL_PREFIX={ROOT}",
        f"-DPN_CUTLASS={Path(args.cutlass).resolve() if args.cutlass else ''}",
    ]  # fmt: skip
    for command in (configure, ["cmake", "--build", str(BUILD)], ["cmake", "--install", str(BUILD)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-3000:])
            raise SystemExit(f"failed: {' '.join(command)}")
    return {"seconds": time.perf_counter() - started}


def tests(args: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        "cuda",
        "tests/ops/test_device_operations.py",
        "tests/ops/test_adjoint_entry.py",
        "tests/effects/test_on_device.py",
        "tests/engine/test_device_engine.py",
        "tests/engine/test_recording.py",
        "tests/search/test_device_search.py",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout[-2500:], done.stderr[-1500:])
    return {
        "passed": done.returncode == 0,
        "summary": done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "",
    }


def sanitizer(args: argparse.Namespace) -> dict[str, Any]:
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not Path(tool).exists():
        return {"skipped": "compute-sanitizer is not on this machine"}
    found = {}
    for name in ("memcheck", "racecheck"):
        command = [tool, "--tool", name, "--error-exitcode", "9", sys.executable, __file__, "--every-kernel"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        tail = (done.stdout + done.stderr).strip().splitlines()
        found[name] = {"clean": done.returncode == 0, "last": tail[-1] if tail else ""}
        if done.returncode:
            print("\n".join(tail[-30:]))
    return found


def every_kernel() -> None:
    """Small calls of everything, for the sanitizer."""
    import torch

    from pyneuro import ops
    from tests.device import Device
    from tests.effects.test_on_device import test_the_same_as_on_the_host as count_effects
    from tests.ops import test_adjoint_entry as adjoint
    from tests.ops.cases import arguments, to32
    from tests.ops.test_device_operations import IN_UNITS, in_units

    device = Device("cuda")
    for shape in [(7, 5, 24, 3, 40), (33, 3, 66, 3, 31), (40, 9, 128, 2, 256), (97, 3, 64, 2, 64)]:
        unit = torch.full((shape[1],), 2.0**-10)
        for name, args in arguments(*shape).items():
            device.call(name, *to32(args))
            if name in IN_UNITS:
                device.call(name, *in_units(name, args, unit)[0])
    assert len(ops.OPERATIONS) > 8
    for name in adjoint.NAMES:
        for sizes in adjoint.SHAPES:
            device.call(name, *adjoint.working(name, adjoint.arguments(*sizes)[name]))
    device.call("gelu_series", torch.randn(7, 33, dtype=torch.float64), torch.float32)
    count_effects(device, "kl", 2, 1.0)
    device.call("masked_linear", torch.randn(5, 9), torch.randn(7, 9), torch.randn(7, 9), 0.0, None, False)
    torch.cuda.synchronize()


STAGES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "build": build,
    "tests": tests,
    "sanitizer": sanitizer,
    "ceilings": gpu_measure.ceilings,
    "kernels": gpu_measure.kernels,
    "accuracy": gpu_measure.accuracy,
    "search": gpu_measure.search,
    "estimate": gpu_measure.estimate,
    "masked": gpu_measure.masked,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="*", default=tuple(STAGES), choices=tuple(STAGES))
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--search-pairs", type=int, default=16, help="pairs of the search from end to end")
    parser.add_argument("--cutlass", help="folder that holds cutlass/cutlass.h, for the build")
    parser.add_argument("--batch", type=int, default=512, help="rows of a hooked forward")
    parser.add_argument("--pairs", type=int, default=96, help="of the estimate stage")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results"))
    parser.add_argument("--every-kernel", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.every_kernel:
        every_kernel()
        return 0
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device; this check needs one")
    path = gpu_measure.result_path(args)
    path.parent.mkdir(parents=True, exist_ok=True)
    failed = []
    for stage in args.stages:
        print(f"--- {stage}", flush=True)
        started = time.perf_counter()
        try:
            found = STAGES[stage](args)
        except Exception as error:  # a stage that fails must not take the others' device time with it
            import traceback

            traceback.print_exc()
            found = {"failed": repr(error)}
            failed.append(stage)
        record = json.loads(path.read_text()) if path.exists() else {}
        record |= facts()
        record[stage] = {"stage_seconds": time.perf_counter() - started, **found}
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"    {time.perf_counter() - started:.1f} s", flush=True)
    print(f"written: {path}")
    return 1 if failed else 0


def facts() -> dict[str, Any]:
    import torch

    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "gpu": torch.cuda.get_device_name(),
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory,
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
    }


if __name__ == "__main__":
    raise SystemExit(main())
