"""QK fix: attribution patching that recomputes the softmax of a patched query or key (Kramár et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from pyneuro.baselines.options import Options
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, PairLike
from pyneuro.ops.reference import delta_softmax
from pyneuro.results import Result
from pyneuro.screens.forward import PATTERN, Batch, Site, keep, slopes
from pyneuro.screens.screen import Screen, run_screen


def qk_fix(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    **options: Unpack[Options],
) -> Result:
    """First-order estimates with the softmax of patched queries and keys recomputed.

    Attention that is nearly one-hot has no gradient, whatever a query does when it moves far. For neurons of Q and K
    the change of their head's attention probabilities is computed exactly and only the rest of the network linearised:

        δz_c ≈ Σ_{t,s} ∂z_c/∂p[t, s] · (softmax(S + δS) − softmax(S))[t, s],   δS[t, s] = (δq[t] k[s] + q[t] δk[s]) / √e

    with t over queries, s over keys, e the width of a head. Other modules are as in ``attribution_patching``. The
    response is taken exactly.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype, the softmax in float64. `sites` are
        single neurons.
    batch_size : int
        Samples of a padded forward and backward.

    Returns
    -------
    Result
        Cost of a sample: 1 + 2 C forward-equivalents, and the recomputed probabilities of the sites searched, which
        are not counted: O(S²) a key neuron and O(S) a query neuron at one token.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.

    References
    ----------
    Kramár, Lieberum, Shah, Nanda (2024), AtP*: an efficient and scalable method for localizing LLM behaviour to
    components, section 3.1.1.
    """
    return run_screen(QKFix, clf, pairs, values, batch_size, options, method="qk_fix")


class QKFix(Screen):
    """The model's own gradients, those of attention probabilities for Q and K."""

    @property
    def forward_equivalents(self) -> float:
        return self.sweep

    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        plain = [site for site in self.sites if site[1] not in ("Q", "K")]
        attending = sorted({layer for layer, module in self.sites if module in ("Q", "K")})
        patterns = [(layer, PATTERN) for layer in attending]
        wanted = {*plain, *patterns, *((layer, module) for layer in attending for module in ("Q", "K"))}
        seen: dict[Site, Tensor] = {}
        logits = self.forward.logits(batch.x.requires_grad_(), batch.mask, keep(wanted, seen))
        inputs = [*plain, *patterns]
        rows = [self.rows] * len(plain) + [slice(None)] * len(patterns)
        slope = dict(zip(inputs, slopes(logits, [seen[site] for site in inputs], rows), strict=True))
        values = {site: value.detach() for site, value in seen.items()}
        changes = {site: self.first_order(site, slope[site], values[site][:, self.rows]) for site in plain}
        for layer, module in self.sites:
            if module in ("Q", "K"):
                changes[layer, module] = self._attending(layer, module, values, slope[layer, PATTERN])
        return logits, changes

    def _attending(self, layer: int, module: str, values: dict[Site, Tensor], slope: Tensor) -> Tensor:
        """Changes [B, T, d, C] of a query's or key's neurons, from gradients [C, B, H, S, S] of the pattern."""
        own, p, slope = values[layer, module], values[layer, PATTERN].double(), slope.double()
        other = values[layer, "K" if module == "Q" else "Q"].double()  # [B, S, d]
        change = self.change((layer, module), own[:, self.rows])
        # A query at some tokens moves these rows of the scores, a key these columns.
        if module == "Q":
            p, slope = p[:, :, self.rows], slope[:, :, :, self.rows]
        else:
            moved = change.new_zeros((len(change), *own.shape))
            moved[:, :, self.rows] = change
            change = moved
        width = own.shape[-1] // p.shape[1]
        parts = []
        for head, (mine, its) in enumerate(zip(change.split(width, -1), other.split(width, -1), strict=True)):
            formula = "tbrn,bsn->tbnrs" if module == "Q" else "tbsn,brn->tbnrs"
            parts.append(_through_pattern(p[:, head], slope[:, :, head], mine, its / math.sqrt(width), formula))
        return torch.cat(parts, 2)


def _through_pattern(p: Tensor, slope: Tensor, change: Tensor, other: Tensor, formula: str) -> Tensor:
    """Changes [B, T, e, C] by one head: p [B, R, S] and slope [C, B, R, S], change [T, B, ..., e], other [B, S, e].

    One sample at a time, which keeps the scores' changes [T, e, R, S] small.
    """
    out = []
    for b in range(len(p)):
        scores = torch.einsum(formula, change[:, b : b + 1], other[b : b + 1])
        moved = delta_softmax(p[b], scores)  # [T, 1, e, R, S]
        out.append(torch.einsum("crs,tbnrs->btnc", slope[:, b], moved))
    return torch.cat(out)
