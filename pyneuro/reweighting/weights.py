"""Weights of samples from what a biased model makes of them."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pyneuro.data.probabilities import check_probabilities
from pyneuro.errors import InputError

Float = npt.NDArray[np.float64]
Kind = Literal["one_minus", "one_minus_squared", "inverse_propensity"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Direction = Literal["debias", "amplify"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


def sample_weights(
    p_bias: npt.ArrayLike,
    labels: npt.ArrayLike,
    kind: Kind = "one_minus",
    *,
    trim: float | None = 95.0,
    direction: Direction = "debias",
) -> Float:
    """Weights [n] of training samples, mean 1.

    Parameters
    ----------
    p_bias : float [n, K]
        Probabilities of a biased model.
    labels : int [n]
        Gold classes; β = p_bias(gold).
    kind : "one_minus", "one_minus_squared" or "inverse_propensity"
        1 − β (Clark et al. 2019), (1 − β)², or 1 / β.
    trim : float or None
        "inverse_propensity": weights above this percentile are set to it; None leaves them.
    direction : "debias" or "amplify"
        "debias" makes small what the biased model gets right. "amplify" does the opposite: β in the place of 1 − β.

    Raises
    ------
    InputError
        As ``check_probabilities``, for labels that are no classes, unknown options, and weights that are all zero.
    """
    table = check_probabilities("p_bias", p_bias)
    gold = np.asarray(labels)
    if gold.shape != (len(table),) or not np.issubdtype(gold.dtype, np.integer):
        raise InputError(f"labels are {gold.dtype} {list(gold.shape)}; pass {len(table)} whole numbers, gold classes")
    if len(gold) and (gold.min() < 0 or gold.max() >= table.shape[1]):
        raise InputError(f"labels lie in {gold.min()}..{gold.max()} and p_bias has classes 0..{table.shape[1] - 1}")
    for name, value, known in (("kind", kind, KINDS), ("direction", direction, DIRECTIONS)):
        if value not in known:
            raise InputError(f"{name} = {value!r} is not one of {', '.join(known)}")
    easy = table[np.arange(len(table)), gold]
    if direction == "amplify":
        easy = 1 - easy
    if kind == "inverse_propensity":
        weights = 1 / np.maximum(easy, np.finfo(np.float64).tiny)
        if trim is not None:
            if not 0 < trim <= 100:
                raise InputError(f"trim = {trim!r}; pass a percentile above 0, up to 100, or None")
            weights = np.minimum(weights, np.percentile(weights, trim))
    else:
        weights = (1 - easy) ** (2 if kind == "one_minus_squared" else 1)
    if not weights.any():
        raise InputError("all weights are 0: the biased model is certain and right on every sample")
    out: Float = weights / weights.mean()
    return out
