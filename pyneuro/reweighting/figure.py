"""How sample weights are spread, drawn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError
from pyneuro.results.figures import new_figure, save_png

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
    values = np.asarray(weights, dtype=np.float64)
    if values.shape != (len(labels),):
        raise InputError(f"weights are {list(values.shape)} for {len(labels)} labels; pass one a sample")
    edges = np.histogram_bin_edges(values, BINS).tolist()
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for label in dict.fromkeys(labels):
        of = values[np.array([other == label for other in labels])]
        axes.hist(of, edges, histtype="step", linewidth=1.5, label=f"{label}: mean {of.mean():.2f}")
    axes.set_xlabel("weight (mean over all samples 1)")
    axes.set_ylabel("samples")
    axes.legend(frameon=False)
    return save_png(figure, path)
