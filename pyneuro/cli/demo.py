"""``pyneuro demo``: estimate every neuron's effect on as many samples as a few minutes allow, 2,000 at most."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyneuro.cli.arguments import EMBEDDED, add_data_options, add_model_options, add_threads_option
from pyneuro.cli.prepare import OutFolder, cut_treatment_sets, describe_sets, load_classifier, read_corpus
from pyneuro.cli.search import draw
from pyneuro.data import Pairs, balanced_sample, split_roles
from pyneuro.engine.plan import patch_flops
from pyneuro.engine.values import Values, mean_activations
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.results import summary_text
from pyneuro.search import search
from pyneuro.search.estimate.estimate import FEWEST_SAMPLES
from pyneuro.search.progress import duration
from pyneuro.sites import ModelShape, NeuronSet

OUT = "demo-results"
MARK = ".demo"  # in a folder that a demo wrote, and that the next one may write again
MINUTES = 6.0
MAX_LENGTH = 128
TRIAL_NEURONS = 112  # of every layer and module: as many as the engine carries at once
RESERVE = 6.0  # seconds for tables and figures
PREDICTING = 0.6  # of the time may go into predictions; the rest is for exact pairs
FULL = 2000  # samples at most
TRIAL_SAMPLES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        metavar="N",
        help=f"time to spend, start to end, about (default {MINUTES:g})",
    )
    parser.add_argument("--out", default=OUT, metavar="FOLDER", help=f"results and figures (default {OUT})")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="rows of every ranking printed (default 10)")
    add_data_options(parser)
    add_model_options(parser, max_length=MAX_LENGTH)
    add_threads_option(parser)
    parser.set_defaults(
        low=None, high=None, mode=None, preset=None, scorer="whitespace", classes=None, replacement=False
    )


@dataclass(frozen=True)
class Rate:
    """Seconds a unit of work, from a trial; work as ``patch_flops`` counts it."""

    seconds: float
    work: float

    def time(self, work: float) -> float:
        return work * self.seconds / self.work


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    if not args.minutes > 0:
        raise InputError(f"--minutes {args.minutes:g} leaves no time; pass more than 0")
    out = OutFolder(args.out, resume=False, overwrite=Path(args.out, MARK).exists())
    corpus = read_corpus(args)
    roles = split_roles(corpus, args.seed)
    sets = cut_treatment_sets(args, roles.treatment)
    clf = load_classifier(args)
    neurons = NeuronSet.all(clf.shape)
    _say(f"model    {clf.name}: {clf.shape.layers} layers, {len(neurons):,} neurons")
    _say(
        f"data     {corpus.source}: {len(corpus):,} pairs, of them {len(roles.treatment):,} for the treatment sets and"
    )
    _say(f"         {len(roles.nie):,} for the effects; no pair is in both")
    _say("\n".join(f"         {line}" for line in describe_sets(sets)))
    values = mean_activations(clf, sets, convention=args.convention)

    exact = _trial(clf, roles.nie, values, args.convention)
    left = 60 * args.minutes - (time.monotonic() - started) - RESERVE
    samples = _fitting(clf, roles.nie, values, PREDICTING * left, args.convention, args.seed)
    method = "estimate" if len(samples) >= FEWEST_SAMPLES else "exact"
    counts = ", ".join(f"{count} {label}" for label, count in samples.label_counts.items())
    runs = len(neurons) * len(samples) * len(values.treatments)
    exhaustive = exact.time(
        len(values.treatments) * sum(_work(clf.shape, len(clf.encode(p)), neurons) for p in samples)
    )
    _say(
        f"plan     every neuron x {len(samples):,} samples ({counts}) x {' and '.join(values.treatments)}: {runs:,} "
        f"effects, by method '{method}'"
    )

    # No partial results: another run plans another number of samples, and could not go on from them.
    left = 60 * args.minutes - (time.monotonic() - started) - RESERVE
    result = search(
        clf,
        samples,
        values,
        method=method,
        sites=neurons,
        convention=args.convention,
        seconds=max(left, 1.0) if method == "estimate" else None,
        seed=args.seed,
    )
    out.record(roles, sets, values)
    result.save(out.path)
    (out.path / MARK).touch()
    print()
    print(summary_text(result, args.k))
    print(f"results  {out.path}")
    draw(result, out)
    run_ = result.manifest["run"]
    spent = float(run_["seconds"])
    print(
        f"time     {duration(spent)} for {runs:,} effects; with every one of them exact, about {duration(exhaustive)}"
    )
    print("         (extrapolated from a trial: pyneuro search --method exact)")
    source = "" if args.data == EMBEDDED else f"--data {args.data} "
    print(f"next     pyneuro search {source}--out runs/first   (pyneuro top {out.path} ranks the neurons of this one)")
    return 0


def _trial(clf: Classifier, pairs: Pairs, values: Values, convention: str) -> Rate:
    """Measure on a sample of median length and some neurons of every layer and module."""
    sample = sorted(pairs, key=lambda pair: len(clf.encode(pair)))[len(pairs) // 2]
    search(clf, sample, values, sites="L*.*.0", convention=convention, progress=False)  # warms caches
    trial = _first_neurons(clf.shape, TRIAL_NEURONS)
    result = search(clf, sample, values, sites=trial, convention=convention, progress=False)
    work = len(values.treatments) * _work(clf.shape, len(clf.encode(sample)), trial)
    return Rate(float(result.manifest["run"]["seconds"]), work)


def _first_neurons(shape: ModelShape, most: int) -> NeuronSet:
    """The first neurons of every layer and module."""
    ids = [shape.offset(*site) + np.arange(min(most, shape.width(site[1]))) for site in shape.groups()]
    return NeuronSet(shape, np.concatenate(ids))


def _work(shape: ModelShape, tokens: int, neurons: NeuronSet) -> float:
    """Floating-point operations of patching these neurons once in a sample, and a little for each."""
    return sum(len(index) * (1e5 + patch_flops(shape, tokens, *site)) for site, index in neurons.groups())


def _fitting(clf: Classifier, pairs: Pairs, values: Values, seconds: float, convention: str, seed: int) -> Pairs:
    """The largest balanced sample, up to FULL, whose predictions fit the time; at least one pair a label."""
    trial = pairs[:TRIAL_SAMPLES]
    result = search(clf, trial, values, method="linear", depth="inside", convention=convention, progress=False)
    a_token = float(result.manifest["run"]["seconds"]) / sum(len(clf.encode(pair)) for pair in trial)
    labels = len(pairs.label_counts)
    most = min(FULL, labels * min(pairs.label_counts.values())) // labels * labels
    best = balanced_sample(pairs, labels, seed=seed)
    for n in sorted({max(labels, round(most * share) // labels * labels) for share in np.linspace(0.05, 1, 20)}):
        more = balanced_sample(pairs, n, seed=seed)
        if a_token * sum(len(clf.encode(pair)) for pair in more) > seconds:
            break
        best = more
    return best


def _say(text: str) -> None:
    print(text, flush=True)
