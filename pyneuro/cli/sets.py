"""``pyneuro sets``: sets of neurons patched jointly: halves of layers, bisection, greedy growth, the strongest k."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from pyneuro.cli.arguments import (
    add_data_options,
    add_effect_options,
    add_machine_options,
    add_model_options,
    add_ranking_options,
    add_treatment_options,
    site_names,
)
from pyneuro.cli.prepare import (
    OutFolder,
    check_roles,
    choose_samples,
    cut_treatment_sets,
    load_classifier,
    read_corpus,
    say,
)
from pyneuro.cli.search import draw, replacement_values
from pyneuro.data import ROLES, Pairs, split_roles
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.evaluation.ablation import check_unseen
from pyneuro.models import Classifier
from pyneuro.results import Result, load_result, summary_text
from pyneuro.results.files import write_atomic
from pyneuro.search import bisect, controls_table, greedy, halves, rank, search, top_k_sets, with_controls
from pyneuro.search.controls import CONTROLS
from pyneuro.search.top_k import ORDERS
from pyneuro.sites import NeuronSet

# Options of a search that go through as they are.
_OPTIONS = (
    "response",
    "target",
    "foil",
    "convention",
    "backend",
    "precision",
    "intervention",
    "strength",
    "token",
    "memory",
    "probability_floor",
    "ci",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="WHAT", required=True)

    own = commands.add_parser("halves", help="first and second half of every linear layer's output")
    own.add_argument("--rows", type=int, default=10, metavar="N", help="of every ranking printed (default 10)")
    _add_common(own, resume=True)
    own.set_defaults(what=_halves)

    own = commands.add_parser("bisect", help="split a set, go on with the half of the larger |effect|")
    own.add_argument("--start", nargs="+", default=["all"], metavar="SITE", help="set to begin with (default all)")
    own.add_argument("--size", type=int, default=1, metavar="N", help="end at N neurons or fewer (default 1)")
    own.add_argument(
        "--treatment", metavar="NAME", help="whose effect decides (default: the contrast, if there is one)"
    )
    _add_common(own)
    own.set_defaults(what=_bisect)

    own = commands.add_parser("greedy", help="grow a set by the neuron that adds most")
    own.add_argument("-k", type=int, default=5, metavar="N", help="neurons to take (default 5)")
    which = own.add_mutually_exclusive_group(required=True)
    which.add_argument("--candidates", nargs="+", metavar="SITE", help="neurons to choose from")
    which.add_argument("--search", metavar="FOLDER", help="choose from the strongest of this search")
    own.add_argument("--pool", type=int, default=50, metavar="N", help="how many, with --search (default 50)")
    own.add_argument("--order", choices=ORDERS, default="absolute", help="default absolute")
    own.add_argument(
        "--treatment", metavar="NAME", help="whose effect decides (default: the contrast, if there is one)"
    )
    _add_common(own)
    own.set_defaults(what=_greedy)

    own = commands.add_parser("top-k", help="the strongest k of a search, jointly, beside matched random sets")
    own.add_argument("search", metavar="FOLDER", help="written by 'pyneuro search --out', with the same --data")
    own.add_argument("-k", type=int, nargs="+", required=True, metavar="N", help="sizes of the sets")
    add_ranking_options(own)
    own.add_argument("--controls", type=int, default=CONTROLS, metavar="N", help=f"of a set (default {CONTROLS})")
    _add_common(own, resume=True, convention=False, role="tune")
    own.set_defaults(what=_top_k)


def _add_common(
    parser: argparse.ArgumentParser, *, resume: bool = False, convention: bool = True, role: str = "nie"
) -> None:
    add_data_options(parser)
    parser.add_argument("--role", choices=ROLES[1:], default=role, help=f"which pairs are searched on (default {role})")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="N of them, equally many of every label (default: all)"
    )
    add_treatment_options(parser)
    parser.add_argument(
        "--values", metavar="FILE", help="replacement values from 'pyneuro means', with the same --data and --seed"
    )
    add_model_options(parser, convention=convention)
    add_effect_options(parser, sites=False)
    add_machine_options(parser)
    parser.add_argument("--out", metavar="FOLDER", help="keep results, manifests and figures here")
    if resume:
        parser.add_argument("--resume", action="store_true", help="continue the partial results in --out")
    parser.set_defaults(resumable=resume)


def run(args: argparse.Namespace) -> int:
    status: int = args.what(args)
    return status


class _Task:
    """What every one of these searches needs: model, samples, values, a folder."""

    def __init__(self, args: argparse.Namespace) -> None:
        resume = getattr(args, "resume", False)
        if resume and args.out is None:
            raise InputError("--resume needs the folder of the partial results; pass --out")
        needs_values = Intervention(args.intervention, args.strength).needs_values
        given = None if args.values is None else Values.load(args.values)
        self.out = None if args.out is None else OutFolder(args.out, resume=resume)
        self.roles = split_roles(read_corpus(args), args.seed)
        self.samples: Pairs = choose_samples(getattr(self.roles, args.role), args.samples, args.seed)
        self._cut = cut_treatment_sets(args, self.roles.treatment) if needs_values and given is None else None
        self.clf: Classifier = load_classifier(args)
        self._args, self._given = args, given
        self.options: dict[str, Any] = {name: getattr(args, name) for name in _OPTIONS if hasattr(args, name)}

    def values(self) -> Values | None:
        return replacement_values(self._args, self.clf, self.roles, self.samples, self._cut, self._given, self.out)

    def search(self, sites: dict[str, NeuronSet]) -> Result:
        args = self._args
        return search(
            self.clf,
            self.samples,
            self.values(),
            sites=sites,
            bootstrap=args.bootstrap,
            out=None if self.out is None else self.out.path,
            resume=args.resume,
            **self.options,
        )

    def end(self, result: Result, table: pd.DataFrame | None = None, name: str = "") -> None:
        """Save what a search in steps has found, and draw."""
        if self.out is None:
            return
        if table is not None:
            result.save(self.out.path)
            write_atomic(self.out.path / name, table.to_csv(index=False).encode())
        print(f"\nresults  {self.out.path}")
        draw(result, self.out)


def _halves(args: argparse.Namespace) -> int:
    task = _Task(args)
    result = task.search(halves(task.clf.shape))
    print(summary_text(result, args.rows), end="")
    task.end(result)
    return 0


def _bisect(args: argparse.Namespace) -> int:
    _no_bootstrap(args)
    task = _Task(args)
    start = site_names(args.start)
    found = bisect(
        task.clf, task.samples, task.values(), start, size=args.size, treatment=args.treatment, **task.options
    )
    shown = found.tree.assign(
        site=["  " * depth + site for depth, site in zip(found.tree["depth"], found.tree["site"], strict=True)],
        effect=[f"{effect:+.3e}" for effect in found.tree["effect"]],
        followed=["*" if followed else "" for followed in found.tree["followed"]],
    )[["site", "size", "effect", "followed"]]
    width = int(shown["site"].str.len().max())
    print(shown.to_string(index=False, justify="left", formatters={"site": f"{{:<{width}}}".format}))
    task.end(found.result, found.tree, "tree.csv")
    return 0


def _greedy(args: argparse.Namespace) -> int:
    _no_bootstrap(args)
    names: Any = None if args.candidates is None else site_names(args.candidates)
    if args.search is not None:
        ranking = rank(load_result(args.search), treatment=args.treatment, order=args.order)
        names = ranking.first(min(args.pool, len(ranking)))
        if args.convention != ranking.convention:
            raise InputError(
                f"the search in {args.search!r} has convention {ranking.convention!r}; pass --convention "
                f"{ranking.convention}"
            )
        _values_of(args)
    task = _Task(args)
    found = greedy(
        task.clf,
        task.samples,
        task.values(),
        args.k,
        candidates=names,
        order=args.order,
        treatment=args.treatment,
        **task.options,
    )
    print(found.steps.to_string(index=False, float_format="{:+.3e}".format))
    task.end(found.result, found.steps, "steps.csv")
    return 0


def _top_k(args: argparse.Namespace) -> int:
    ranking = rank(load_result(args.search), treatment=args.treatment, by=args.by, order=args.order)
    args.convention = ranking.convention
    _values_of(args)
    sites = with_controls(top_k_sets(ranking, args.k), args.controls, args.seed)
    task = _Task(args)
    check_roles(Path(args.search), task.roles)
    check_unseen(ranking, task.samples)
    if ranking.model_digest not in (None, task.clf.digest):
        raise InputError(f"the search in {args.search!r} is of another model than {task.clf.name}; pass its --model")
    say(
        f"{len(args.k)} sets and {args.controls} controls of each, on {len(task.samples):,} pairs of the role "
        f"{args.role}"
    )
    result = task.search(sites)
    table = controls_table(result)
    shown = [column for column in table.columns if column not in ("set", "treatment", "size", "controls", "p_value")]
    for name in shown:
        table[name] = [f"{value:+.3e}" for value in table[name]]
    print(table.to_string(index=False, float_format="{:.3f}".format))
    task.end(result)
    return 0


def _values_of(args: argparse.Namespace) -> None:
    """Patch the values of the search that the neurons come from, where its folder has them."""
    path = Path(args.search) / "values.npz"
    if args.values is None and Intervention(args.intervention, args.strength).needs_values and path.exists():
        say(f"values: {path}")
        args.values = str(path)


def _no_bootstrap(args: argparse.Namespace) -> None:
    if args.bootstrap:
        raise InputError("--bootstrap has no meaning for a search in steps; leave it out")
