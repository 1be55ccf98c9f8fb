"""Figures of a result as PNG files: where effects sit, how they spread, which neurons lead, how treatments compare."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.errors import InputError
from pyneuro.results.files import writable_folder, write_atomic
from pyneuro.results.result import Result
from pyneuro.sites import MODULES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

TOP_SHARE = 0.05
TOP_ROWS = 20
_LABELLED = 8
# The smallest effects fall to 1e-12 and below within the last ranks; the curve ends where this share is left.
_TAIL = 0.01
_DPI = 150
# Okabe & Ito (2008): told apart by every common kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_INK, _FAINT = "#333333", "#BBBBBB"


def save_figures(result: Result, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw a result into PNG files.

    ``nie_by_layer.png``
        Layer by module, mean |NIE| of the top 5 % neurons of each cell, one panel a treatment (single neurons only).
    ``nie_sorted.png``
        |NIE| by rank, both axes logarithmic.
    ``nie_top.png``
        The 20 rows with the largest |NIE| under any treatment, with their intervals; a dotted line across where a row
        has none.
    ``nie_treatments.png``
        First treatment against second (two or more treatments only).

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    InputError
        matplotlib is missing, or the folder cannot be written.
    """
    drawings = {"nie_sorted.png": _sorted_curve, "nie_top.png": _top_rows}
    if result.kind == "neurons":
        drawings = {"nie_by_layer.png": _heat_map, **drawings}
    if len(result.treatments) > 1:
        drawings["nie_treatments.png"] = _treatments
    return [save_png(draw(result), Path(folder) / name) for name, draw in drawings.items()]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches. Raises InputError where matplotlib is missing."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise InputError(
            "figures need matplotlib, which is not installed; run: pip install 'pyneuro[figures]'"
        ) from error
    # Not pyplot: no window, no global state, no backend to choose.
    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def save_png(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure whole or not at all. Raises InputError where the file cannot be written."""
    target, buffer = writable_folder(Path(path).parent) / Path(path).name, io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    write_atomic(target, buffer.getvalue())
    return target


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)


def _by_site(result: Result) -> pd.DataFrame:
    """NIE with one row a site and one column a treatment, in the result's order."""
    table = result.frame()
    return table.pivot_table(index="site", columns="treatment", values="nie", sort=False, dropna=False)[
        result.treatments
    ]


def top_share_means(result: Result, treatment: str) -> pd.DataFrame:
    """Mean |NIE| of the top 5 % neurons of every cell [layers x modules]; nan where no neuron was searched."""
    table = result.frame()
    table = table[table["treatment"] == treatment]

    def strongest(values: pd.Series[float]) -> float:
        ordered = np.sort(values.abs().dropna().to_numpy())[::-1]
        return float(ordered[: max(1, round(TOP_SHARE * len(ordered)))].mean()) if len(ordered) else float("nan")

    cells = table.groupby(["layer", "module"])["nie"].agg(strongest).unstack("module")
    searched = [module for module in MODULES if module in cells.columns]
    return cells.reindex(index=range(result.shape.layers))[searched]


def _heat_map(result: Result) -> Figure:
    from matplotlib.colors import LogNorm

    cells = {treatment: top_share_means(result, treatment) for treatment in result.treatments}
    values = np.concatenate([table.to_numpy(dtype=float).ravel() for table in cells.values()])
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1e-6, 1e-5)
    norm = LogNorm(low, high if high > low else 10 * low)
    power = 3 * math.floor(math.log10(high) / 3)
    unit = 10.0**power
    layers, modules = next(iter(cells.values())).shape
    figure = new_figure(1.6 + (0.75 * modules + 0.7) * len(cells), 1.4 + 0.42 * layers)
    panels = figure.subplots(1, len(cells), squeeze=False, sharey=True)[0]
    for axes, (treatment, table) in zip(panels, cells.items(), strict=True):
        grid = table.to_numpy(dtype=float)
        image = axes.imshow(np.where(grid > 0, grid, np.nan), norm=norm, cmap="cividis", aspect="auto")
        axes.set_facecolor("#EEEEEE")
        axes.set_title(treatment, color=_INK)
        axes.set_xticks(range(modules), table.columns)
        axes.set_yticks(range(layers), [f"{layer}" for layer in table.index])
        axes.invert_yaxis()
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                ink = "white" if value > 0 and norm(value) < 0.45 else "black"
                axes.text(column, row, f"{value / unit:.2g}", ha="center", va="center", fontsize=8, color=ink)
    panels[0].set_ylabel("layer")
    figure.supxlabel("module", fontsize=10)
    figure.suptitle(f"Mean |NIE| of each cell's top {TOP_SHARE:.0%} neurons, in units of 1e{power}", color=_INK)
    figure.colorbar(image, ax=list(panels), label="mean |NIE|", pad=0.02)
    return figure


