"""Options that several commands share, and how their texts are read.

An option is the Python argument of the same name, with dashes; its default is Python's.
"""

from __future__ import annotations

import argparse
import re

from pyneuro.data import LABELS, OVERLAP_SCORERS, PRESETS
from pyneuro.effects.response import RESPONSES
from pyneuro.engine.backend import BACKEND_VARIABLE, BACKENDS, PRECISIONS
from pyneuro.engine.intervention import KINDS
from pyneuro.search.estimate.tolerance import TOLERANCES
from pyneuro.search.search import METHODS
from pyneuro.search.top_k import ORDERS
from pyneuro.sites import CONVENTIONS, MODULES

EMBEDDED = "embedded"
EMBEDDED_PAIRS = 5000
BUNDLED = "bundled"

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        default=EMBEDDED,
        metavar="FILE|ID",
        help=f"pairs: a JSONL, TSV, CSV or Parquet file, a Hugging Face id, or '{EMBEDDED}' for the pairs that come "
        "with pyneuro (default)",
    )
    group.add_argument("--split", metavar="NAME", help="split of a Hugging Face dataset")
    group.add_argument(
        "--columns",
        type=columns,
        metavar="FIELD=NAME,...",
        help="columns of premise, hypothesis, label and id where their names do not say it; 'label=' reads unlabelled "
        "pairs",
    )
    group.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help=f"read the first N pairs (of '{EMBEDDED}', make N; default {EMBEDDED_PAIRS:,})",
    )
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split into roles and of every draw (default 0)"
    )


def add_model_options(
    parser: argparse.ArgumentParser, *, max_length: int | None = None, convention: bool = True
) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        default=BUNDLED,
        metavar="FOLDER|ID",
        help=f"classifier: a folder of save_pretrained, a hub id, or '{BUNDLED}' for the one that comes with pyneuro "
        "(default)",
    )
    group.add_argument(
        "--labels",
        type=labels,
        metavar="LABEL=INDEX,...",
        help="output column of every label, as entailment=0,neutral=1,contradiction=2, where the model's config does "
        "not say it",
    )
    group.add_argument(
        "--max-length",
        type=int,
        default=max_length,
        metavar="N",
        help="truncate pairs to N tokens" + ("" if max_length is None else f" (default {max_length})"),
    )
    if convention:
        add_convention_option(group)


def add_convention_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--convention",
        default="linear",
        metavar=_either(CONVENTIONS),
        help="where a neuron's value is read and patched (default linear); see docs/method.md",
    )


def add_treatment_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("treatment sets")
    group.add_argument(
        "--low", type=float, metavar="X", help=f"bound of LOL (default 20; for '{EMBEDDED}' 0, in mode absolute)"
    )
    group.add_argument(
        "--high", type=float, metavar="X", help=f"bound of HOL (default 80; for '{EMBEDDED}' 1, in mode absolute)"
    )
    group.add_argument(
        "--mode", metavar="{percentile,absolute}", help="whether bounds are percentiles (default) or overlap scores"
    )
    group.add_argument("--preset", metavar=_either(PRESETS), help="published bounds and classes")
    add_scorer_option(group)
    group.add_argument(
        "--classes", metavar="{label,entailment}", help="balance every label (default), or entailment against the rest"
    )
    group.add_argument("--replacement", action="store_true", help="draw balanced sets with replacement")


def add_scorer_option(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--scorer", default="whitespace", metavar=_either(OVERLAP_SCORERS), help="overlap score (default whitespace)"
    )


def add_ranking_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ranking")
    group.add_argument("--treatment", metavar="NAME", help="default: the contrast where there is one")
    group.add_argument("--by", default="nie", metavar="COLUMN", help="default nie")
    group.add_argument("--order", choices=ORDERS, default="absolute", help="default absolute")


