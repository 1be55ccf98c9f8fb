"""What a mask did, layer by layer: figures, published rates, effect on accuracy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pyneuro.data.pairs import Pair
from pyneuro.masking.apply import masked_layers, places, without
from pyneuro.masking.masks import Masks
from pyneuro.masking.trainer import accuracy
from pyneuro.models.classifier import Classifier
from pyneuro.results.figures import new_figure, save_png
from pyneuro.sites import MODULES

# Share masked by layer, 0 to 11: read off Meissner et al.'s figure notebooks/pruning_rate.pdf (MNLI, τ = 0.1).
_PUBLISHED = {
    "Q": [9.3, 9.5, 9.4, 9.7, 9.6, 9.8, 9.9, 9.7, 9.6, 9.2, 8.2, 8.1],
    "K": [8.9, 9.2, 9.4, 9.7, 9.7, 9.7, 9.9, 9.6, 9.5, 9.1, 8.1, 8.2],
    "V": [8.5, 8.2, 8.3, 8.5, 8.7, 8.4, 8.2, 7.7, 7.7, 7.4, 6.6, 5.4],
    "AO": [8.8, 8.8, 8.6, 8.9, 9.2, 9.1, 8.8, 8.5, 8.1, 7.6, 6.6, 4.5],
    "I": [9.1, 9.1, 8.9, 9.0, 8.9, 9.1, 9.2, 8.9, 8.8, 8.0, 6.4, 3.1],
    "O": [8.1, 8.0, 7.8, 7.9, 7.7, 7.8, 7.5, 7.0, 6.7, 5.3, 3.5, 1.6],
}


def published_rates() -> pd.DataFrame:
    """Share masked by layer (from 0) and module in BERT-base, of the debiasing mask of Meissner et al. (2022): read off
    the vector graphic in their repository, to 0.1 %."""
    table = pd.DataFrame(_PUBLISHED) / 100
    table.index.name, table.columns.name = "layer", "module"
    return table


def compare_rates(masks: Masks) -> pd.DataFrame:
    """Rates beside the published ones, a row a layer and module: ``layer, depth`` (0 first layer, 1 last) ``, module,
    rate, published`` (interpolated in depth where the models differ in layers)."""
    rates, published = masks.rates(), published_rates()
    layers = [layer for layer in rates.index if layer != "head"]
    last = max(max(layers, default=1), 1)
    rows = [
        {
            "layer": layer,
            "depth": layer / last,
            "module": module,
            "rate": rates.loc[layer, module],
            "published": np.interp(layer / last * 11, np.arange(12), published[module]),
        }
        for layer in layers
        for module in MODULES
        if module in rates.columns and not pd.isna(rates.loc[layer, module])
    ]
    return pd.DataFrame(rows)


def layer_effects(clf: Classifier, pairs: Sequence[Pair], *, max_length: int | None = 128) -> pd.DataFrame:
    """Accuracy of a masked classifier with one layer's masks taken off, and with no others than that layer's.

    Returns a DataFrame with a row a layer, ``layer, without, alone``; the first row, layer "all", has the accuracy
    without any mask and with all of them. "head" stands for pooler and classifier.
    """
    where = {place.name: place.layer for place in places(clf)}
    names = list(masked_layers(clf))
    groups: dict[int | str, list[str]] = {}
    for name in names:
        number = where[name]
        groups.setdefault("head" if number is None else number, []).append(name)
    rows: list[dict[str, object]] = []

    def measured(off: list[str]) -> float:
        with without(clf, off):
            return accuracy(clf, pairs, max_length=max_length)

    rows.append({"layer": "all", "without": measured(names), "alone": measured([])})
    for layer, own in groups.items():
        others = [name for name in names if name not in own]
        rows.append({"layer": layer, "without": measured(own), "alone": measured(others)})
    return pd.DataFrame(rows)


def save_rates_figure(masks: Masks, path: str | os.PathLike[str]) -> Path:
    """Heat map of the share masked, layer (from 0) by module, as PNG. Raises InputError where matplotlib is missing or
    the file cannot be written."""
    rates = masks.rates()
    figure = new_figure(1.2 + 0.7 * rates.shape[1], 1.2 + 0.35 * len(rates))
    axes = figure.subplots()
    image = axes.imshow(rates.to_numpy(dtype=float) * 100, aspect="auto", cmap="viridis", vmin=0)
    axes.set_xticks(range(rates.shape[1]), list(rates.columns))
    axes.set_yticks(range(len(rates)), [str(layer) for layer in rates.index])
    axes.set_xlabel("module")
    axes.set_ylabel("layer, from 0")
    figure.colorbar(image, label="% masked")
    return save_png(figure, path)
