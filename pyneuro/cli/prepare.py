"""From options to what an analysis needs: classifier, pairs, roles, treatment sets, samples, a folder to write to."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pyneuro.cli.arguments import BUNDLED, EMBEDDED, EMBEDDED_PAIRS
from pyneuro.data import Pairs, Roles, TreatmentSets, balanced_sample, embedded_pairs, read_pairs, treatment_sets
from pyneuro.data.manifest import write_json
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, ResumeError
from pyneuro.models import Classifier, bundled_model, load
from pyneuro.models.quiet import no_bars
from pyneuro.results.files import read_json, writable_folder
from pyneuro.results.result import MANIFEST_FILE

# Entries of a manifest that change because an option does; the option is what to name.
_FOLLOWS = ("source_sha256", "thresholds")


def say(text: str) -> None:
    """A line on the way, on standard error: standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def read_corpus(args: argparse.Namespace, *, parses: bool = False) -> Pairs:
    """The pairs that ``--data`` names; with their parses where asked for."""
    if args.data == EMBEDDED:
        for option in ("split", "columns"):
            if getattr(args, option) is not None:
                raise InputError(
                    f"--{option} has no meaning for the embedded pairs; leave it out, or name other --data"
                )
        return embedded_pairs(EMBEDDED_PAIRS if args.limit is None else args.limit, args.seed)
    pairs = read_pairs(args.data, split=args.split, columns=args.columns, limit=args.limit, parses=parses)
    if pairs.dropped:
        reasons = ", ".join(f"{count} ({reason})" for reason, count in pairs.dropped.items())
        say(f"{pairs.source}: {len(pairs):,} pairs; dropped {reasons}")
    return pairs


def load_classifier(args: argparse.Namespace) -> Classifier:
    """The classifier that ``--model`` names."""
    source = bundled_model() if args.model == BUNDLED else args.model
    with no_bars():
        return load(source, labels=args.labels, max_length=args.max_length)


def cut_treatment_sets(args: argparse.Namespace, pairs: Pairs) -> TreatmentSets:
    """HOL and LOL of the treatment role.

    The embedded pairs score exactly 0 and 1 by design; unless something else is asked for, their sets are these.
    """
    low, high, mode = args.low, args.high, args.mode
    unsaid = low is None and high is None and mode is None and args.preset is None and args.scorer == "whitespace"
    if args.data == EMBEDDED and unsaid:
        low, high, mode = 0.0, 1.0, "absolute"
    return treatment_sets(
        pairs,
        20 if low is None else low,
        80 if high is None else high,
        mode=mode or "percentile",
        scorer=args.scorer,
        preset=args.preset,
        classes=args.classes,
        replacement=args.replacement,
        seed=args.seed,
    )


def describe_sets(sets: TreatmentSets) -> list[str]:
    """A line a set: threshold and pairs per class."""
    lines = []
    for name, sign, threshold in (("HOL", ">=", sets.high_threshold), ("LOL", "<=", sets.low_threshold)):
        counts = ", ".join(f"{count} {label}" for label, count in sets.counts_after[name].items())
        lines.append(f"{name}: {len(sets[name]):,} pairs with overlap {sign} {threshold:.3g} ({counts})")
    return lines


def choose_samples(pairs: Pairs, n: int | None, seed: int) -> Pairs:
    """All samples, or ``n`` of them with equal numbers of every label (the first ``n`` where there are no labels)."""
    if n is None:
        return pairs
    if n < 1:
        raise InputError(f"--samples {n} leaves nothing to search on; pass 1 or more")
    if not any(pairs.labels):
        return pairs[:n]
    return balanced_sample(pairs, n, seed=seed)


def treatment_beside(values: str) -> dict[str, Any] | None:
    """The manifest of the treatment sets that ``pyneuro means`` left beside a values file; None where none can be
    read."""
    path = Path(values.removesuffix(".npz") + ".treatment.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def check_apart(values: str, samples: Pairs) -> None:
    """Refuse to search on pairs that the values are means of, going by the manifest that ``pyneuro means`` left.

    Without a manifest nothing is known and nothing refused.
    """
    try:
        sets = (treatment_beside(values) or {})["sets"]
        averaged = {pair_id for made in sets.values() for pair_id in made["ids"]}
    except (LookupError, TypeError, AttributeError):
        return
    if both := [pair_id for pair_id in samples.ids if pair_id in averaged]:
        raise InputError(
            f"{len(both)} of the {len(samples)} samples ({both[0]!r}, ...) are among the pairs {values!r} averages "
            "over; make the values with the same --data and --seed"
        )


def check_roles(folder: Path, roles: Roles) -> None:
    """Refuse pairs that are not split as those of the search in a folder. Nothing is known where it has no record."""
    path = folder / "roles.json"
    if not path.exists():
        say(f"{folder} does not say which pairs had which role; only the pairs searched on are known")
        return
    stored, given = read_json(path, "search again"), roles.manifest()
    for name in ("source_sha256", "seed", "fractions"):
        if stored.get(name) != given[name]:
            raise InputError(
                f"the pairs are not split as those of the search in {str(folder)!r}: {name} differs; pass the same "
                "--data, --limit and --seed"
            )


class OutFolder:
    """The folder of a search: what it is made of beside the result itself.

    ``roles.json``
        Which pair had which role.
    ``treatment.json``
        The treatment sets, as far as they are known.
    ``values.npz``
        The replacement values; a resumed search takes them from here.
    ``figures/``
        PNG files.
    """

    def __init__(self, path: str, *, resume: bool, overwrite: bool = False) -> None:
        self.path = writable_folder(path)
        partial, finished = any(self.path.glob("tiles/*.npz")), (self.path / MANIFEST_FILE).exists()
        self.going_on = resume and (partial or finished)
        if (partial or finished) and not (resume or overwrite):
            raise InputError(
                f"folder {path!r} holds {'partial results' if partial else 'a finished result'}; pass --resume to "
                f"{'continue them' if partial else 'read it'}, or choose another folder"
            )

    @property
    def values(self) -> Path:
        return self.path / "values.npz"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    def record(
        self, roles: Roles, sets: TreatmentSets | None, values: Values | None, values_file: str | None = None
    ) -> None:
        """Write what the search uses; what an earlier one used and this one does not goes.

        Values that came from a file bring the manifest of their treatment sets with them, if it lies beside it.
        """
        roles.save(self.path / "roles.json")
        treatment = sets.manifest() if sets is not None else values_file and treatment_beside(values_file)
        if treatment:
            write_json(treatment, self.path / "treatment.json")
        else:
            (self.path / "treatment.json").unlink(missing_ok=True)
        if values is not None:
            values.save(self.values)
        else:
            self.values.unlink(missing_ok=True)

    def check_treatment(self, sets: TreatmentSets) -> None:
        """Refuse to go on with values of other treatment sets.

        Raises ResumeError naming what differs.
        """
        path = self.path / "treatment.json"
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResumeError(f"{str(path)!r} cannot be read ({error}); start again in another folder") from error
        given: dict[str, Any] = json.loads(json.dumps(sets.manifest()))
        for key in sorted(given, key=lambda key: key in _FOLLOWS):
            if stored.get(key) != given[key]:
                shown = [json.dumps(side.get(key)) for side in (stored, given)]
                values = "" if max(map(len, shown)) > 80 else f" ({shown[0]} in the folder, {shown[1]} now)"
                raise ResumeError(
                    f"folder {str(self.path)!r} holds values of other treatment sets: {key} differs{values}; "
                    "pass the same options to continue, or choose another folder"
                )
