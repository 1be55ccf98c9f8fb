"""Differences of candidates as an engine carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.ops.reference import stored_difference, true_difference

# A candidate's largest entry is stored near this. Above it fp16 has room for 2^12 times more, below it eleven bits down
# to 2^-18 of it.
STORED_SIZE = 16.0


@dataclass(frozen=True, eq=False)
class Difference:
    """N candidates' differences at some rows: ``stored`` [..., N, d] times each candidate's ``unit``.

    Attributes
    ----------
    stored : Tensor [S, N, d], or [N, d] of row 0 alone
        float64, float32 or float16.
    unit : float32 Tensor [N] or None
        A power of two, chosen where the patch enters and kept to the end: every product is linear in it, and fp16 then
        holds eleven bits of differences of any size. None where differences are stored as they are.
    """

    stored: Tensor
    unit: Tensor | None = None

    @property
    def row0(self) -> Difference:
        """Of row 0 alone, [S, N, d] -> [N, d]."""
        return Difference(self.stored[0], self.unit)

    def to(self, stored: Tensor) -> Difference:
        """Other differences of the same candidates."""
        return Difference(stored, self.unit)

    def true(self) -> Tensor:
        """The differences themselves, in fp32 at least."""
        return true_difference(self.stored, self.unit)

    @classmethod
    def cat(cls, parts: Sequence[Difference]) -> Difference:
        """Of all these candidates, which are stored alike."""
        units = [part.unit for part in parts if part.unit is not None]
        return cls(torch.cat([part.stored for part in parts], dim=-2), torch.cat(units) if units else None)

    @classmethod
    def in_fp16(cls, true: Tensor) -> Difference:
        """From true differences [N, d] of row 0."""
        unit = units(true.abs().amax(-1))
        return cls(stored_difference(true, unit, torch.float16), unit)


def units(size: Tensor) -> Tensor:
    """Units of candidates whose largest entries have these sizes: float32 [N]. 1 where the size is 0 or not finite."""
    unit = torch.exp2(torch.ceil(torch.log2(size.float()))) / STORED_SIZE
    return torch.where(torch.isfinite(unit) & (unit > 0), unit, torch.ones_like(unit))