def add_effect_options(parser: argparse.ArgumentParser, *, sites: bool = True) -> None:
    group = parser.add_argument_group("effects")
    if sites:
        group.add_argument(
            "--sites",
            nargs="+",
            default=["all"],
            metavar="SITE",
            help=f"neurons: 'all' (default), or names such as L3.I.906 and L0.Q.* (modules: {', '.join(MODULES)})",
        )
    group.add_argument(
        "--response",
        default="probability",
        metavar=_either(RESPONSES),
        help="what is read off the logits (default probability)",
    )
    group.add_argument("--target", default="entailment", metavar="LABEL", help=f"class of the response: {_of(LABELS)}")
    group.add_argument("--foil", metavar="LABEL", help="class that logit_difference compares with")
    group.add_argument(
        "--intervention", default="replace", metavar=_either(KINDS), help="what a patch does (default replace)"
    )
    group.add_argument("--strength", type=float, metavar="X", help="of the interventions weaken and add")
    group.add_argument("--token", type=token, default=0, metavar="N|all", help="position patched (default 0, [CLS])")
    group.add_argument(
        "--probability-floor",
        type=float,
        metavar="P",
        help="leave out samples whose base probability of the target is below P (Vig et al. use 0.01)",
    )
    group.add_argument("--ci", type=float, default=0.95, metavar="P", help="coverage of the intervals (default 0.95)")
    group.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="replicates of a bootstrap over samples, columns boot_se, boot_low, boot_high (default 0, none)",
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method",
        metavar=_either(METHODS),
        help="estimate: predictions, corrected by exact effects of a random few pairs (default; exact where it cannot "
        "be used); exact: every pair; linear: predictions alone",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        default=0.5,
        metavar="X",
        help="of an estimate: the design's standard error at most X times the sampling error (default 0.5)",
    )
    group.add_argument(
        "--tolerance-of",
        default="sampling",
        metavar=_either(TOLERANCES),
        help="what --tolerance is relative to (default sampling); of 'effect' and 'absolute' it bounds the half width "
        "of the interval",
    )
    group.add_argument(
        "--tolerance-top", type=int, metavar="N", help="only the N largest effects of a treatment need the tolerance"
    )
    group.add_argument("--budget", type=int, metavar="N", help="of an estimate: at most about N exact pairs")
    group.add_argument("--seconds", type=float, metavar="S", help="of an estimate: at most about S seconds")
    group.add_argument(
        "--depth",
        type=depth,
        default="planned",
        metavar="{planned,inside,N}",
        help="of linear: where the adjoint takes over: N layers after the patched one, inside it, or exact where that "
        "costs little (default planned)",
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    group.add_argument(
        "--backend",
        metavar=_either(BACKENDS),
        help=f"default: the environment variable {BACKEND_VARIABLE}, else the best one built",
    )
    group.add_argument(
        "--precision", default="fp32", metavar=_either(PRECISIONS), help="of the differences (default fp32)"
    )
    group.add_argument("--memory", type=memory, metavar="SIZE", help="budget of the engine's arrays, as 512MB or 2GiB")
    add_threads_option(group)


def add_threads_option(group: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    group.add_argument("--threads", type=threads, metavar="N", help="threads (default: torch's own choice)")


def memory(text: str) -> int:
    """Bytes of "512MB" (decimal), "2GiB" (binary) or "1000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if match is None or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of memory; write 512MB, 2GiB or a number of bytes")
    return round(float(match[1]) * _UNITS[match[2]])


def labels(text: str) -> dict[str, int]:
    """{"entailment": 0, ...} of "entailment=0,..."."""
    out = {}
    for name, value in _assignments(text):
        if not value.isdecimal():
            raise argparse.ArgumentTypeError(f"{name}={value!r} gives no output column; write {name}=0")
        out[name] = int(value)
    return out


def columns(text: str) -> dict[str, str | None]:
    """{"premise": "text_a", "label": None} of "premise=text_a,label="."""
    return {field: name or None for field, name in _assignments(text)}


def token(text: str) -> int | str:
    """A position, or "all"."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no position; write a number from 0, or all")
    return int(text)


def depth(text: str) -> int | str:
    """A number of layers, or "planned" or "inside"."""
    if text in ("planned", "inside"):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no depth; write planned, inside or a number of layers")
    return int(text)


def threads(text: str) -> int:
    """A positive number of threads."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; write 1 or more")
    return int(text)


def site_names(words: list[str]) -> str | list[str]:
    """What ``search`` takes as sites; names may be separated by blanks or commas."""
    names = [name for word in words for name in word.split(",") if name]
    return "all" if names == ["all"] else names


def _assignments(text: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in text.split(",")]
    for name, sign, _ in parts:
        if not name or not sign:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list as NAME=VALUE,NAME=VALUE")
    if len({name for name, _, _ in parts}) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r} names something twice")
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _either(names: object) -> str:
    return "{" + ",".join(map(str, names)) + "}"  # type: ignore[call-overload]


def _of(names: tuple[str, ...]) -> str:
    return ", ".join(names)
