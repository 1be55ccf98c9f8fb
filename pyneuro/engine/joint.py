"""The general path: any set of neurons patched together, at any tokens, as differences through every layer.

Each layer is taken apart at its sites, so that patches of later modules see what earlier ones changed: with
``replace`` the later value stands, ``weaken``, ``negate`` and ``add`` act on the patched activation. Costs a dense
layer for every layer from the first patched one on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyneuro.engine import propagate
from pyneuro.engine.backend import Backend
from pyneuro.engine.base_run import BaseRun, LayerBase
from pyneuro.engine.difference import Difference
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention, replaced_by_itself
from pyneuro.engine.prepared import PreparedLayer
from pyneuro.errors import InputError
from pyneuro.ops.reference import delta_gelu


@dataclass(frozen=True, eq=False)
class Patch:
    """Entries of one (layer, module) over N candidates: candidate [M], neuron index [M], replacement value [M] (or
    None)."""

    candidate: Tensor  # int64
    index: Tensor  # int64
    z: Tensor | None  # float64


Patches = Mapping[tuple[int, str], Patch]


@dataclass(frozen=True, eq=False)
class _Patcher:
    """Applies one layer's patches to the difference of a site."""

    patches: Patches
    layer: int
    base: LayerBase
    tokens: Tensor  # int64 [P]
    convention: str
    intervention: Intervention

    def apply(self, module: str, convention: str, delta: Tensor, offset: int = 0) -> None:
        """Patch `delta` [S, N, columns] in place, the module's columns beginning at `offset`, if this is where it is
        patched."""
        patch = self.patches.get((self.layer, module))
        if patch is None or (convention != self.convention and module in ("AO", "I", "O")):
            return
        tokens, candidate, column = self.tokens[:, None], patch.candidate[None], patch.index[None] + offset
        values = self.base.sites[module, self.convention]
        a = values[self.tokens][:, patch.index]  # [P, M]
        z = None if patch.z is None else patch.z[None].expand_as(a)
        on = delta.device
        moved = delta[tokens.to(on), candidate.to(on), column.to(on)].double().cpu()
        change = self.intervention.change(a, z, moved)
        if self.intervention.kind == "replace" and z is not None:
            scale = values[self.tokens].square().mean().sqrt()
            change = change.masked_fill(replaced_by_itself(a, z, scale), 0.0)
        delta[tokens.to(on), candidate.to(on), column.to(on)] = change.to(on, delta.dtype)


@torch.no_grad()
def joint_delta_logits(
    engine: ExactEngine,
    base: BaseRun,
    patches: Patches,
    candidates: int,
    *,
    tokens: Sequence[int],
    convention: str = "linear",
    intervention: Intervention | None = None,
) -> Tensor:
    """Change of the logits for N candidates, each a set of patches: float64 [N, C].

    Parameters
    ----------
    engine : ExactEngine
    base : BaseRun
        Begun with ``all_rows=True``.
    patches : mapping of (layer, module) to Patch
    candidates : int
        N.
    tokens : sequence of int
        Positions patched, all with the same value.
    convention, intervention
        As in ``ExactEngine.delta_logits``.

    Raises
    ------
    InputError
        A position beyond the sample's tokens, or results that are NaN or infinite.
    """
    positions = torch.as_tensor(list(tokens), dtype=torch.int64)
    if len(positions) == 0 or int(positions.min()) < 0 or int(positions.max()) >= base.tokens:
        raise InputError(
            f"sample {base.id!r} has tokens 0..{base.tokens - 1}, positions {list(tokens)} cannot be patched; choose "
            "positions that every sample has"
        )
    shape, backend = engine.shape, engine.backend.exactly()
    first = min(layer for layer, _ in patches)
    dx = torch.zeros(base.tokens, candidates, shape.hidden, dtype=backend.dtype, device=backend.device)
    for layer in range(first, shape.layers):
        patcher = _Patcher(patches, layer, base.layers[layer], positions, convention, intervention or Intervention())
        dx = _layer(backend, engine.prepared.layers[layer], base.layers[layer], patcher, dx)
    out = propagate.delta_logits(backend, engine.prepared.head, base, Difference(dx[0])).cpu()
    if not bool(torch.isfinite(out).all()):
        raise InputError(
            f"a set patched in sample {base.id!r} gives a NaN or infinite output; check the replacement values"
        )
    return out


def _layer(backend: Backend, w: PreparedLayer, base: LayerBase, patcher: _Patcher, dx: Tensor) -> Tensor:
    linear, layernorm = (backend.operation(name) for name in ("delta_linear", "delta_layernorm"))
    d = dx.shape[-1]
    dqkv = linear(dx, w.wqkv, w.packed_wqkv)
    for number, module in enumerate(("Q", "K", "V")):
        patcher.apply(module, patcher.convention, dqkv, number * d)
    dao = linear(backend.operation("delta_attention")(dqkv, *base.attention), w.weights.wao, w.packed_wao)
    patcher.apply("AO", "linear", dao)
    dx1 = layernorm(dao + dx, *base.norm1.rows)
    patcher.apply("AO", "hook", dx1)
    di = linear(dx1, w.weights.wi, w.packed_wi)
    patcher.apply("I", "linear", di)
    dg = delta_gelu(base.pre_gelu, di, base.series)
    patcher.apply("I", "hook", dg)
    do = linear(dg, w.weights.wo, w.packed_wo)
    patcher.apply("O", "linear", do)
    dx2 = layernorm(do + dx1, *base.norm2.rows)
    patcher.apply("O", "hook", dx2)
    return dx2
