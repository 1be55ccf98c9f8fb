"""What a result was computed with: versions and machine, for its manifest."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("pyneuro", "numpy", "scipy", "pandas", "pyarrow", "torch", "transformers")


@cache
def environment() -> dict[str, Any]:
    """``{"versions": {...}, "machine": {...}}`` of this process; imports nothing."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    machine: dict[str, Any] = {"system": platform.platform(), "processor": _processor(), "cpus": os.cpu_count()}
    # Asked only when a search has loaded it: a report alone must not pay for torch.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        machine["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"versions": versions, "machine": machine}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
