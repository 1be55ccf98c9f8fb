"""The rows of a result: which neuron or set each one is, beside the columns of its statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pyneuro.errors import InputError
from pyneuro.sites import NeuronSet

#: What ``Result.from_moments`` takes: one row a neuron, or one row a named set patched jointly.
Sites = NeuronSet | Mapping[str, NeuronSet] | Sequence[tuple[str, NeuronSet]]

SITE_COLUMNS = ("site", "layer", "module", "neuron", "size", "treatment")


def describe(sites: Sites) -> tuple[dict[str, Any], str, pd.DataFrame]:
    """Manifest entries, kind and the site columns of the table."""
    if isinstance(sites, NeuronSet):
        if not len(sites):
            raise InputError("sites is empty; pass at least one neuron")
        return {"shape": asdict(sites.shape)}, "neurons", _neuron_rows(sites)
    named = list(sites.items()) if isinstance(sites, Mapping) else list(sites)
    if not named:
        raise InputError("sites is empty; pass at least one (name, NeuronSet)")
    names = [name for name, _ in named]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"set names {repeated} occur more than once; give every set its own name")
    shapes = {members.shape for _, members in named}
    if len(shapes) > 1:
        raise InputError(
            f"the sets belong to models of different shapes, {sorted(map(str, shapes))}; use one model's sites"
        )
    rows = pd.DataFrame(
        {
            "site": pd.array(names, dtype="string"),
            "layer": pd.array([pd.NA] * len(named), dtype="Int64"),
            "module": pd.array([None] * len(named), dtype="string"),
            "neuron": pd.array([pd.NA] * len(named), dtype="Int64"),
            "size": [len(members) for _, members in named],
        }
    )
    entries = {"shape": asdict(shapes.pop()), "sets": {name: to_ranges(members.ids) for name, members in named}}
    return entries, "sets", rows


def _neuron_rows(sites: NeuronSet) -> pd.DataFrame:
    layers, modules, indices, names = [], [], [], []
    for (layer, module), index in sites.groups():
        layers.append(np.full(len(index), layer))
        modules += [module] * len(index)
        indices.append(index)
        names += [f"L{layer}.{module}.{i}" for i in index.tolist()]
    return pd.DataFrame(
        {
            "site": pd.array(names, dtype="string"),
            "layer": pd.array(np.concatenate(layers), dtype="Int64"),
            "module": pd.array(modules, dtype="string"),
            "neuron": pd.array(np.concatenate(indices), dtype="Int64"),
        }
    )


def tabulate(rows: pd.DataFrame, treatment: str, columns: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Site columns, the treatment's name and the statistics [N], side by side."""
    label = pd.DataFrame({"treatment": pd.array([treatment] * len(rows), dtype="string")})
    return pd.concat([rows, label, pd.DataFrame(dict(columns))], axis=1)


def to_ranges(ids: npt.NDArray[np.int64]) -> str:
    """Sorted ids as half-open ranges, ``"0:192,384:576"``: a half of a module is two numbers in the manifest."""
    if not len(ids):
        return ""
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    return ",".join(f"{run[0]}:{run[-1] + 1}" for run in np.split(ids, breaks))


def from_ranges(text: str) -> npt.NDArray[np.int64]:
    """Inverse of ``to_ranges``."""
    runs = [np.arange(*map(int, run.split(":"))) for run in text.split(",") if run]
    return np.concatenate([*runs, np.zeros(0, dtype=np.int64)])
