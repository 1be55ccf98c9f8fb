"""How sample weights are spread, drawn."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError
from pyneuro.results.figures import require_matplotlib
from pyneuro.results.files import writable_folder, write_atomic

BINS = 40


def save_weights_figure(weights: npt.ArrayLike, labels: Sequence[str], path: str | os.PathLike[str]) -> Path:
    """Histogram of sample weights by gold label, as PNG.

    Parameters
    ----------
    weights : float [n]
    labels : sequence of str [n]
    path : path

    Raises
    ------
    InputError
        For another number of labels than weights, where matplotlib is missing, or the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (len(labels),):
        raise InputError(f"weights are {list(values.shape)} for {len(labels)} labels; pass one a sample")
    edges = np.histogram_bin_edges(values, BINS).tolist()
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for label in dict.fromkeys(labels):
        of = values[np.array([other == label for other in labels])]
        axes.hist(of, edges, histtype="step", linewidth=1.5, label=f"{label}: mean {of.mean():.2f}")
    axes.set_xlabel("weight (mean over all samples 1)")
    axes.set_ylabel("samples")
    axes.legend(frameon=False)
    target, buffer = Path(path), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomic(writable_folder(target.parent) / target.name, buffer.getvalue())
    return target
