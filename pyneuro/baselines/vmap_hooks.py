"""``torch.func.vmap`` over a hooked forward: the patch is the mapped input, the batch is torch's business."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyneuro.baselines.options import Options, run_baseline
from pyneuro.baselines.patching import Patch, Patching
from pyneuro.baselines.rows import RowsEvaluator, Sample, cost_from
from pyneuro.engine.values import Values
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result


def vmap_hooks(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    batch_size: int = 32,
    **options: Unpack[Options],
) -> Result:
    """Exact effects, a forward of one sample vectorised over `batch_size` candidates.

    What is computed before the patch does not depend on the candidate and is computed once a batch. Scaled dot-product
    attention is computed by its mathematical definition meanwhile, because vmap has no rule for the fused CPU kernel
    and would loop; the model and its configuration are not touched.

    Parameters
    ----------
    clf, pairs, values, **options
        As for ``pyneuro.search``; results are in the model's dtype, changes of the logits subtracted in float64.
        `sites` are single neurons.
    batch_size : int
        Candidates of a call.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for named sets.
    """
    return run_baseline(
        "vmap_hooks", lambda patching, size, _: VmapHooks(patching, size), clf, pairs, values, batch_size, options
    )


@dataclass
class _Candidate:
    """What the hook reads: under vmap, tensors that stand for all candidates at once."""

    index: Tensor  # int64 []; no neuron where it is -1
    z: Tensor  # float64 []


class VmapHooks(RowsEvaluator):
    """One vectorised forward a chunk.

    What is computed once and what for every candidate differs from module to module, so the base run of a chunk is one
    more candidate in it, which patches no neuron.
    """

    def changes(self, sample: Sample, rows: int, patches: Sequence[Patch]) -> Tensor:
        (patch,) = patches
        clf = self.patching.clf
        inputs = clf.batch([sample.encoding])
        parameters = {name: p.detach() for name, p in clf.model.named_parameters()}
        index = nn.functional.pad(patch.index, (0, 1), value=-1)
        z = index.new_zeros(rows + 1, dtype=torch.float64) if patch.z is None else nn.functional.pad(patch.z, (0, 1))
        with _hooked(self.patching, patch) as candidate, sdpa_kernel(SDPBackend.MATH):

            def one(index: Tensor, z: Tensor) -> Tensor:
                candidate.index, candidate.z = index, z
                logits: Tensor = functional_call(clf.model, parameters, args=(), kwargs=inputs).logits
                return logits[0]

            logits = vmap(one)(index, z).double()
        changes: Tensor = logits[:-1] - logits[-1]
        return changes

    def cost(self, tokens: int, layer: int, module: str) -> float:
        return cost_from(layer, self.patching.clf.shape.layers, tokens)


@contextmanager
def _hooked(patching: Patching, patch: Patch) -> Iterator[_Candidate]:
    """The hook in place, without any in-place operation; yields what it patches."""
    nobody = torch.empty(0)
    candidate = _Candidate(nobody, nobody)

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        here = torch.arange(output.shape[-1], device=output.device) == candidate.index  # [width]
        a = output if patching.token == "all" else output[:, patching.token]
        new = torch.where(here, patching.patched(a, candidate.z), a)
        return new if patching.token == "all" else torch.select_scatter(output, new, 1, patching.token)

    handle = patching.place(patch.layer, patch.module).register_forward_hook(hook)
    try:
        yield candidate
    finally:
        handle.remove()
