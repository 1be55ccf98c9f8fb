"""Patching a HuggingFace model by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pyneuro.engine.intervention import Intervention
from pyneuro.errors import InputError
from pyneuro.models import Classifier

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patch:
    """Neurons of one (layer, module) to patch in a batch: M entries, each one neuron in one row."""

    layer: int
    module: str
    row: Tensor  # int64 [M]
    index: Tensor  # int64 [M]
    z: Tensor | None  # float64 [M]


@dataclass(frozen=True, eq=False)
class Patching:
    """How a classifier is patched: where a neuron is, what becomes of it, at which token of the sample."""

    clf: Classifier
    convention: str
    intervention: Intervention
    token: int | Literal["all"]

    def place(self, layer: int, module: str) -> nn.Module:
        """The module whose output is the site."""
        return self.clf.adapter.module(self.clf.model, layer, module, self.convention)

    def patch(self, layer: int, module: str, row: Int, index: Int, z: Float | None) -> Patch:
        """A patch on the model's device."""
        device = self.clf.device
        return Patch(
            layer,
            module,
            torch.from_numpy(row).to(device),
            torch.from_numpy(index).to(device),
            None if z is None else torch.from_numpy(z).to(device),
        )

    def patched(self, a: Tensor, z: Tensor | None) -> Tensor:
        """What activations become, in their own dtype; the change is taken in float64, so that a neuron replaced by its
        own value keeps every bit."""
        wide = a.double()
        return (wide + self.intervention.change(wide, z)).to(a.dtype)

    @contextmanager
    def applied(self, patches: Sequence[Patch]) -> Iterator[None]:
        """Patch every forward of the model for the length of a ``with`` block. At most one patch a (layer, module)."""
        with ExitStack() as hooks:
            for patch in patches:
                handle = self.place(patch.layer, patch.module).register_forward_hook(self._editor(patch))
                hooks.callback(handle.remove)
            yield

    def _editor(self, patch: Patch) -> Callable[[nn.Module, Any, Tensor], None]:
        row, index, z = (None if part is None else part[:, None] for part in (patch.row, patch.index, patch.z))

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            tokens = torch.arange(output.shape[1], device=output.device) if self.token == "all" else self.token
            where: Any = (row, tokens, index)
            output[where] = self.patched(output[where], z)  # [M, tokens]; the output is the module's own, in eval mode

        return hook


def model_dtype(clf: Classifier) -> torch.dtype:
    """The dtype that the model's forward computes in."""
    return next(clf.model.parameters()).dtype


def chunks(total: int, size: int) -> list[slice]:
    """Consecutive slices of `size`, the last one of what is left."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def to_changes(delta: Tensor, samples: Sequence[str], layer: int, module: str, index: Int) -> Float:
    """Change of the logits [B, T, n, C] as an array. Raises InputError naming the first (sample, neuron) whose change
    is NaN or infinite."""
    bad = torch.nonzero(~torch.isfinite(delta).all(-1))
    if len(bad):
        sample, _, neuron = bad[0].tolist()
        raise InputError(
            f"patching L{layer}.{module}.{int(index[neuron])} of sample {samples[sample]!r} gives a NaN or infinite "
            "output; check the replacement value"
        )
    out: Float = delta.cpu().numpy()
    return out
