"""``pyneuro study``: from neurons to less biased predictions in one go: locate, weaken, counterfactual inference,
debiased training, each beside its control."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from pyneuro import evaluation, masking, mitigation
from pyneuro.cli.arguments import add_data_options, add_model_options, add_threads_option
from pyneuro.cli.prepare import load_classifier, say
from pyneuro.cli.study_data import SAMPLES, TRAIN_PAIRS, StudyData, check_labels, file_name, study_data
from pyneuro.cli.study_folder import Part, StudyFolder
from pyneuro.cli.study_table import Measures, Method, measure, save_study_figure, table, text
from pyneuro.data import Pairs
from pyneuro.engine.values import Values, mean_activations
from pyneuro.errors import InputError
from pyneuro.mitigation import Weakening
from pyneuro.mitigation.sharpness import BOUNDS
from pyneuro.models import Classifier
from pyneuro.results import Result, load_result
from pyneuro.results.environment import environment
from pyneuro.results.files import exclusive, to_json, write_atomic
from pyneuro.results.result import MANIFEST_FILE
from pyneuro.reweighting import OverlapModel, cross_fit
from pyneuro.search import rank, search
from pyneuro.search.controls import CONTROLS, matched_controls
from pyneuro.search.estimate.estimate import FEWEST_SAMPLES
from pyneuro.sites import NeuronSet

Float = npt.NDArray[np.float64]
FORMAT = "pyneuro study 1"
SEEDS, EVAL_PAIRS, EPOCHS = 3, 1000, 1.0
TOLERANCE = 1.0  # of the search: the design's error up to that of the choice of samples
METRIC = "overlap_balanced"  # plain accuracy on pairs like these rewards the shortcut
# Strength 1 is in the grid, so that leaving the model as it is can be chosen.
STRENGTHS, SHARES = (0.0, 0.5, 0.9, 1.0), (0.005, 0.02, 0.05, 0.1)
BIAS_FEATURES = "overlap"
LOSSES = ("plain", "reweight", "product_of_experts")
EXTRAS = {"sklearn": "bias", "accelerate": "train"}
TUNE = "tune"  # beside the evaluation sets, where scores are kept
# Of a counterfactual, and what tables call them.
FIELDS = {"tie_a": "TIE_A", "te_model": "TE_model"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_data_options(parser)
    sets = parser.add_argument_group("evaluation", "without --dev, on a fifth of --data that nothing else sees")
    sets.add_argument("--dev", metavar="FILE", help="labelled pairs like those of --data")
    sets.add_argument("--dev-mismatched", metavar="FILE", help="labelled pairs of other genres")
    sets.add_argument("--hans", metavar="FILE", help="HANS; without it, embedded pairs of full overlap with 'embedded'")
    sets.add_argument(
        "--eval-pairs",
        type=int,
        default=EVAL_PAIRS,
        metavar="N",
        help=f"of every evaluation set, and to tune on, at most N (default {EVAL_PAIRS:,})",
    )
    add_model_options(parser, max_length=128, convention=False)
    sizes = parser.add_argument_group("sizes")
    sizes.add_argument("--samples", type=int, metavar="N", help=f"to find neurons on (default {SAMPLES})")
    sizes.add_argument("--train-pairs", type=int, metavar="N", help=f"to train on (default {TRAIN_PAIRS:,})")
    sizes.add_argument("--epochs", type=float, default=EPOCHS, metavar="E", help=f"of training (default {EPOCHS:g})")
    sizes.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"of training (default {SEEDS})")
    sizes.add_argument(
        "--controls", type=int, default=CONTROLS, metavar="N", help=f"random ones of each kind (default {CONTROLS})"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="steps, table, record and figure")
    parser.add_argument("--resume", action="store_true", help="go on with the study in --out, if there is one")
    add_threads_option(parser)
    parser.set_defaults(
        resumable=True,
        low=None,
        high=None,
        mode=None,
        preset=None,
        scorer="whitespace",
        classes=None,
        replacement=False,
    )


def run(args: argparse.Namespace) -> int:
    _check(args)
    folder = StudyFolder(args.out, resume=args.resume)
    with exclusive(folder.path):
        data = study_data(args)
        clf = load_classifier(args)
        check_labels(clf, data)
        settings = _settings(args, data, clf)
        folder.settle(settings)
        study = _Study(args, folder, data, clf)
        rows = table(study.methods())
        print(text(rows))
        write_atomic(folder.path / "study.csv", rows.to_csv(index=False).encode())
        record = {
            "format": FORMAT,
            **environment(),
            "settings": settings,
            **study.facts,
            "rows": [{k: None if _missing(v) else v for k, v in row.items()} for row in rows.to_dict("records")],
        }
        write_atomic(folder.path / "study.json", to_json(record, "entry").encode())
        print("\nin brackets, 95 %: Student's interval over seeds; of random controls, where one more would lie")
        print(_changed(study.facts["counterfactual"]["changed"], data))
        print(f"written  {folder.path / 'study.csv'}, {folder.path / 'study.json'}")
        if find_spec("matplotlib") is None:
            say("no figure: matplotlib is not installed (pip install 'pyneuro[figures]')")
        else:
            print(f"figure   {save_study_figure(rows, folder.path / 'study.png')}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be refused before any file is read."""
    least = {"seeds": 3, "controls": 2, "eval_pairs": 1, "samples": 1, "train_pairs": 1}
    for name, low in least.items():
        if (value := getattr(args, name)) is not None and value < low:
            raise InputError(f"--{name.replace('_', '-')} {value} is too few; pass {low} or more")
    if not 0 < args.epochs < math.inf:
        raise InputError(f"--epochs {args.epochs:g} trains nothing; pass more than 0")
    for package, extra in EXTRAS.items():
        if find_spec(package) is None:
            raise InputError(f"a study needs {package}, which is not installed; run pip install 'pyneuro[{extra}]'")


