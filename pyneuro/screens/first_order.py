"""A response to first order in the change of the logits, as screens are usually written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyneuro.effects import Response
from pyneuro.effects.response import Float, Terms
from pyneuro.errors import InputError


@dataclass(frozen=True)
class FirstOrder(Response):
    """The linearisation of a response: ``x = Σ_j w_j (δz_c − δz_j)`` over the classes j other than the target c.

    ====================  ========================  =============
    response              w_j                       x is δ of
    ====================  ========================  =============
    ``probability``       p_j                       log p_c
    ``odds``              p_j / (1 − p_c)           log odds
    ``log_odds``          p_j / (1 − p_c)           log odds
    ``logit_difference``  1 / foils, on the foils   the response
    ====================  ========================  =============

    Where an effect is ``r'/r − 1``, whose derivative is that of log r, it is x, or exp(x) − 1 if `exponential`; where
    it is ``r' − r``, it is x. ``kl`` and ``flip`` do not move to first order and are refused.
    """

    exponential: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in ("kl", "flip"):
            raise InputError(
                f"response {self.name!r} does not change to first order; choose probability, odds, log_odds or "
                "logit_difference, or, for attribution_patching, form='response'"
            )
        if self.exponential and not self.is_ratio:
            raise InputError(
                f"form='exp' is of effects r'/r − 1, and response {self.name!r} has none; choose probability or odds, "
                "or form='plain'"
            )

    @classmethod
    def of(cls, response: Response, *, exponential: bool = False) -> FirstOrder:
        """The linearisation of `response`."""
        return cls(response.name, response.target, response.foil, exponential)

    def terms(self, logits: npt.ArrayLike, delta: npt.ArrayLike) -> Terms:
        """As ``Response.terms``."""
        return self.effects(logits, self.moved(logits, np.asarray(delta, dtype=np.float64)))

    def moved(self, logits: npt.ArrayLike, delta: Float) -> Float:
        """x [...] of changes of the logits [..., C]."""
        z = np.asarray(logits, dtype=np.float64)
        rest = np.flatnonzero(np.arange(len(z)) != self.target)
        moved: Float = (delta[..., [self.target]] - delta[..., rest]) @ self._weights(z, rest)
        return moved

    def effects(self, logits: npt.ArrayLike, x: Float) -> Terms:
        """Terms of N runs whose response moves by x [N] to first order."""
        base = self.base(logits)
        if not self.is_ratio:
            return Terms(x, np.full(len(x), np.nan), x, base)
        with np.errstate(over="ignore"):
            effect = np.expm1(x) if self.exponential else x
        return Terms(effect, x, base * effect, base)

    def _weights(self, z: Float, rest: npt.NDArray[np.intp]) -> Float:
        if self.name == "logit_difference":
            foils: Float = np.ones(len(rest)) if self.foil is None else (rest == self.foil).astype(np.float64)
            even: Float = foils / foils.sum()
            return even
        among = np.arange(len(z)) if self.name == "probability" else rest
        weights: Float = np.exp(z[rest] - np.logaddexp.reduce(z[among]))
        return weights
