"""Integrated gradients along the path of a site's own activations (EAP-IG "activations", Hanna et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from pyneuro.baselines.options import Options
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_whole
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result
from pyneuro.screens.forward import Batch, Site, keep, slopes
from pyneuro.screens.screen import Screen, run_screen


def integrated_gradients(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    steps: int = 5,
    **options: Unpack[Options],
) -> Result:
    """Estimates from gradients averaged between the activations as they are and as they are patched.

    All neurons of a (layer, module) move together along a straight path at the patched tokens, and each neuron is given
    its own part of the change:

        δz_c ≈ Σ_t (a'[t] − a[t]) · (1/m) Σ_k ∂z_c/∂a[t] at a + (k − ½)/m (a' − a),  k = 1..m

    The midpoint rule: summed over the neurons of a site, the estimates tend to the change of the logits when all are
    patched jointly, with an error that falls as 1/m². The response is then taken exactly.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype. `sites` are single neurons; the others
        of their (layer, module) move along whether they are asked for or not.
    batch_size : int
        Samples of a padded forward and backward.
    steps : int
        m, the points of the path.

    Returns
    -------
    Result
        Cost of a sample: 1 + T m (1 + 2 C) (L − l) / L forward-equivalents, the last term for every (layer l, module)
        searched, with T treatments.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets, and steps that are no positive integer.

    References
    ----------
    Hanna, Pezzelle, Belinkov (2024), Have faith in faithfulness: going beyond circuit overlap when finding model
    mechanisms. Sundararajan, Taly, Yan (2017), Axiomatic attribution for deep networks.
    """
    if not is_whole(steps) or steps < 1:
        raise InputError(f"steps = {steps!r}; pass a positive integer, such as 5")
    return run_screen(
        partial(IntegratedGradients, steps=steps),
        clf,
        pairs,
        values,
        batch_size,
        options,
        method="integrated_gradients",
        how={"steps": steps},
    )


@dataclass(frozen=True, eq=False)
class IntegratedGradients(Screen):
    """Averaged gradients, a forward and backward from the site's layer on for every site, treatment and step."""

    steps: int

    @property
    def forward_equivalents(self) -> float:
        layers = self.forward.weights.shape.layers
        treatments = 1 if self.values is None else len(self.values.treatments)
        tails = sum((layers - layer) / layers for layer, _ in self.sites)
        return 1 + treatments * self.steps * tails * self.sweep

    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        seen: dict[Site, Tensor] = {}
        inputs, visit = [batch.x], keep(self.sites, seen)
        with torch.no_grad():
            for layer in range(self.forward.weights.shape.layers):
                inputs.append(self.forward.layer(layer, inputs[-1], batch.mask, visit))
            logits = self.forward.head(inputs[-1])
        return logits, {site: self._changes(site, inputs[site[0]], batch.mask, seen[site]) for site in self.sites}

    def _changes(self, site: Site, x: Tensor, mask: Tensor, a: Tensor) -> Tensor:
        """Changes [B, T, width, C] from the input x of the site's layer and its base value a, both [B, S, ...]."""
        change = self.change(site, a[:, self.rows])
        slope = torch.stack([self._mean_slope(site, x, mask, a, one) for one in change])
        return torch.einsum("tcbpn,tbpn->btnc", slope.double(), change)

    def _mean_slope(self, site: Site, x: Tensor, mask: Tensor, a: Tensor, change: Tensor) -> Tensor:
        """Gradient [C, B, P, width] averaged over the path of one treatment, change [B, P, width]."""
        found = []
        for step in range(self.steps):
            moved = a.clone()
            moved[:, self.rows] += ((step + 0.5) / self.steps * change).to(a.dtype)
            moved.requires_grad_()

            def visit(here: Site, value: Tensor, moved: Tensor = moved) -> Tensor:
                return moved if here == site else value

            found += slopes(self.forward.logits(x, mask, visit, site[0]), [moved], [self.rows])
        return torch.stack(found).mean(0)
