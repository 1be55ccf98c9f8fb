"""Attribution patching: effects to first order in the change of the activation (Nanda 2023).

``δz_c ≈ Σ_t ∂z_c/∂a[t] · (a'[t] − a[t])`` over the patched tokens t, for the logits z of every class c: one forward,
and one backward a class, serve all neurons and treatments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack, get_args

from torch import Tensor

from pyneuro.baselines.options import Options
from pyneuro.effects import Response
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result
from pyneuro.screens.first_order import FirstOrder
from pyneuro.screens.forward import Batch, Site
from pyneuro.screens.screen import Screen, run_screen

Form = Literal["response", "plain", "exp"]
FORMS: tuple[Form, ...] = get_args(Form)


def attribution_patching(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    form: Form = "response",
    **options: Unpack[Options],
) -> Result:
    """First-order estimates of every neuron's effect, from one forward and C backward passes a sample.

    The change of every logit is linearised, ``δz_c ≈ Σ_t ∂z_c/∂a[t] · δa[t]``, and becomes an effect by one of three
    forms, equal to first order:

    ============  =================================================  ===============================================
    form          effect                                             for
    ============  =================================================  ===============================================
    ``response``  the response at the logits z + δz, exactly         every response
    ``plain``     ``x``, the response's own linearisation: for the   all but kl and flip, which have no first order
                  probability ``δlog p_c ≈ Σ_j (1[j = c] − p_j)
                  δz_j`` (Nanda 2023, as usually written)
    ``exp``       ``exp(x) − 1``                                     probability and odds
    ============  =================================================  ===============================================

    Attention saturation and LayerNorm make estimates wrong where the change is large; ``pyneuro.search`` has the exact
    ones.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype. `sites` are single neurons.
    batch_size : int
        Samples of a padded forward and backward.
    form : "response", "plain" or "exp"

    Returns
    -------
    Result
        Cost of a sample: 1 + 2 C forward-equivalents.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets, and a response that the form has no meaning for.

    References
    ----------
    Nanda (2023), Attribution patching: activation patching at industrial scale.
    """
    if form not in FORMS:
        raise InputError(f"form {form!r} is not one of {', '.join(FORMS)}")

    def read(response: Response) -> Response:
        return response if form == "response" else FirstOrder.of(response, exponential=form == "exp")

    return run_screen(
        AttributionPatching,
        clf,
        pairs,
        values,
        batch_size,
        options,
        method="attribution_patching",
        how={"form": form},
        read=read,
    )


class AttributionPatching(Screen):
    """The model's own gradients."""

    @property
    def forward_equivalents(self) -> float:
        return self.sweep

    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        return self.linearised(self.forward, batch)
