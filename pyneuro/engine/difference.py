"""Differences of candidates as an engine carries them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.ops.reference import true_difference


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