def _sorted_curve(result: Result) -> Figure:
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    table = result.frame()
    drawn, bottom = 0, np.inf
    for i, (treatment, rows) in enumerate(table.groupby("treatment", sort=False)):
        strength = np.sort(rows["nie"].abs().dropna().to_numpy())[::-1]
        count = len(strength)
        moving = strength[strength > 0]
        drawn = max(drawn, count)
        if not len(moving):
            axes.plot([], [], color=_COLOURS[i % 6], label=f"{treatment}: nothing above 0")
            continue
        bottom = min(bottom, float(np.quantile(moving, _TAIL)))
        axes.plot(
            np.arange(1, len(moving) + 1),
            moving,
            color=_COLOURS[i % 6],
            lw=2,
            ls=("-", "--", ":")[i % 3],
            marker=_MARKERS[i % 6] if count <= 100 else "",
            ms=4,
            label=f"{treatment}: median {np.median(strength):.1e}, max {strength[0]:.1e}",
        )
    if drawn >= 1 / TOP_SHARE:
        cut = TOP_SHARE * drawn
        axes.axvline(cut, color=_FAINT, lw=1, zorder=0)
        axes.text(cut, 0.02, f" top {TOP_SHARE:.0%}", color=_INK, fontsize=8, transform=axes.get_xaxis_transform())
    if np.isfinite(bottom):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=bottom / 2)
    noun = "neurons" if result.kind == "neurons" else "sets"
    axes.set_xlabel(f"rank among {drawn:,} {noun}")
    axes.set_ylabel("|NIE|")
    axes.set_title("How effects are spread", color=_INK)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.06), fontsize=9)
    _plain(axes)
    return figure


def _top_rows(result: Result) -> Figure:
    wide = _by_site(result)
    chosen = wide.abs().max(axis=1).sort_values(ascending=False, kind="stable").index[:TOP_ROWS]
    table = result.frame().set_index(["treatment", "site"])
    figure = new_figure(6.4, 1.3 + 0.3 * len(chosen))
    axes = figure.subplots()
    axes.axvline(0, color=_FAINT, lw=1, zorder=0)
    spread = 0.16 * (len(result.treatments) - 1)
    for i, treatment in enumerate(result.treatments):
        rows = table.loc[treatment].loc[chosen]
        nie = rows["nie"].to_numpy(dtype=float)
        bars = np.abs(rows[["ci_low", "ci_high"]].to_numpy(dtype=float).T - nie)
        unknown = ~np.isfinite(bars).all(axis=0)
        bars[:, unknown] = 0
        place = np.arange(len(chosen)) + (np.linspace(-spread, spread, len(result.treatments))[i])
        colour, marker = _COLOURS[i % 6], _MARKERS[i % 6]
        axes.errorbar(
            nie,
            place,
            xerr=bars,
            fmt=marker,
            ms=5,
            color=colour,
            ecolor=colour,
            elinewidth=1.2,
            capsize=2,
            label=treatment,
        )
        # A line across, not a point that looks certain: an estimate that was stopped early may not know its error yet.
        for height in place[unknown]:
            axes.axhline(height, color=colour, ls="dotted", lw=1.2)
    axes.set_yticks(range(len(chosen)), list(chosen), family="monospace", fontsize=9)
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    axes.grid(axis="y", color="#EEEEEE", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"NIE with {float(result.manifest['result']['ci']):.0%} interval")
    axes.set_title(f"The {len(chosen)} largest |NIE|", color=_INK)
    axes.legend(frameon=False, loc="best")
    _plain(axes)
    return figure


