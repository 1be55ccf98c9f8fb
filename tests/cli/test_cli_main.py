"""The command line as a whole: help, versions, errors, and how option texts are read."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
import torch

import pyneuro
from pyneuro.cli import arguments, main, top
from pyneuro.errors import ResumeError
from tests.cli.conftest import Outcome

COMMANDS = (
    *("doctor", "means", "search", "sets", "top", "compare", "evaluate", "reweight", "mitigate", "mask", "study"),
    "demo",
)


def test_python_m_pyneuro_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "pyneuro", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pyneuro {pyneuro.__version__}\n"


def test_help_lists_every_command_with_a_sentence(run: Callable[..., Outcome]) -> None:
    found = run("--help")
    assert found.status == 0
    for command in COMMANDS:
        assert f"\n    {command} " in found.out
    assert "the strongest neurons of a result folder." in found.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_own_help(run: Callable[..., Outcome], command: str) -> None:
    found = run(command, "--help")
    assert found.status == 0
    assert found.out.startswith(f"usage: pyneuro {command}")


@pytest.mark.parametrize("words", [(), ("serch",), ("search", "--no-such-option"), ("top",)])
def test_arguments_that_do_not_exist_give_status_2(run: Callable[..., Outcome], words: tuple[str, ...]) -> None:
    found = run(*words)
    assert found.status == 2
    assert "error:" in found.err


def test_an_error_is_one_line_without_traceback(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise ResumeError("made with other settings:\n  low: 20 in the folder, 5 now\npass the same")

    monkeypatch.setattr(top, "run", fail)
    assert run("top", "x") == Outcome(
        2, "", "pyneuro: error: made with other settings: low: 20 in the folder, 5 now; pass the same\n"
    )


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "run", lambda _: {}["missing"])
    with pytest.raises(KeyError):
        main(["top", "x"])


def test_warnings_are_one_line(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def warn(_: argparse.Namespace) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            sys.stderr.write(warnings.formatwarning("many ties\nat 0", UserWarning, "x.py", 1))
        return 0

    monkeypatch.setattr(top, "run", warn)
    assert run("top", "x").err == "pyneuro: warning: many ties; at 0\n"


def test_threads_are_set_for_the_command_only(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    from pyneuro.cli import doctor

    seen = []
    monkeypatch.setattr(doctor, "run", lambda _: seen.append(torch.get_num_threads()) or 0)
    before = torch.get_num_threads()
    assert run("doctor", "--threads", before + 1).status == 0
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


@pytest.mark.skipif(os.name != "posix", reason="closed pipes are told by signals and errno here")
def test_a_reader_who_leaves_early_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "pyneuro", "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("512MB", 512_000_000), ("2GiB", 2**31), ("1.5 kib", 1536), ("7b", 7)],
)
def test_memory_is_read_with_its_unit(text: str, size: int) -> None:
    assert arguments.memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "5 parsecs", "-1MB", "1e3"])
def test_an_amount_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="512MB"):
        arguments.memory(text)


def test_labels_and_columns_are_lists_of_assignments() -> None:
    assert arguments.labels("entailment=0,neutral=1") == {"entailment": 0, "neutral": 1}
    assert arguments.columns("premise=text a,label=") == {"premise": "text a", "label": None}
    for text in ("entailment", "=0", "entailment=0,entailment=1", "entailment=first"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"entailment|=0"):
            arguments.labels(text)


def test_a_token_is_a_position_or_all() -> None:
    assert arguments.token("3") == 3
    assert arguments.token("all") == "all"
    with pytest.raises(argparse.ArgumentTypeError, match="position"):
        arguments.token("-1")


def test_sites_may_stand_between_commas_or_blanks() -> None:
    assert arguments.site_names(["all"]) == "all"
    assert arguments.site_names(["L0.Q.*,L1.I.3", "L1.O.2"]) == ["L0.Q.*", "L1.I.3", "L1.O.2"]
