"""A result as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pyneuro.errors import InputError
from pyneuro.results.diagnostics import counted, warnings_of
from pyneuro.results.reliability import HALVES
from pyneuro.results.result import CONTRAST, Result
from pyneuro.results.significance import ALPHA
from pyneuro.sites import MODULES

FEWEST_SAMPLES = 4  # of which significance and halves are worth a line


def summary_text(result: Result, k: int = 10) -> str:
    """The strongest neurons of every treatment and of the contrast, a summary by layer, and warnings.

    Parameters
    ----------
    result : Result
    k : int
        Rows of every ranking.

    Returns
    -------
    str
        Plain text, at most 100 columns wide for site names of ordinary length.
    """
    if k < 1:
        raise InputError(f"k = {k}; pass 1 or more")
    parts = [_headline(result)]
    for treatment in result.treatments:
        parts.append(_ranking(result, treatment, f"{treatment}: {k} largest |NIE|", k))
    if result.has_contrast:
        first, second = result.treatments[:2]
        parts.append(_ranking(result, CONTRAST, f"{first} - {second}: {k} largest |contrast|", k))
    if result.kind == "neurons":
        parts.append(_layers(result))
    if warnings := warnings_of(result, k):
        lines = (textwrap.fill(line, 100, initial_indent="  ! ", subsequent_indent="    ") for line in warnings)
        parts.append("\n".join(["Warnings", *lines]))
    return "\n\n".join(parts) + "\n"


def _headline(result: Result) -> str:
    table = result.frame()
    lines = [f"{len(table) // len(result.treatments):,} {result.kind} x {', '.join(result.treatments)}"]
    for treatment, rows in table.groupby("treatment", sort=False):
        known = rows[rows["se"].notna()]
        samples = counted(int(rows["n"].max()), "sample")
        clear = ((known["ci_low"] > 0) | (known["ci_high"] < 0)).mean()
        lines.append(
            f"  {treatment}: {samples}, mean NIE {_number(rows['nie'].mean())}, median |NIE| "
            f"{_size(rows['nie'].abs().median())}, interval clear of 0 for {_share(clear)}"
        )
        if rows["n"].max() >= FEWEST_SAMPLES:
            lines.append(f"    {_uncertainty(result, str(treatment))}")
    run = result.manifest.get("run", {})
    if "exact_pairs" in run:
        lines.append(
            f"  Estimated: {counted(run['exact_pairs'], 'exact pair')} in {counted(run['rounds'], 'round')}, "
            f"{_share(run['tolerance_met'])} of the means within tolerance ({run['ended']})."
        )
    coverage = float(result.manifest["result"]["ci"])
    lines.append(f"  Intervals cover {coverage:.0%} one at a time: {1 - coverage:.0%} clear 0 by chance.")
    return "\n".join(lines)


def _uncertainty(result: Result, treatment: str) -> str:
    """What of a treatment's effects is more than the noise of the texts."""
    found = result.significance(treatment)
    text = f"{found['significant'].sum():,} of {len(found):,} significant at a false discovery rate of {ALPHA:.0%}"
    if not set(HALVES) <= set(result.frame().columns):
        return text
    halves = float(result.reliability(treatment)["spearman"].iloc[-1])
    return text if np.isnan(halves) else f"{text}, split-half Spearman {halves:.2f}"


def _ranking(result: Result, treatment: str, title: str, k: int) -> str:
    top = result.top(k, treatment=treatment, absolute=True)
    rows = [
        [
            str(row["site"]),
            _number(row["nie"]),
            _interval(row["ci_low"], row["ci_high"]),
            _number(row["log_nie"]),
            _number(row["diff"]),
            _share(row["largest_share"]),
        ]
        for row in top.to_dict("records")
    ]
    return title + "\n" + _aligned(["site", "NIE", "interval", "log NIE", "diff", "largest"], rows)


def _layers(result: Result) -> str:
    """Per layer: mean |NIE| by module, for every treatment."""
    table = result.frame()
    table["strength"] = table["nie"].abs()
    modules = [module for module in MODULES if module in set(table["module"])]
    parts = []
    for treatment, mine in table.groupby("treatment", sort=False):
        rows = []
        for layer, group in mine.groupby("layer"):
            means = group.groupby("module")["strength"].mean().to_dict()
            best = group.sort_values("strength", ascending=False, kind="stable").head(1).to_dict("records")[0]
            values = [_size(means.get(module, float("nan"))) for module in modules]
            rows.append([f"L{layer}", *values, f"{best['site']} ({_number(best['nie'])})"])
        parts.append(f"{treatment}: mean |NIE| by layer\n" + _aligned(["layer", *modules, "strongest"], rows))
    return "\n\n".join(parts)


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to equal width: the first and last left-aligned text, numbers to the right."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in [header, *rows]
    )


def _number(value: float) -> str:
    """Three digits, a sign and the power of ten, so that columns compare at a glance; a dash for what is not known."""
    return "-" if pd.isna(value) else "0" if value == 0 else f"{value:+.2e}"


def _size(value: float) -> str:
    return "-" if pd.isna(value) else "0" if value == 0 else f"{value:.1e}"


def _interval(low: float, high: float) -> str:
    return "-" if pd.isna(low) else f"[{_number(low)}, {_number(high)}]"


def _share(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:.0%}"
