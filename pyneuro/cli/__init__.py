"""The command line: ``pyneuro doctor | means | search | sets | top | compare | ablate | evaluate | reweight |
mitigate | mask | study | demo``.

One file a command. Each adds its options to a parser and offers ``run(args) -> exit status``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from pyneuro.cli import (
    ablate,
    compare,
    demo,
    doctor,
    evaluate,
    mask,
    means,
    mitigate,
    reweight,
    search,
    sets,
    study,
    top,
)
from pyneuro.errors import PyneuroError

__all__ = ["main"]

COMMANDS = (doctor, means, search, sets, top, compare, ablate, evaluate, reweight, mitigate, mask, study, demo)
FAILED, STOPPED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status: 0, 1 for a doctor who found something wrong or a reader of standard output who left, 2 for
        arguments or input that cannot be used, 130 when stopped from the keyboard.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser().parse_args(words)
    except SystemExit as stop:  # argparse has printed its help or its complaint
        return stop.code if isinstance(stop.code, int) else 0
    try:
        with _settings(args):
            status: int = args.run(args)
            sys.stdout.flush()
            return status
    except PyneuroError as error:
        print(f"pyneuro: error: {_one_line(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"\npyneuro: stopped; {_how_to_go_on(args, words)}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # as in `pyneuro top results | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    from pyneuro import __version__

    parser = argparse.ArgumentParser(
        prog="pyneuro",
        description="Exact causal mediation analysis of every neuron of an NLI classifier.",
        epilog="Options are the arguments of the Python functions, with dashes. 'pyneuro COMMAND --help' lists them.",
    )
    parser.add_argument("--version", action="version", version=f"pyneuro {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        summary = (command.__doc__ or "").partition(": ")[2].partition("\n\n")[0].replace("\n", " ")
        own = commands.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser


@contextmanager
def _settings(args: argparse.Namespace) -> Iterator[None]:
    """Threads as asked for and warnings as one line; both as before when the command is done."""
    threads = torch.get_num_threads()

    def one_line(message: Warning | str, *_: object) -> str:
        return f"pyneuro: warning: {_one_line(str(message))}\n"

    plain, warnings.formatwarning = warnings.formatwarning, one_line  # type: ignore[assignment]
    if getattr(args, "threads", None) is not None:
        torch.set_num_threads(args.threads)
    try:
        yield
    finally:
        warnings.formatwarning = plain
        torch.set_num_threads(threads)


def _one_line(text: str) -> str:
    """A message of several lines as one."""
    return re.sub(r"\s*\n\s*", "; ", text.strip()).replace(":; ", ": ")


def _how_to_go_on(args: argparse.Namespace, words: Sequence[str]) -> str:
    if not getattr(args, "resumable", False):
        return "nothing was kept"
    if args.out is None:
        return "nothing was kept, as --out was not given"
    again = words if "--resume" in words else [*words, "--resume"]
    return f"finished parts are kept in {args.out}. To go on: {shlex.join(['pyneuro', *again])}"
