"""What all screens share: an evaluator of the search that estimates every neuron of a sample at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pyneuro.baselines.options import run_baseline
from pyneuro.baselines.patching import Float, Int, Patching, model_dtype, to_changes
from pyneuro.effects import Response
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, Encoding, PairLike
from pyneuro.results import Result
from pyneuro.screens.forward import Batch, Forward, Site, keep, slopes
from pyneuro.search.request import Request
from pyneuro.search.targets import resolve_sites
from pyneuro.sites import NeuronSet

#: A backward's cost in forwards.
BACKWARD = 2.0


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimated changes of the logits, of every neuron of the sites."""

    samples: tuple[str, ...]
    changes: dict[Site, Tensor]  # float64 [B, T, width, K]; K = C unless the screen's response reads something else


@dataclass(frozen=True, eq=False)
class Screen(ABC):
    """Estimates of whole sites, made when a block of samples begins; the search picks neurons from them."""

    patching: Patching
    samples_at_once: int
    sites: tuple[Site, ...]
    values: Values | None

    @property
    @abstractmethod
    def forward_equivalents(self) -> float:
        """Cost of a sample in its forwards; a backward counts as two."""

    @abstractmethod
    def estimate(self, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits [B, C], and ``Estimates.changes``. Called with gradients on."""

    @cached_property
    def forward(self) -> Forward:
        """The model's own forward, in its dtype."""
        clf = self.patching.clf
        return Forward(clf.weights(model_dtype(clf)), self.patching.convention)

    @property
    def rows(self) -> slice:
        """The patched tokens, P of them."""
        token = self.patching.token
        return slice(None) if token == "all" else slice(token, token + 1)

    @property
    def sweep(self) -> float:
        """Cost of one forward and a backward for every class."""
        return 1 + BACKWARD * len(self.patching.clf.label_index)

    def admit(self, tokens: int) -> None:  # noqa: B027 (nothing to refuse)
        """Any length the model takes."""

    def begin(self, encodings: Sequence[Encoding]) -> tuple[Estimates, Float]:
        with torch.inference_mode(False), torch.enable_grad():
            logits, changes = self.estimate(self._embed(encodings))
        return Estimates(tuple(e.id for e in encodings), changes), logits.detach().double().cpu().numpy()

    def neurons(self, state: Estimates, layer: int, module: str, index: Int, z: Float | None) -> Float:
        columns = torch.from_numpy(index).to(self.patching.clf.device)
        return to_changes(state.changes[layer, module][:, :, columns], state.samples, layer, module, index)

    def sets(self, state: Estimates, sets: Sequence[NeuronSet], z: Sequence[Float] | None) -> Float:
        raise NotImplementedError(f"{type(self).__name__} refuses sets before it searches")

    def cost(self, tokens: int, layer: int, module: str) -> float:
        """A neuron's share of a sample, in forwards × tokens."""
        return tokens * self.forward_equivalents / self.patching.clf.shape.n_neurons

    def change(self, site: Site, a: Tensor) -> Tensor:
        """What patching a site adds to its values a [B, P, width] by treatment, float64 [T, B, P, width]."""
        every = [None] if self.values is None else [self.values.array(t, *site) for t in self.values.treatments]
        z = [None if one is None else torch.tensor(one, device=a.device) for one in every]
        return torch.stack([self.patching.intervention.change(a.double(), one) for one in z])

    def first_order(self, site: Site, slope: Tensor, a: Tensor) -> Tensor:
        """``Σ_t slope[t] · δa[t]`` [B, T, width, C] of slopes [C, B, P, width] and values a [B, P, width]."""
        return torch.einsum("cbpn,tbpn->btnc", slope.double(), self.change(site, a))

    def linearised(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits [B, C], and changes of every site to first order, by the gradients of `forward`."""
        seen: dict[Site, Tensor] = {}
        logits = forward.logits(batch.x.requires_grad_(), batch.mask, keep(self.sites, seen))
        found = slopes(logits, [seen[site] for site in self.sites], [self.rows] * len(self.sites))
        return logits, {
            site: self.first_order(site, slope, seen[site].detach()[:, self.rows])
            for site, slope in zip(self.sites, found, strict=True)
        }

    def _embed(self, encodings: Sequence[Encoding]) -> Batch:
        clf = self.patching.clf
        x = pad_sequence([clf.embed(e, model_dtype(clf)) for e in encodings], batch_first=True)
        lengths = torch.tensor([len(e) for e in encodings], device=x.device)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        mask = torch.zeros_like(padding, dtype=x.dtype).masked_fill(padding, -torch.inf)
        return Batch(tuple(e.id for e in encodings), x, mask[:, None, None])


def run_screen(
    screen: Callable[[Patching, int, tuple[Site, ...], Values | None], Screen],
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None,
    batch_size: int,
    options: Mapping[str, Any],
    *,
    method: str,
    how: Mapping[str, Any] | None = None,
    read: Callable[[Response], Response] | None = None,
) -> Result:
    """Check what a screen was given and search with it; `how` and `read` as for ``run_baseline``."""

    def make(patching: Patching, size: int, request: Request) -> Screen:
        sites = resolve_sites(request.sites, clf.shape)
        assert isinstance(sites, NeuronSet)  # run_baseline lets no sets through
        return screen(patching, size, tuple(site for site, _ in sites.groups()), values)

    return run_baseline(method, make, clf, pairs, values, batch_size, options, how=how, read=read)
