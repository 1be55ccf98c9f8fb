"""``pyneuro search``: the effect of every neuron on a response, over samples that share no pair with the treatment
sets."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from pyneuro.cli.arguments import (
    add_data_options,
    add_effect_options,
    add_machine_options,
    add_method_options,
    add_model_options,
    add_treatment_options,
    site_names,
)
from pyneuro.cli.prepare import (
    OutFolder,
    check_apart,
    choose_samples,
    cut_treatment_sets,
    describe_sets,
    load_classifier,
    read_corpus,
    say,
)
from pyneuro.data import Pairs, Roles, TreatmentSets, split_roles
from pyneuro.engine.backend import choose_backend
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values, mean_activations
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.results import Result, save_figures, summary_text
from pyneuro.search import search
from pyneuro.search.estimate.estimate import FEWEST_SAMPLES, Budget
from pyneuro.search.estimate.tolerance import Tolerance
from pyneuro.search.request import Request, check_response
from pyneuro.search.targets import resolve_sites


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    parser.add_argument(
        "--samples", type=int, metavar="N", help="search on N samples, equally many of every label (default: all)"
    )
    add_treatment_options(parser)
    parser.add_argument(
        "--values", metavar="FILE", help="replacement values from 'pyneuro means', with the same --data and --seed"
    )
    add_model_options(parser)
    add_effect_options(parser)
    add_method_options(parser)
    add_machine_options(parser)
    group = parser.add_argument_group("results")
    group.add_argument("--out", metavar="FOLDER", help="keep partial results, results, manifests and figures here")
    group.add_argument("--resume", action="store_true", help="continue the partial results in --out")
    group.add_argument("-k", type=int, default=10, metavar="N", help="rows of every ranking printed (default 10)")
    parser.set_defaults(resumable=True)


def run(args: argparse.Namespace) -> int:
    if args.resume and args.out is None:
        raise InputError("--resume needs the folder of the partial results; pass --out")
    if args.k < 1:
        raise InputError(f"-k {args.k} prints nothing; pass 1 or more")
    needs_values = Intervention(args.intervention, args.strength).needs_values
    given = None if args.values is None else Values.load(args.values)
    out = None if args.out is None else OutFolder(args.out, resume=args.resume)
    roles = split_roles(read_corpus(args), args.seed)
    samples = choose_samples(roles.nie, args.samples, args.seed)
    sets = cut_treatment_sets(args, roles.treatment) if needs_values and args.values is None else None
    clf = load_classifier(args)
    _check(args, clf)
    values = replacement_values(args, clf, roles, samples, sets, given, out)
    result = search(
        clf,
        samples,
        values,
        method=_method(args, samples),
        depth=args.depth,
        tolerance=args.tolerance,
        tolerance_of=args.tolerance_of,
        tolerance_top=args.tolerance_top,
        budget=args.budget,
        seconds=args.seconds,
        seed=args.seed,
        response=args.response,
        target=args.target,
        foil=args.foil,
        sites=site_names(args.sites),
        convention=args.convention,
        backend=args.backend,
        precision=args.precision,
        intervention=args.intervention,
        strength=args.strength,
        token=args.token,
        memory=args.memory,
        probability_floor=args.probability_floor,
        ci=args.ci,
        bootstrap=args.bootstrap,
        out=None if out is None else out.path,
        resume=args.resume,
    )
    print(summary_text(result, args.k), end="")
    if out is not None:
        print(f"\nresults  {out.path}")
        draw(result, out)
    return 0


def _method(args: argparse.Namespace, samples: Pairs) -> str:
    """The method asked for; else an estimate where there can be one."""
    if args.method is not None:
        return str(args.method)
    if args.token == 0 and len(samples) >= FEWEST_SAMPLES:
        return "estimate"
    why = "patches elsewhere than at [CLS]" if args.token != 0 else f"fewer than {FEWEST_SAMPLES} samples"
    say(f"method: exact ({why} cannot be estimated)")
    return "exact"


def draw(result: Result, out: OutFolder) -> None:
    """Save figures and say where; a search is not lost for want of matplotlib."""
    if find_spec("matplotlib") is None:
        say("no figures: matplotlib is not installed (pip install 'pyneuro[figures]')")
        return
    for path in save_figures(result, out.figures):
        print(f"figure   {path}")


def _check(args: argparse.Namespace, clf: Classifier) -> None:
    """What ``search`` will refuse, refused before the means are taken."""
    choose_backend(args.backend, args.precision)
    Budget(Tolerance(args.tolerance, args.tolerance_of, args.tolerance_top), args.budget, args.seconds, args.seed)
    resolve_sites(site_names(args.sites), clf.shape)
    request = Request(
        response=args.response,
        target=args.target,
        foil=args.foil,
        probability_floor=args.probability_floor,
        ci=args.ci,
        bootstrap=args.bootstrap,
    )
    check_response(clf, request)


def replacement_values(
    args: argparse.Namespace,
    clf: Classifier,
    roles: Roles,
    samples: Pairs,
    sets: TreatmentSets | None,
    given: Values | None,
    out: OutFolder | None,
) -> Values | None:
    """Replacement values: given by ``--values``, from the folder of a search that goes on, else means of the sets."""
    if given is not None:
        values: Values | None = given
        check_apart(args.values, samples)
    elif sets is None:
        values = None
    elif out is not None and out.going_on:
        # Not computed again: other threads round otherwise, and effects of two sets of values do not belong together.
        out.check_treatment(sets)
        values = Values.load(out.values)
    else:
        say("\n".join(describe_sets(sets)))
        values = mean_activations(clf, sets, convention=args.convention)
    if out is not None and not out.going_on:
        out.record(roles, sets, values, args.values)
    return values
