"""Which pairs ``pyneuro study`` uses for what: roles of the pool, training pairs, evaluation sets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyneuro.cli.arguments import EMBEDDED
from pyneuro.cli.prepare import cut_treatment_sets, read_corpus, say
from pyneuro.data import Pair, Pairs, Roles, TreatmentSets, balanced_sample, embedded_pairs, read_pairs, split_roles
from pyneuro.data.draw import sample
from pyneuro.data.roles import text_key
from pyneuro.errors import InputError
from pyneuro.evaluation.hans import GOLD, HANS_CELLS, is_hans
from pyneuro.models import Classifier

# Where not asked for, as far as there are so many. A sample more costs a prediction; three exact pairs of every neuron,
# most of the search, are needed anyway.
SAMPLES, TRAIN_PAIRS = 150, 1500
FEWEST = 20  # pairs in any part
# Training pairs are of treatment and nie, as nothing of what is found on these goes into training; tune and test stay
# unseen by everything.
WITH_TEST = {"treatment": 0.3, "nie": 0.3, "tune": 0.2, "test": 0.2}
WITHOUT_TEST = {"treatment": 0.4, "nie": 0.4, "tune": 0.2}
TEST, MATCHED, MISMATCHED, HANS, BUILT_IN = "test", "matched", "mismatched", "HANS", "HANS-like"
BUILT_IN_PAIRS = 4000  # of the generator, of which about 3 in 10 overlap fully
_HEURISTICS = {"overlap": "lexical_overlap", "subsequence": "subsequence", "constituent": "constituent"}


@dataclass(frozen=True, eq=False)
class StudyData:
    """What is searched on, tuned on, trained on, and evaluated.

    Attributes
    ----------
    roles : Roles
    treatment : TreatmentSets
    samples : Pairs
        Of the role nie; the neurons are found on these.
    tune : Pairs
        Strength, share and c are chosen on these.
    train : Pairs
        Of the roles treatment and nie.
    evaluated : mapping of name to Pairs
    """

    roles: Roles
    treatment: TreatmentSets
    samples: Pairs
    tune: Pairs
    train: Pairs
    evaluated: Mapping[str, Pairs]

    def settings(self) -> dict[str, Any]:
        """Sizes and digests, for comparison with those of another run."""
        parts = {"samples": self.samples, "tune": self.tune, "train": self.train, **self.evaluated}
        return {name: {"pairs": len(pairs), "sha256": pairs.digest()} for name, pairs in parts.items()}


def study_data(args: argparse.Namespace) -> StudyData:
    """Read and share out the pairs.

    Raises InputError for files that cannot be read, pairs without label, and too few pairs.
    """
    evaluated = {
        name: read_pairs(path)
        for name, path in ((MATCHED, args.dev), (MISMATCHED, args.dev_mismatched), (HANS, args.hans))
        if path is not None
    }
    if HANS in evaluated and not is_hans(evaluated[HANS]):
        raise InputError(f"--hans {args.hans}: not every pair has HANS's labels and heuristics; pass a file of HANS")
    pool = read_corpus(args)
    if bare := pool.labels.count(None):  # where --columns says so; the other files are read with their labels
        raise InputError(f"--data {pool.source}: {bare} pairs have no label; a study needs one of every pair")
    pool = _without(pool, evaluated)
    if args.data == EMBEDDED and HANS not in evaluated:
        evaluated[BUILT_IN] = _built_in(pool, args.seed)
    roles = split_roles(pool, args.seed, WITHOUT_TEST if MATCHED in evaluated else WITH_TEST)
    if MATCHED not in evaluated:
        evaluated = {TEST: roles.test, **evaluated}
    found_on = {*roles.treatment.ids, *roles.nie.ids}
    trained_on = pool.subset([at for at, pair in enumerate(pool) if pair.id in found_on])
    data = StudyData(
        roles,
        cut_treatment_sets(args, roles.treatment),
        _balanced("--samples", roles.nie, args.samples, SAMPLES, args.seed),
        _some(roles.tune, args.eval_pairs, args.seed),
        _balanced("--train-pairs", trained_on, args.train_pairs, TRAIN_PAIRS, args.seed),
        {name: _some(pairs, args.eval_pairs, args.seed) for name, pairs in evaluated.items()},
    )
    for name, pairs in (("tune", data.tune), ("training", data.train), *data.evaluated.items()):
        if len(pairs) < FEWEST:
            raise InputError(f"{len(pairs)} pairs for {name}; pass more, so that there are {FEWEST} at least")
    return data


def check_labels(clf: Classifier, data: StudyData) -> None:
    """Refuse pairs with labels that the model has not, and a pool without one that it has."""
    for name, pairs in (
        ("--data", data.roles.nie),
        ("--data", data.tune),
        ("--data", data.train),
        *data.evaluated.items(),
    ):
        if name in (HANS, BUILT_IN):
            continue
        if odd := [label for label in pairs.label_counts if label not in clf.label_index]:
            raise InputError(f"{name} has pairs labelled {odd[0]!r}, and the model {', '.join(clf.label_index)}")
    if missing := [label for label in clf.label_index if label not in data.train.label_counts]:
        raise InputError(
            f"no training pair is labelled {missing[0]!r}, which the model knows; pass such pairs in --data"
        )


def _without(pool: Pairs, evaluated: Mapping[str, Pairs]) -> Pairs:
    """The pool without pairs whose texts are evaluated on."""
    taken = {text_key(pair) for pairs in evaluated.values() for pair in pairs}
    kept = [at for at, pair in enumerate(pool) if text_key(pair) not in taken]
    if not kept:
        raise InputError(f"every pair of {pool.source} is in an evaluation file too; pass other pairs as --data")
    if len(kept) < len(pool):
        say(f"{pool.source}: {len(pool) - len(kept):,} of {len(pool):,} pairs left out, as they are evaluated on")
    return pool.subset(kept)


def _built_in(pool: Pairs, seed: int) -> Pairs:
    """Embedded pairs of full overlap under HANS's names of heuristics and labels, none of them in the pool."""
    taken = {text_key(pair) for pair in pool}
    made = embedded_pairs(BUILT_IN_PAIRS, seed + 1)
    return Pairs(
        (
            Pair(
                pair.id,
                pair.premise,
                pair.hypothesis,
                GOLD[pair.label != "entailment"],
                {"heuristic": _HEURISTICS[str(pair.meta["heuristic"])], "subcase": pair.meta["construction"]},
            )
            for pair in made
            if pair.meta["heuristic"] in _HEURISTICS and text_key(pair) not in taken
        ),
        source=f"{made.source}, full overlap",
    )


def _balanced(option: str, pairs: Pairs, n: int | None, default: int, seed: int) -> Pairs:
    """As many as asked for; else the default, or what there is."""
    counts = pairs.label_counts
    if n is None:
        n = min(default, len(counts) * min(counts.values()))
    try:
        return balanced_sample(pairs, n, seed=seed)
    except InputError as error:
        raise InputError(f"{option} {n}: {error}") from error


def _some(pairs: Pairs, n: int, seed: int) -> Pairs:
    """At most n pairs at random; of HANS as many of each of its six cells."""
    if len(pairs) <= n:
        return pairs
    if not is_hans(pairs):
        return pairs.subset(sample(pairs, range(len(pairs)), n, replacement=False, seed=seed, purpose="study"))
    cells = [
        [at for at, pair in enumerate(pairs) if (pair.meta["heuristic"], pair.label) == cell] for cell in HANS_CELLS
    ]
    each = max(1, n // len(cells))
    drawn = [sample(pairs, cell, each, replacement=False, seed=seed, purpose="study") for cell in cells]
    return pairs.subset([at for cell in drawn for at in cell])


def file_name(source: str | None) -> str | None:
    """What a record calls a source: its last part, since folders differ between machines."""
    return None if source is None else Path(source).name
