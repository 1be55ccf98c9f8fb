"""GradDrop: attribution patching with one layer's gradient left out at a time (Kramár et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyneuro.baselines.options import Options
from pyneuro.effects import Response
from pyneuro.effects.response import Terms
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result
from pyneuro.screens.first_order import FirstOrder
from pyneuro.screens.forward import Batch, Forward, Site
from pyneuro.screens.screen import Screen, run_screen


def grad_drop(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    **options: Unpack[Options],
) -> Result:
    """Magnitudes of attribution patching that do not cancel between layers.

    A neuron whose direct and indirect effects cancel has no gradient to speak of. Leaving out, one layer l at a time,
    the gradient that passes through l's attention and feed-forward (the residual stream kept) breaks the cancellation:

        score = Σ_l |x_l| / (L − 1)

    with x_l the linearised effect (form "plain" of ``attribution_patching``) when layer l is dropped, summed over all
    layers but the neuron's own, which would leave it nothing but 0 (or, where the convention has it on the residual
    stream, would not be a path of its own). The sample mean of the scores stands where other results have the NIE:
    **a magnitude, never negative**. Rank it against the |NIE| of others. ``log_nie``, ``diff`` and the like are the
    same magnitude on their scales, and the contrast is a difference of magnitudes.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype. `sites` are single neurons.
    batch_size : int
        Samples of a padded forward and backward.

    Returns
    -------
    Result
        Cost of a sample: L (1 + 2 C) forward-equivalents.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets, a model of one layer, and the responses kl and flip, which do not
        move to first order.

    References
    ----------
    Kramár, Lieberum, Shah, Nanda (2024), AtP*: an efficient and scalable method for localizing LLM behaviour to
    components, section 3.1.2.
    """

    def read(response: Response) -> Response:
        if clf.shape.layers < 2:
            raise InputError("grad_drop averages over the other layers and this model has one; use another screen")
        return MeanMagnitude.of(response)

    return run_screen(GradDrop, clf, pairs, values, batch_size, options, method="grad_drop", read=read)


class MeanMagnitude(FirstOrder):
    """``Σ_l |x_l| / (L − 1)`` of changes of the logits that lie side by side, [N, L · C]."""

    def terms(self, logits: npt.ArrayLike, delta: npt.ArrayLike) -> Terms:
        """As ``Response.terms``, with delta float64 [N, L · C]."""
        z, dropped = np.asarray(logits, dtype=np.float64), np.asarray(delta, dtype=np.float64)
        dropped = dropped.reshape(len(dropped), -1, len(z))
        return self.effects(z, np.abs(self.moved(z, dropped)).sum(axis=1) / (dropped.shape[1] - 1))


@dataclass(frozen=True, eq=False)
class DroppedForward(Forward):
    """A forward whose gradient passes layer `dropped` by."""

    dropped: int

    def branch(self, layer: int, value: Tensor) -> Tensor:
        return value.detach() if layer == self.dropped else value


class GradDrop(Screen):
    """Changes of the logits with each layer dropped in turn, side by side."""

    @property
    def forward_equivalents(self) -> float:
        return self.forward.weights.shape.layers * self.sweep

    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        weights, convention = self.forward.weights, self.forward.convention
        parts: dict[Site, list[Tensor]] = {site: [] for site in self.sites}
        for dropped in range(weights.shape.layers):
            logits, changes = self.linearised(DroppedForward(weights, convention, dropped), batch)
            for site, change in changes.items():
                parts[site].append(change * (site[0] != dropped))
        return logits, {site: torch.cat(part, -1) for site, part in parts.items()}
