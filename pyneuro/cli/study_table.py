"""What ``pyneuro study`` reports: every method by evaluation set and measure beside its control, as rows, text and
figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro import evaluation
from pyneuro.data import Pairs
from pyneuro.evaluation.hans import is_hans
from pyneuro.models import Classifier
from pyneuro.results.figures import new_figure, save_png
from pyneuro.search import beside_controls

Float = npt.NDArray[np.float64]
Measures = Mapping[tuple[str, str], float]
# The measures of a set that are printed and drawn; study.csv has all of them.
SHOWN = ("accuracy", "overlap_balanced", "entailed", "non-entailed")


@dataclass(frozen=True, eq=False)
class Method:
    """A method's numbers and those of its control.

    Attributes
    ----------
    name, control : str
        What tables call them; no control is "".
    runs : sequence of {(set, measure): value}
        One a seed, or one alone.
    controls : sequence of the same
        Random ones; or, where `paired`, one a seed, in the order of `runs`.
    paired : bool
        Whether the difference to the control is taken seed by seed.
    """

    name: str
    runs: Sequence[Measures]
    control: str = ""
    controls: Sequence[Measures] = ()
    paired: bool = False


def measure(clf: Classifier, evaluated: Mapping[str, Pairs], scores: Mapping[str, Float]) -> Measures:
    """Every measure of every set, by (set, measure), from the classes' scores.

    Of HANS (merge rule "argmax") the accuracy, its means over the three heuristics by gold label, and the six cells; of
    others accuracy, "overlap_balanced" (mean over the cells of overlap by label), and these cells.
    """
    found: dict[tuple[str, str], float] = {}
    for name, pairs in evaluated.items():
        if is_hans(pairs):
            hans = evaluation.hans(scores[name], pairs, labels=clf.label_index)
            found[name, "accuracy"] = hans.accuracy
            for label, short in (("entailment", "entailed"), ("non-entailment", "non-entailed")):
                found[name, short] = float(hans.cells.loc[hans.cells["label"] == label, "accuracy"].mean())
            for heuristic, label, value, _ in hans.cells.itertuples(index=False):
                found[name, f"{heuristic}, {label}"] = float(value)
            continue
        found[name, "accuracy"] = evaluation.accuracy(clf, scores[name], pairs).accuracy
        cells = evaluation.overlap_accuracy(clf, scores[name], pairs)
        found[name, "overlap_balanced"] = float(cells["accuracy"].mean())
        for low, high, label, value, _ in cells.itertuples(index=False):
            found[name, f"overlap {low:g} to {high:g}, {label}"] = float(value)
    return found


def table(methods: Sequence[Method]) -> pd.DataFrame:
    """A row a method, set and measure.

    ``value`` (mean over ``seeds``), ``sd, ci_low, ci_high`` over seeds; ``control, control_mean, controls``, of random
    controls ``control_low, control_high`` (prediction interval) and ``p_value``; ``difference`` to the control's mean,
    with ``difference_low, difference_high`` over seeds where it is taken seed by seed.
    """
    rows = []
    for method in methods:
        for key in method.runs[0]:
            values = [run[key] for run in method.runs]
            seeds = evaluation.over_seeds(values)
            several = len(values) > 1
            row: dict[str, object] = {"method": method.name, "set": key[0], "measure": key[1], "value": seeds.mean}
            row |= {"seeds": len(values) if several else None, "sd": seeds.sd}
            row |= {"ci_low": seeds.ci_low, "ci_high": seeds.ci_high, "control": method.control or None}
            controls = [run[key] for run in method.controls]
            row |= {
                "control_mean": float(np.mean(controls)) if controls else math.nan,
                "controls": len(controls) or None,
            }
            if method.paired:
                gain = evaluation.over_seeds([a - b for a, b in zip(values, controls, strict=True)])
                row |= {"difference": gain.mean, "difference_low": gain.ci_low, "difference_high": gain.ci_high}
            elif controls:
                beside = beside_controls(seeds.mean, controls)
                row |= {"control_low": beside.low, "control_high": beside.high, "p_value": beside.p_value}
                row["difference"] = seeds.mean - beside.mean
            rows.append(row)
    columns = ["method", "set", "measure", "value", "seeds", "sd", "ci_low", "ci_high", "control", "controls"]
    columns += ["control_mean", "control_low", "control_high", "p_value"]
    columns += ["difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=columns).astype({"seeds": "Int64", "controls": "Int64"})


def text(rows: pd.DataFrame) -> str:
    """The shown measures, a line a method, under it the control."""
    shown = rows[rows["measure"].isin(SHOWN)]
    keys = list(dict.fromkeys(zip(shown["set"], shown["measure"], strict=True)))
    lines: list[list[str]] = []
    for method, of in shown.groupby("method", sort=False):
        cells = {(row["set"], row["measure"]): row for row in of.to_dict("records")}
        first = next(iter(cells.values()))
        lines.append([str(method), *(_value(cells[key]) for key in keys)])
        if isinstance(first["control"], str):
            less = not math.isnan(first["difference_low"])
            label = f"  less {first['control']}, same seeds" if less else f"  {first['controls']} x {first['control']}"
            lines.append([label, *(_control(cells[key]) for key in keys)])
    width = max(len(line[0]) for line in lines)
    head = pd.MultiIndex.from_tuples([("", "method".ljust(width)), *keys])
    lines = [[name.ljust(width), *cells] for name, *cells in lines]
    return pd.DataFrame(lines, columns=head).to_string(index=False)


def save_study_figure(rows: pd.DataFrame, path: Path) -> Path:
    """A panel a shown measure: every method's value, with its interval over seeds, and its control's interval."""
    shown = rows[rows["measure"].isin(SHOWN)]
    keys = list(dict.fromkeys(zip(shown["set"], shown["measure"], strict=True)))
    methods = list(dict.fromkeys(shown["method"]))
    figure = new_figure(2.2 + 2.2 * len(keys), 1.2 + 0.42 * len(methods))
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for axes, (name, of) in zip(panels, keys, strict=True):
        for row in shown[(shown["set"] == name) & (shown["measure"] == of)].to_dict("records"):
            at = methods.index(row["method"])
            if not math.isnan(row["control_mean"]):
                low, high = row["control_low"], row["control_high"]
                if not math.isnan(low):
                    axes.plot([low, high], [at + 0.18] * 2, color="#BBBBBB", linewidth=4, solid_capstyle="butt")
                axes.plot(row["control_mean"], at + 0.18, "|", color="#333333", markersize=8)
            if not math.isnan(row["ci_low"]):
                axes.plot([row["ci_low"], row["ci_high"]], [at] * 2, color="#0072B2", linewidth=1.5)
            axes.plot(row["value"], at, "o", color="#0072B2", markersize=5)
        axes.set_title(f"{name}\n{of}", fontsize=9)
        axes.grid(axis="x", linewidth=0.4)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    figure.supxlabel("blue: method, with 95 % interval over seeds; below it in grey: its control", fontsize=8)
    return save_png(figure, path)


def _value(row: Mapping[Any, Any]) -> str:
    shown = f"{row['value']:.3f}"
    return shown if math.isnan(row["ci_low"]) else f"{shown} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _control(row: Mapping[Any, Any]) -> str:
    if not math.isnan(row["difference_low"]):
        return f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    return f"{row['control_mean']:.3f} [{row['control_low']:.3f}, {row['control_high']:.3f}]"
