"""What a patch does to an activation a, as the difference it makes to the base run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from pyneuro.errors import InputError

Kind = Literal["replace", "weaken", "negate", "remove", "add"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Where |z − a| is below this times the site's scale, z is a to rounding: z is a mean of fp32 activations.
ROUNDING = 2.0**-19


@dataclass(frozen=True)
class Intervention:
    """An intervention on single neurons or sets.

    ==========  ===================  =============================================
    kind        a becomes            source
    ==========  ===================  =============================================
    replace     z                    Vig et al. 2020; Lim et al. 2024
    weaken      strength · a         Lim et al. 2024 (causal-grounded masking)
    negate      −a                   Lim et al. 2024
    remove      0                    Lim et al. 2024; zero ablation
    add         a + strength · z     Vig et al. 2020 ("diff")
    ==========  ===================  =============================================

    Parameters
    ----------
    kind : str
    strength : float, optional
        ε of ``weaken`` (no default), α of ``add`` (default 1).
    """

    kind: Kind = "replace"
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"intervention {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.kind == "weaken" and self.strength is None:
            raise InputError("intervention 'weaken' needs its factor; pass strength, such as strength=0.9")
        if self.strength is not None:
            if self.kind not in ("weaken", "add"):
                raise InputError(f"intervention {self.kind!r} takes no strength; leave it out")
            if not -float("inf") < self.strength < float("inf"):
                raise InputError(f"strength {self.strength} is not a finite number")

    @property
    def needs_values(self) -> bool:
        """Whether a replacement value z takes part."""
        return self.kind in ("replace", "add")

    def change(self, a: Tensor, z: Tensor | None, delta: Tensor | None = None) -> Tensor:
        """Patched value minus base value.

        Parameters
        ----------
        a : Tensor
            Base value.
        z : Tensor or None
            Replacement value, broadcast against a; needed by ``replace`` and ``add``.
        delta : Tensor, optional
            Change of the activation that earlier patches of a set already made; 0 where absent.
        """
        moved = torch.zeros_like(a) if delta is None else delta
        match self.kind:
            case "replace":
                assert z is not None
                return z - a
            case "weaken":
                assert self.strength is not None
                return (self.strength - 1.0) * a + self.strength * moved
            case "negate":
                return -2.0 * a - moved
            case "remove":
                return -a
            case "add":
                assert z is not None
                return moved + (1.0 if self.strength is None else self.strength) * z


def replaced_by_itself(a: Tensor, z: Tensor, scale: Tensor) -> Tensor:
    """Where z equals a up to rounding (delta-propagation: structural zeros), so that the effect is 0.

    In layer 0 the [CLS] row is the same for every text, and so are its q, k and v: their means equal them.

    Parameters
    ----------
    a, z, scale : float64 Tensor, broadcast together
        `scale` is the root mean square of the site's values at that token.
    """
    return (z - a).abs() <= ROUNDING * torch.maximum(a.abs(), scale)
