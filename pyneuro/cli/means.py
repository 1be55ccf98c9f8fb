"""``pyneuro means``: write the mean activations of the treatment sets, the values that neurons are patched with."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyneuro.cli.arguments import add_data_options, add_model_options, add_threads_option, add_treatment_options
from pyneuro.cli.prepare import cut_treatment_sets, describe_sets, load_classifier, read_corpus, say
from pyneuro.data import split_roles
from pyneuro.engine.values import mean_activations
from pyneuro.results.files import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    add_treatment_options(parser)
    add_model_options(parser)
    add_threads_option(parser)
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="samples a forward (default 32)")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="values file (.npz); the manifests of roles and sets go beside it"
    )


def run(args: argparse.Namespace) -> int:
    out = Path(args.out).expanduser()
    writable_folder(out.parent)  # before any work, not after it
    roles = split_roles(read_corpus(args), args.seed)
    sets = cut_treatment_sets(args, roles.treatment)
    say("\n".join(describe_sets(sets)))
    values = mean_activations(load_classifier(args), sets, convention=args.convention, batch_size=args.batch_size)
    beside = out.parent / out.name.removesuffix(".npz")
    values.save(out)
    print(out)
    print(sets.save(f"{beside}.treatment.json"))
    print(roles.save(f"{beside}.roles.json"))
    return 0
