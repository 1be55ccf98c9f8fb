"""The probability floor: samples on which the target is too unlikely for a ratio to mean anything (Vig et al. 2020)."""

from __future__ import annotations

from pyneuro.effects import Response
from pyneuro.errors import InputError
from pyneuro.search.evaluator import Float


def above_floor(floor: float | None, response: Response, logits: Float) -> bool:
    """Whether a sample's base probability of the target reaches the floor, from its logits [C]."""
    return floor is None or Response("probability", response.target).base(logits) >= floor


def require_samples(kept: int, floor: float | None) -> None:
    """Raise InputError where the floor has left no sample."""
    if not kept:
        raise InputError(
            f"no sample reaches probability_floor = {floor}; choose a lower one, or samples whose base probability of "
            "the target is higher"
        )