def _treatments(result: Result) -> Figure:
    first, second = result.treatments[:2]
    wide = _by_site(result)
    wide = wide[[first, second]].dropna()
    x, y = wide[first].to_numpy(dtype=float), wide[second].to_numpy(dtype=float)
    figure = new_figure(6.8, 5.8)
    axes = figure.subplots()
    moving = np.abs(np.concatenate([x, y]))
    moving = moving[moving > 0]
    # asinh is linear for the crowd around 0, logarithmic for the few large effects, and smooth in between.
    width = float(np.quantile(moving, 0.9)) if len(moving) else 1.0
    limit = 1.8 * max(float(moving.max()) if len(moving) else 1.0, width)
    axes.plot([-limit, limit], [-limit, limit], color=_FAINT, lw=1, zorder=0)
    axes.axhline(0, color="#EEEEEE", lw=1, zorder=0)
    axes.axvline(0, color="#EEEEEE", lw=1, zorder=0)
    axes.scatter(
        x, y, s=8 if len(x) > 200 else 24, color=_COLOURS[0], alpha=0.35 if len(x) > 200 else 0.8, linewidths=0
    )
    order = np.argsort(-np.abs(x - y), kind="stable")[:_LABELLED]
    axes.scatter(x[order], y[order], s=26, color=_COLOURS[1], linewidths=0, label=f"largest |{first} - {second}|")
    axes.set_xscale("asinh", linear_width=width)
    axes.set_yscale("asinh", linear_width=width)
    ticks, labels = _decades(width, limit)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, labels)
        axis.set_ticks([], minor=True)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    _label_column(axes, x[order], y[order], [str(wide.index[i]) for i in order])
    axes.set_aspect("equal")
    axes.set_xlabel(f"NIE, {first}")
    axes.set_ylabel(f"NIE, {second}")
    axes.set_title(f"{first} against {second} (asinh scale)", color=_INK)
    axes.legend(frameon=False, loc="upper left")
    _plain(axes)
    return figure


def _decades(width: float, limit: float) -> tuple[list[float], list[str]]:
    """Ticks at 0 and at powers of ten beyond the linear part, on both sides, four a side at most."""
    highest = math.floor(math.log10(limit))
    lowest = min(math.ceil(math.log10(width)), highest)
    powers = range(highest, lowest - 1, -(1 + (highest - lowest) // 4))
    right = [(10.0**power, f"$10^{{{power}}}$") for power in reversed(powers)]
    left = [(-value, f"$-{label[1:]}") for value, label in reversed(right)]
    ticks = [*left, (0.0, "0"), *right]
    return [value for value, _ in ticks], [label for _, label in ticks]


def _label_column(axes: Axes, x: Floats, y: Floats, names: list[str]) -> None:
    """Names stacked right of the axes in the order of y, clear of each other and tied to their points."""
    order = np.argsort(y, kind="stable")
    heights = axes.transAxes.inverted().transform(axes.transData.transform(np.column_stack([x, y])))[:, 1]
    gap, lowest = 0.04, 0.03
    places = {}
    for i in order:
        places[i] = lowest = max(float(heights[i]), lowest)
        lowest += gap
    # Slide the stack down when it runs out at the top, keeping the gaps.
    ceiling = 0.98
    for i in order[::-1]:
        places[i] = ceiling = min(places[i], ceiling)
        ceiling -= gap
    for i, height in places.items():
        axes.annotate(
            names[i],
            (x[i], y[i]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=_INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _FAINT, "lw": 0.8, "shrinkA": 1, "shrinkB": 2},
        )
