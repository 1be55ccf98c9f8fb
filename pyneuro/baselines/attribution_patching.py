"""Attribution patching: effects to first order in the change of the activation (Nanda 2023).

``δz_c ≈ Σ_t ∂z_c/∂a[t] · (a'[t] − a[t])`` over the patched tokens t, for the logits z of every class c: one forward,
and one backward a class, serve all neurons and treatments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import Float, Int, Patching, to_changes
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, Encoding, PairLike
from pyneuro.models.classifier import evaluating
from pyneuro.results import Result
from pyneuro.search.request import Request
from pyneuro.search.targets import resolve_sites
from pyneuro.sites import NeuronSet

Site = tuple[int, str]


def attribution_patching(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 4,
    **options: Unpack[Options],
) -> Result:
    """First-order estimates of every neuron's effect, from one forward and C backward passes a sample.

    The change of every logit is linearised and the response then taken exactly, so that any response can be asked for.
    Attribution patching of log p_c, as usually written, is the linearisation of that too:
    ``δlog p_c ≈ Σ_j (1[j = c] − p_j) δz_j``, equal to the ``log_nie`` here to first order. Attention saturation and
    LayerNorm make estimates wrong where the change is large; ``pyneuro.search`` has the exact ones.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; forward and backward are in the model's dtype. `sites` are single neurons.
    batch_size : int
        Samples of a padded forward and backward.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.
    """

    def make(patching: Patching, size: int, request: Request) -> AttributionPatching:
        sites = resolve_sites(request.sites, clf.shape)
        assert isinstance(sites, NeuronSet)  # run_baseline lets no sets through
        return AttributionPatching(patching, size, tuple(site for site, _ in sites.groups()))

    return run_baseline("attribution_patching", make, clf, pairs, values, batch_size, options)


@dataclass(frozen=True, eq=False)
class Linearised:
    """A padded batch: values and gradients of the sites at the patched tokens, P of them."""

    samples: tuple[str, ...]
    values: dict[Site, Tensor]  # [B, P, width]
    gradients: dict[Site, Tensor]  # [C, B, P, width]


@dataclass(frozen=True, eq=False)
class AttributionPatching:
    """First-order estimates as an evaluator of the search."""

    patching: Patching
    samples_at_once: int
    sites: tuple[Site, ...]

    def admit(self, tokens: int) -> None:
        """Any length the model takes."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Linearised, Float]:
        clf, token = self.patching.clf, self.patching.token
        at = slice(None) if token == "all" else slice(token, token + 1)
        # Gradients are taken of the sites alone: nothing reaches the parameters' ``grad``.
        with evaluating(clf.model), torch.inference_mode(False), torch.enable_grad():
            with _followed(self.patching, self.sites) as outputs:
                logits = clf.model(**clf.batch(encodings)).logits  # [B, C]
            inputs = [outputs[site] for site in self.sites]
            # Samples of a batch do not see each other: the gradient of the sum is each sample's own.
            found = [
                [gradient[:, at].clone() for gradient in torch.autograd.grad(total, inputs, retain_graph=True)]
                for total in logits.sum(0)
            ]
        values = {site: output.detach()[:, at] for site, output in zip(self.sites, inputs, strict=True)}
        gradients = {site: torch.stack(of) for site, *of in zip(self.sites, *found, strict=True)}
        samples = tuple(e.id for e in encodings)
        return Linearised(samples, values, gradients), logits.detach().double().cpu().numpy()

    def neurons(self, state: Linearised, layer: int, module: str, index: Int, z: Float | None) -> Float:
        device = self.patching.clf.device
        columns = torch.from_numpy(index).to(device)
        a = state.values[layer, module][..., columns].double()  # [B, P, n]
        gradient = state.gradients[layer, module][..., columns].double()  # [C, B, P, n]
        each = [None] if z is None else [torch.from_numpy(row).to(device) for row in np.ascontiguousarray(z)]
        change = torch.stack([self.patching.intervention.change(a, values) for values in each])  # [T, B, P, n]
        delta = torch.einsum("cbpn,tbpn->btnc", gradient, change)
        return to_changes(delta, state.samples, layer, module, index)

    def sets(self, state: Linearised, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        raise NotImplementedError("attribution_patching refuses sets before it searches")

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """A neuron's share of one forward and of a backward for every class, in forwards × tokens."""
        clf = self.patching.clf
        return tokens * (1 + 2 * len(clf.label_index)) / clf.shape.n_neurons


@contextmanager
def _followed(patching: Patching, sites: Sequence[Site]) -> Iterator[dict[Site, Tensor]]:
    """Keeps the sites' outputs [B, S, width] in the graph, frozen parameters or not."""
    outputs: dict[Site, Tensor] = {}

    def follower(site: Site) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs[site] = output if output.requires_grad else output.requires_grad_()

        return hook

    with ExitStack() as hooks:
        for site in sites:
            hooks.callback(patching.place(*site).register_forward_hook(follower(site)).remove)
        yield outputs
