"""``pyneuro doctor``: a report on this installation, and problems that it must see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pyneuro import ops
from pyneuro.cli import doctor, self_check
from pyneuro.errors import BackendError
from tests.cli.conftest import Outcome

Call = Callable[..., Outcome]


def test_a_sound_installation_is_reported_and_gives_status_0(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ops.built():
        pytest.skip("the native kernels are not built")
    # Other tests of this process may have loaded packages that bring a runtime of their own.
    monkeypatch.setattr(doctor, "openmp_runtimes", lambda: ["/usr/lib/libgomp.so.1"])
    found = run("doctor")
    assert found.status == 0, found.out
    lines = dict(line.split(maxsplit=1) for line in found.out.splitlines())
    assert lines["torch"] == torch.__version__
    assert lines["threads"].startswith(f"{torch.get_num_threads()} (torch)")
    assert lines["cuda"].startswith("for sm_" if ops.cuda_built() else "not built")
    assert f"{ops.native().isa} (in use): panel width {ops.native().panel_width}" in found.out
    assert "cpu, fp32: 108 patched runs" in found.out
    assert found.out.endswith("all is well\n")


def test_kernels_that_compute_wrongly_are_a_problem(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ops.built():
        pytest.skip("the native kernels are not built")
    right = self_check._changes

    def wrong(backend: object) -> dict[str, torch.Tensor]:
        changes = right(backend)  # type: ignore[arg-type]
        changes["L3.K"] = changes["L3.K"] * 1.01
        return changes

    self_check._reference()
    monkeypatch.setattr(self_check, "_changes", wrong)
    found = run("doctor")
    assert found.status == 1
    assert "problem: the cpu kernels in fp32 differ from the reference by 1.0e-02 at L3.K" in found.out


def test_not_a_number_is_no_agreement() -> None:
    exact = torch.ones(3, 3, dtype=torch.float64)
    assert self_check._relative(exact * float("nan"), exact) == float("inf")


def test_missing_kernels_are_a_problem_that_says_how_to_build_them(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise BackendError("the native kernels are not built; run 'pip install .'")

    monkeypatch.setattr(ops, "built", lambda: False)
    monkeypatch.setattr(ops, "native", absent)
    found = run("doctor")
    assert found.status == 1
    assert "problem: the native kernels are not built; run 'pip install .'" in found.out


def test_two_openmp_runtimes_are_a_problem(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "openmp_runtimes", lambda: ["/usr/lib/libgomp.so.1", "/opt/libiomp5.so"])
    monkeypatch.setattr(doctor, "self_check", lambda: iter(()))
    found = run("doctor")
    assert found.status == 1
    assert "problem: 2 OpenMP runtimes are loaded (/usr/lib/libgomp.so.1, /opt/libiomp5.so)" in found.out


def test_runtimes_are_read_from_the_maps_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = (
        "7f00-7f01 r-xp 00000000 08:01 12 /venv/torch/lib/libgomp-24e2ab19.so.1.0.0\n"
        "7f02-7f03 r--p 00000000 08:01 12 /venv/torch/lib/libgomp-24e2ab19.so.1.0.0\n"
        "7f04-7f05 r-xp 00000000 08:01 13 /opt/intel/libiomp5.so\n"
        "7f06-7f07 r-xp 00000000 08:01 14 /usr/lib/libcomposite.so\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: maps)
    assert doctor.openmp_runtimes() == ["/opt/intel/libiomp5.so", "/venv/torch/lib/libgomp-24e2ab19.so.1.0.0"]


def test_a_system_without_proc_is_no_problem(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    def nothing() -> Iterator[doctor.Finding]:
        return iter(())

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(doctor, "versions", nothing)
    monkeypatch.setattr(doctor, "self_check", nothing)
    found = run("doctor")
    assert "not checked on this system" in found.out
