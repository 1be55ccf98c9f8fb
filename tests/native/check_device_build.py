"""What nvcc makes of the device kernels: they build for every architecture, spill nothing, and load as they claim.

    python tests/native/check_device_build.py [--write] [--architectures 80 90 100] [--cutlass DIR]

Registers and shared memory of every kernel on sm_90 are compared with csrc/cuda/resources.tsv, made by --write; with
another nvcc than the one that made it only spills are refused. With CUTLASS (``--cutlass``, ``PN_CUTLASS``, or PyPI's
nvidia-cutlass) the products for sm_80 and sm_90a are built too: their tensor core instructions must be those of their
architecture, and Hopper's not put one after the other. The instructions are read with cuobjdump (PyPI:
nvidia-cuda-cuobjdump) where it is found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "csrc" / "cuda" / "resources.tsv"
FLAGS = ["-std=c++20", "-O3", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc' / 'include'}", "-Xptxas", "-v", "-c"]
SERIALIZED = "C7510"  # ptxas: wgmma instructions one after the other
# Kernels whose vector form must read global memory 16 bytes at a time, and the one that works on bytes.
WIDE = re.compile(r"(layernorm|entry|gelu)_kernel<[^,]+, [48][,>]")
BYTEWISE = "mask_kernel"
# Products with an epilogue: source, architecture, tensor core instruction.
PRODUCTS = [("delta_gelu_sm80", "80", "HMMA"), ("delta_gelu_sm90", "90a", "HGMMA")]


@dataclass(frozen=True)
class Kernel:
    """A kernel's resources as ptxas reports them."""

    name: str
    registers: int
    shared: int
    spills: int


def compiler_version() -> str:
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"V([\d.]+)", text)
    assert found is not None, text
    return found[1]


def build(source: Path, flags: list[str], out: Path) -> str:
    """Compile; what ptxas says."""
    done = subprocess.run(
        ["nvcc", *FLAGS, *flags, str(source), "-o", str(out)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{source.name} {' '.join(flags)} does not build:\n{done.stderr[-3000:]}")
    if SERIALIZED in done.stderr:
        raise SystemExit(f"{source.name}: ptxas puts the tensor cores' instructions one after the other ({SERIALIZED})")
    return done.stderr


def kernels(report: str) -> Iterator[Kernel]:
    spills = r"(\d+) bytes spill stores, (\d+) bytes spill loads"
    pattern = rf"Compiling entry function '([^']+)'.*?{spills}.*?Used (\d+) registers([^\n]*)"
    for match in re.finditer(pattern, report, re.DOTALL):
        shared = re.search(r"(\d+) bytes smem", match[5])
        yield Kernel(demangled(match[1]), int(match[4]), int(shared[1]) if shared else 0, int(match[2]) + int(match[3]))


def demangled(name: str) -> str:
    text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"pyneuro::cuda::|\(anonymous namespace\)::|^void ", "", text)
    return re.sub(r"\(.*", "", text)


def compare(found: list[Kernel], version: str) -> list[str]:
    """Kernels whose resources are not those of the table."""
    made_by, *rows = TABLE.read_text().splitlines()
    if made_by != header(version):
        print(f"resources: {TABLE.name} was made by another nvcc than {version}; spills alone are looked at")
        return []
    kept = dict(row.split("\t", 1) for row in rows[1:])
    now = {k.name: f"{k.registers}\t{k.shared}" for k in found}
    problems = []
    for name in sorted(kept.keys() | now.keys()):
        if kept.get(name) != now.get(name):
            problems.append(f"{name}: registers and shared memory {now.get(name)}, in {TABLE.name} {kept.get(name)}")
    return problems


def header(version: str) -> str:
    return f"# sm_90, nvcc {version}"


def instructions(objects: dict[Path, str | None]) -> list[str]:
    """Claims of the kernels about the instructions they are made of that do not hold. By object, the instruction of
    the tensor cores that every kernel of it must have, where it has one."""
    tool = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=str(bundled_tools()))
    if tool is None:
        print("instructions: no cuobjdump on this machine (PyPI: nvidia-cuda-cuobjdump); not read")
        return []
    problems = []
    environment = {**os.environ, "PATH": f"{bundled_tools()}:{os.environ['PATH']}"}
    for path, tensor_core in objects.items():
        text = subprocess.run(
            [tool, "--dump-sass", str(path)], capture_output=True, text=True, check=True, env=environment
        )
        for part in text.stdout.split("Function : ")[1:]:
            name = demangled(part.split("\n", 1)[0].strip())
            found = set(re.findall(r"\s([A-Z][A-Z0-9]*(?:\.[A-Za-z0-9_]+)*)\s", part))
            if tensor_core is not None and not any(op.startswith(tensor_core) for op in found):
                problems.append(f"{path.stem}: no {tensor_core}")
            if any(op.startswith(("LDL", "STL")) for op in found):
                problems.append(f"{name} keeps values in local memory")
            if WIDE.match(name) and not any(op.startswith("LDG.E.128") for op in found):
                problems.append(f"{name} has no 16-byte loads")
            if any(re.match(r"LDG\.E\.[US]8", op) for op in found) and BYTEWISE not in name:
                problems.append(f"{name} reads global memory byte by byte")
    return problems


def site_packages() -> Path:
    return Path(sysconfig.get_path("purelib"))


def installed_cutlass() -> str | None:
    headers = site_packages() / "cutlass_library" / "source" / "include"
    return str(headers) if headers.is_dir() else None


def bundled_tools() -> Path:
    return site_packages() / "nvidia" / "cu13" / "bin"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    parser.add_argument("--architectures", nargs="*", default=["80", "90", "100"])
    parser.add_argument("--cutlass", default=os.environ.get("PN_CUTLASS") or installed_cutlass())
    args = parser.parse_args()
    if shutil.which("nvcc") is None:
        print("no nvcc on this machine: the device kernels are not built; their host build is tested all the same")
        return 0
    version = compiler_version()
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs, products = {}, {}
        for architecture in args.architectures:
            for source in sources:
                out = Path(folder) / f"{source.stem}_{architecture}.o"
                jobs[architecture, source] = out, pool.submit(build, source, [f"-arch=sm_{architecture}"], out)
        if args.cutlass:
            flags = ["-DNDEBUG", "--expt-relaxed-constexpr", f"-I{args.cutlass}"]
            for name, architecture, tensor_core in PRODUCTS:
                source, out = ROOT / "csrc" / "cuda" / "gemm" / f"{name}.cu", Path(folder) / f"{name}.o"
                gencode = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
                jobs["product", source] = out, pool.submit(build, source, [gencode, *flags], out)
                products[out] = tensor_core
        else:
            print("products with epilogues: no CUTLASS on this machine (PyPI: nvidia-cutlass, 4.2); not built")
        reports = {key: job.result() for key, (_, job) in jobs.items()}
        found, of_products = (
            [kernel for key in jobs if key[0] == kind for kernel in kernels(reports[key])] for kind in ("90", "product")
        )
        if args.write:
            rows = sorted(f"{k.name}\t{k.registers}\t{k.shared}" for k in found)
            TABLE.write_text("\n".join([header(version), "kernel\tregisters\tstatic shared bytes", *rows]) + "\n")
        problems = [f"{k.name} spills {k.spills} bytes" for k in (*found, *of_products) if k.spills]
        problems += compare(found, version)
        problems += instructions({path: None for (kind, _), (path, _) in jobs.items() if kind == "90"} | products)
    for problem in problems:
        print(f"problem: {problem}")
    if not problems:
        print(f"device build: sm_{', sm_'.join(args.architectures)}; {len(found)} kernels, no spills")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
