"""Class probabilities of samples, as models and files give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError

Float = npt.NDArray[np.float64]
SUM_TOLERANCE = 1e-3  # of a row, as files round them


def check_probabilities(what: str, values: npt.ArrayLike, ids: Sequence[str] | None = None) -> Float:
    """[n, K] checked. Raises InputError naming the first row that is no distribution, by its id where there are ids."""
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is no array of numbers: {error}") from error
    if table.ndim != 2 or not table.size or table.shape[1] < 2:
        raise InputError(f"{what} must be [samples, classes] with two classes or more, got {list(table.shape)}")
    odd = ~np.isfinite(table).all(1) | (table < 0).any(1) | (np.abs(table.sum(1) - 1) > SUM_TOLERANCE)
    if odd.any():
        row = int(odd.argmax())
        name = f"row {row}" if ids is None else repr(ids[row])
        raise InputError(
            f"{what}: {name} is {table[row].round(4).tolist()}, which are no probabilities (they sum to "
            f"{table[row].sum():.4g}); pass the softmax of the logits"
        )
    return table
