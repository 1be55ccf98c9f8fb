"""``pyneuro doctor``: what this installation is built with, what the machine has, and whether its kernels are right.

Exit status 1 where something is wrong, said in a line that begins with "problem".
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from pyneuro import ops
from pyneuro.cli.arguments import add_threads_option
from pyneuro.cli.self_check import Agreement, compare_with_reference
from pyneuro.engine.backend import BACKEND_VARIABLE
from pyneuro.errors import PyneuroError
from pyneuro.ops.native import ISA_VARIABLE

_PACKAGES = ("pyneuro", "torch", "transformers", "numpy", "scipy", "pandas", "pyarrow")
_OPTIONAL = {"matplotlib": "figures", "datasets": "Hugging Face datasets"}
_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_bf16")
_VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "OMP_PROC_BIND",
    "GOMP_CPU_AFFINITY",
    BACKEND_VARIABLE,
    ISA_VARIABLE,
)


@dataclass(frozen=True)
class Finding:
    """A line of the report; ``problem`` says what is wrong and the mend."""

    name: str
    text: str
    problem: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_threads_option(parser)


def run(args: argparse.Namespace) -> int:
    problems = []
    for part in (versions, machine, backends, openmp, self_check):
        for finding in part():
            print(f"{finding.name:<12} {finding.text}", flush=True)
            if finding.problem is not None:
                problems.append(finding.problem)
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print("all is well")
    return 1 if problems else 0


def versions() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    for name in _PACKAGES:
        found = _version(name)
        yield Finding(name, found or "not installed as a package (running from a source tree)")
    for name, use in _OPTIONAL.items():
        yield Finding(name, _version(name) or f"not installed (for {use} only)")


def machine() -> Iterator[Finding]:
    model, flags = cpu()
    yield Finding("processor", f"{model}, {os.cpu_count()} cpus")
    if flags:
        yield Finding("features", " ".join(f for f in _FEATURES if f in flags) or "none of those the kernels use")
    settings = " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
    yield Finding("threads", f"{torch.get_num_threads()} (torch); {settings or 'no variable set'}")
    if "OMP_WAIT_POLICY" not in os.environ:
        yield Finding("", "OMP_WAIT_POLICY=PASSIVE in the environment is faster on a machine that has other work too")


def cpu() -> tuple[str, set[str]]:
    """Model name and feature flags; empty flags where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), set()
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    return model[1] if model else platform.machine(), set(flags[1].split()) if flags else set()


def backends() -> Iterator[Finding]:
    if ops.built():
        used = ops.native().isa
        for isa, facts in ops.instruction_sets().items():
            yield Finding(
                "cpu",
                f"{isa}{' (in use)' if isa == used else ''}: panel width {facts['panel_width']}, tile "
                f"{facts['tile_rows']}, bf16 {'yes' if facts['bf16'] else 'no'}",
            )
    else:
        try:
            ops.native()
        except PyneuroError as error:
            yield Finding("cpu", "not built", str(error))
    yield Finding("reference", "plain torch, float64 too")
    built = f"for sm_{ops.architectures().replace(',', ', sm_')}" if ops.cuda_built() else "not built"
    if ops.cuda_built() and ops.cuda_module().product_epilogues:
        built += ", products with epilogues for sm_80 and sm_90a"
    yield Finding("cuda", f"{built}; {_devices()}")


def _devices() -> str:
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return f"torch {torch.version.cuda} sees {names}"
    return "torch without CUDA" if torch.version.cuda is None else f"torch for CUDA {torch.version.cuda}, no GPU"


def openmp() -> Iterator[Finding]:
    """torch and the kernels must share one OpenMP runtime: two have two pools of threads, which fight for the cores."""
    found = openmp_runtimes()
    if found is None:
        yield Finding("openmp", "not checked on this system")
    elif len(found) > 1:
        yield Finding(
            "openmp",
            ", ".join(found),
            f"{len(found)} OpenMP runtimes are loaded ({', '.join(found)}); import torch before anything else that "
            "brings one, or install builds that share it",
        )
    else:
        yield Finding("openmp", f"one runtime, {found[0]}" if found else "no runtime loaded")


def openmp_runtimes() -> list[str] | None:
    """Files of the OpenMP runtimes in this process; None where the system does not tell."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return sorted(set(re.findall(r"/\S*/lib(?:gomp|iomp5|omp)[-.\w]*\.so[.\d]*", maps)))


def self_check() -> Iterator[Finding]:
    """The kernels against plain torch in float64, on a real pair through the bundled model."""
    checks = []
    if ops.built():
        checks += [("cpu", "fp32"), *([("cpu", "bf16")] if ops.native().bf16 else [])]
    if ops.cuda_built() and torch.cuda.is_available():
        checks += [("cuda", "fp32"), ("cuda", "fp16")]
    for backend, precision in checks:
        start = time.perf_counter()
        try:
            found = compare_with_reference(backend, precision)
        except PyneuroError as error:
            problem = f"the self-check of {backend} in {precision} failed: {error}"
            yield Finding("self-check", f"{backend}, {precision}: failed", problem)
            continue
        yield _judged(found, time.perf_counter() - start)


def _judged(found: Agreement, seconds: float) -> Finding:
    text = (
        f"{found.backend}, {found.precision}: {found.effects} patched runs in every layer and module, largest relative "
        f"difference to the reference {found.worst:.1e} at {found.where} ({seconds:.1f} s)"
    )
    if found.good:
        return Finding("self-check", text)
    return Finding(
        "self-check",
        text,
        f"the {found.backend} kernels in {found.precision} differ from the reference by {found.worst:.1e} at "
        f"{found.where}, where {found.allowed:.0e} is expected; use backend='reference' and report it",
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