def _settings(args: argparse.Namespace, data: StudyData, clf: Classifier) -> dict[str, Any]:
    """What the numbers depend on; files by name and content, not by folder."""
    sources = {name: file_name(getattr(args, name)) for name in ("data", "dev", "dev_mismatched", "hans", "model")}
    sizes = {name: getattr(args, name) for name in ("seeds", "epochs", "controls", "seed", "max_length")}
    return {
        **sources,
        **sizes,
        "pairs": data.settings(),
        "model_digest": clf.digest,
        "labels": dict(clf.label_index),
        "tolerance": TOLERANCE,
        "weaken": {"metric": METRIC, "strengths": list(STRENGTHS), "shares": list(SHARES)},
        "bias_features": BIAS_FEATURES,
        "versions": environment()["versions"],
    }


class _Study:
    """The steps, in order; each takes from the folder what is done already."""

    def __init__(self, args: argparse.Namespace, folder: StudyFolder, data: StudyData, clf: Classifier) -> None:
        self._args, self._folder, self._data, self._clf = args, folder, data, clf
        self.facts: dict[str, Any] = {}

    def methods(self) -> list[Method]:
        main = self._folder.once("main", lambda: self._predicted(self._clf, tune=True))
        methods = [Method("main model", [self._measured(main.scores)])]
        methods.append(self._weakened(self._located()))
        bias = self._folder.once("bias", self._bias)
        self.facts["bias"] = dict(bias.facts)
        methods += self._counterfactual(main, bias)
        return methods + self._trained(bias)

    def _located(self) -> Result:
        out = self._folder.path / "search"
        if (out / MANIFEST_FILE).exists():
            return load_result(out)
        say("step     locate")
        if (out / "values.npz").exists():
            values = Values.load(out / "values.npz")
        else:
            values = mean_activations(self._clf, self._data.treatment)
            out.mkdir(exist_ok=True)
            values.save(out / "values.npz")
        return search(
            self._clf,
            self._data.samples,
            values,
            method="estimate" if len(self._data.samples) >= FEWEST_SAMPLES else "exact",
            tolerance=TOLERANCE,
            seed=self._args.seed,
            out=out,
            resume=any(out.glob("tiles/*.npz")),
        )

    def _weakened(self, result: Result) -> Method:
        path = self._folder.path / "weakening.json"

        def fit() -> Part:
            found = mitigation.fit_weakening(self._clf, rank(result), self._data.tune, STRENGTHS, SHARES, metric=METRIC)
            write_atomic(path.with_suffix(".csv"), found.table.to_csv(index=False).encode())
            found.chosen.save(path)
            return Part(facts={"grid": found.table.to_dict("records")})

        self._folder.once("weaken-fit", fit)
        chosen = Weakening.load(path)
        self.facts["weakening"] = {"neurons": len(chosen.neurons), "strength": chosen.strength, **chosen.settings}
        if chosen.strength == 1.0:
            say("weaken: no point of the grid does better on tune than leaving the model as it is")

        def measured(name: str, neurons: NeuronSet) -> Measures:
            def work() -> Part:
                with replace(chosen, neurons=neurons).on(self._clf):
                    return self._predicted(self._clf)

            return self._measured(self._folder.once(name, work).scores)

        own = measured("weaken", chosen.neurons)
        drawn = matched_controls(chosen.neurons, self._args.controls, self._args.seed)
        controls = [measured(f"weaken-control-{number}", neurons) for number, neurons in enumerate(drawn)]
        return Method("weakened neurons", [own], "random neurons", controls)

    def _bias(self) -> Part:
        """Of the training pairs every one by a model that has not seen it; of others by one fitted to these."""
        model, train = OverlapModel(BIAS_FEATURES), self._data.train
        fitted = model.fit(train)
        scores = {
            name: fitted.predict(pairs).for_pairs(pairs, self._clf.label_index)
            for name, pairs in {TUNE: self._data.tune, **self._data.evaluated}.items()
        }
        crossed = cross_fit(model, train, seed=self._args.seed).for_pairs(train, self._clf.label_index)
        gold = np.array([self._clf.label_index[str(pair.label)] for pair in train])
        facts = {"accuracy": float((crossed.argmax(1) == gold).mean()), "pairs": len(train)}
        return Part({**scores, "train": crossed}, facts)

    def _counterfactual(self, main: Part, bias: Part) -> list[Method]:
        """Controls: the same, c fitted too, with the bias model's rows shuffled over the pairs."""
        found, c = self._effects(main.scores, bias.scores)
        changed = {name: {set_: effects.changed[name] for set_, effects in found.items()} for name in FIELDS}
        self.facts["counterfactual"] = {"c": c, "changed": changed}
        for name, label in FIELDS.items():
            if round(c[name], 6) in BOUNDS[name]:
                say(f"c of {label} lies at the end of what was searched, {BOUNDS[name]}: it has no optimum inside")
        shuffled = []
        for number in range(self._args.controls):
            rng = np.random.default_rng([self._args.seed, number])
            rows = {name: scores[rng.permutation(len(scores))] for name, scores in bias.scores.items()}
            shuffled.append(self._effects(main.scores, rows)[0])

        def of(effects: Mapping[str, mitigation.Counterfactual], name: str) -> Measures:
            return self._measured({set_: getattr(one, name) for set_, one in effects.items()})

        return [
            Method(label, [of(found, name)], "shuffled bias", [of(one, name) for one in shuffled])
            for name, label in FIELDS.items()
        ]

    def _effects(
        self, main: Mapping[str, Float], bias: Mapping[str, Float]
    ) -> tuple[dict[str, mitigation.Counterfactual], dict[str, float]]:
        """By evaluation set; and c, fitted on tune."""
        c, c_te = (float(mitigation.fit_sharpness(main[TUNE], bias[TUNE], of=of).c) for of in ("tie_a", "te_model"))
        effects = {name: mitigation.counterfactual(main[name], bias[name], c, c_te) for name in self._data.evaluated}
        return effects, {"tie_a": c, "te_model": c_te}

    def _trained(self, bias: Part) -> list[Method]:
        seeds = range(self._args.seeds)
        parts = {
            (loss, seed): self._folder.once(f"{loss}-{seed}", partial(self._train, loss, seed, bias))
            for seed in seeds  # a study that is stopped has some of every loss
            for loss in LOSSES
        }
        runs = {loss: [self._measured(parts[loss, seed].scores) for seed in seeds] for loss in LOSSES}
        self.facts["seconds"] = {f"{loss}-{seed}": part.facts["seconds"] for (loss, seed), part in parts.items()}
        plain, *others = LOSSES
        label = "plain fine-tuning"
        methods = [Method(label, runs[plain])]
        return methods + [Method(loss, runs[loss], label, runs[plain], paired=True) for loss in others]

    def _train(self, loss: str, seed: int, bias: Part) -> Part:
        clf = load_classifier(self._args)  # anew: training is in place
        masking.fine_tune(
            clf,
            self._data.train,
            epochs=self._args.epochs,
            loss=loss,
            known=None if loss == "plain" else {"bias": bias.scores["train"]},
            max_length=self._args.max_length,
            seed=seed,
            progress=False,
        )
        return self._predicted(clf)

    def _predicted(self, clf: Classifier, *, tune: bool = False) -> Part:
        sets: dict[str, Pairs] = {**({TUNE: self._data.tune} if tune else {}), **self._data.evaluated}
        return Part({name: evaluation.predict(clf, pairs) for name, pairs in sets.items()})

    def _measured(self, scores: Mapping[str, Float]) -> Measures:
        return measure(self._clf, self._data.evaluated, scores)


def _changed(changed: Mapping[str, Mapping[str, int]], data: StudyData) -> str:
    """Look at this before at any accuracy: a method that changes no prediction is the main model."""
    lines = []
    for name, counts in changed.items():
        of = ", ".join(f"{n:,} of {len(data.evaluated[set_]):,} on {set_}" for set_, n in counts.items())
        lines.append(f"{FIELDS[name]} changes the prediction of {of}")
    return "\n".join(lines)


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>"
