"""What a neuron is called.

A neuron is one output coordinate of one of the six linear layers of an encoder layer, written ``"L3.I.906"``: layer
(from 0), module, index. Two conventions exist for where its value is read and patched (Lim et al. 2024 hook modules,
most other work the linear layer):

========  =================================  ======================================================
module    ``linear``                         ``hook``
========  =================================  ======================================================
Q, K, V   output of the projection           the same
AO        output of the attention's dense    after the residual and LayerNorm
I         output of the dense, before GELU   after GELU
O         output of the feed-forward dense   after the residual and LayerNorm
========  =================================  ======================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError

Module = Literal["Q", "K", "V", "AO", "I", "O"]
Convention = Literal["linear", "hook"]
MODULES: tuple[Module, ...] = get_args(Module)
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

_NAME = re.compile(r"L([0-9]+|\*)\.(Q|K|V|AO|I|O|\*)\.([0-9]+|\*)")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of an encoder: enough to name, count and order its neurons."""

    layers: int
    hidden: int
    heads: int
    intermediate: int

    @property
    def layer_width(self) -> int:
        """Neurons of one layer, all six modules."""
        return 5 * self.hidden + self.intermediate

    @property
    def n_neurons(self) -> int:
        return self.layers * self.layer_width

    def width(self, module: str) -> int:
        """Neurons of one module."""
        return self.intermediate if module == "I" else self.hidden

    def offset(self, layer: int, module: str) -> int:
        """Flat id of neuron 0 of (layer, module). Flat ids run layer by layer, modules in the order of ``MODULES``."""
        return layer * self.layer_width + sum(self.width(m) for m in MODULES[: MODULES.index(module)])

    def groups(self) -> Iterator[tuple[int, Module]]:
        """Every (layer, module), in flat order."""
        return ((layer, module) for layer in range(self.layers) for module in MODULES)


@dataclass(frozen=True, order=True)
class Neuron:
    """One neuron; ``str(Neuron(3, "I", 906)) == "L3.I.906"``. The name leaves the convention out."""

    layer: int
    module: Module
    index: int
    convention: Convention = "linear"

    def __str__(self) -> str:
        return f"L{self.layer}.{self.module}.{self.index}"

    @classmethod
    def parse(cls, name: str) -> Neuron:
        """Read ``"L3.I.906"``. Raises InputError for anything else, patterns included."""
        match = _NAME.fullmatch(name)
        if match is None or "*" in match.groups():
            raise InputError(f"{name!r} does not name a neuron; write layer, module and index as in 'L3.I.906'")
        layer, module, index = match.groups()
        return cls(int(layer), module, int(index))  # type: ignore[arg-type]


class NeuronSet:
    """Distinct neurons of one model shape, in flat order.

    Parameters
    ----------
    shape : ModelShape
    ids : integers [n]
        Flat ids; duplicates are merged.
    """

    def __init__(self, shape: ModelShape, ids: npt.ArrayLike) -> None:
        flat = np.unique(np.asarray(ids, dtype=np.int64))
        if flat.size and (flat[0] < 0 or flat[-1] >= shape.n_neurons):
            raise InputError(f"neuron ids must lie in 0..{shape.n_neurons - 1}, got {flat[0]}..{flat[-1]}")
        flat.flags.writeable = False
        self.shape = shape
        self.ids: npt.NDArray[np.int64] = flat

    @classmethod
    def all(cls, shape: ModelShape) -> NeuronSet:
        """Every neuron of the model."""
        return cls(shape, np.arange(shape.n_neurons))

    @classmethod
    def parse(cls, names: str | Iterable[str], shape: ModelShape) -> NeuronSet:
        """Read names and patterns: ``"L3.I.906"``, ``"L0.Q.*"``, ``"L*.AO.308"``; ``"all"`` is every neuron.

        Raises InputError naming the entry that cannot be read or lies outside the model.
        """
        names = [names] if isinstance(names, str) else list(names)
        if "all" in names:
            return cls.all(shape)
        parts = [cls._expand(name, shape) for name in names]
        if not parts:
            raise InputError("no sites given; pass 'all' or names such as ['L3.I.906', 'L0.Q.*']")
        return cls(shape, np.concatenate(parts))

    @staticmethod
    def _expand(name: str, shape: ModelShape) -> npt.NDArray[np.int64]:
        match = _NAME.fullmatch(str(name))
        if match is None:
            raise InputError(
                f"site {name!r} is not understood; write 'L3.I.906', 'L0.Q.*', 'L*.AO.308' or 'all' "
                f"(modules: {', '.join(MODULES)})"
            )
        layer, module, index = match.groups()
        if layer != "*" and int(layer) >= shape.layers:
            raise InputError(f"site {name!r}: the model has layers 0..{shape.layers - 1}")
        out = []
        for number in range(shape.layers) if layer == "*" else [int(layer)]:
            for m in MODULES if module == "*" else [module]:
                width = shape.width(m)
                if index != "*" and int(index) >= width:
                    if module == "*":
                        continue
                    raise InputError(f"site {name!r}: module {m} has neurons 0..{width - 1}")
                out.append(shape.offset(number, m) + (np.arange(width) if index == "*" else np.array([int(index)])))
        if not out:
            raise InputError(f"site {name!r} matches no neuron of this model")
        return np.concatenate(out).astype(np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Neuron]:
        for (layer, module), indices in self.groups():
            for index in indices:
                yield Neuron(layer, module, int(index))

    def __contains__(self, neuron: object) -> bool:
        if not isinstance(neuron, Neuron):
            return False
        flat = self.shape.offset(neuron.layer, neuron.module) + neuron.index
        at = int(np.searchsorted(self.ids, flat))
        return at < len(self.ids) and int(self.ids[at]) == flat

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NeuronSet) and self.shape == other.shape and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.shape, self.ids.tobytes()))

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.shape, np.concatenate([self.ids, other.ids]))

    def __repr__(self) -> str:
        head = ", ".join(str(n) for _, n in zip(range(3), self, strict=False))
        return f"NeuronSet({len(self)} neurons: {head}{', ...' if len(self) > 3 else ''})"

    def groups(self) -> list[tuple[tuple[int, Module], npt.NDArray[np.int64]]]:
        """[((layer, module), indices [n])] in flat order, without empty groups."""
        out = []
        for layer, module in self.shape.groups():
            start = self.shape.offset(layer, module)
            lo, hi = np.searchsorted(self.ids, [start, start + self.shape.width(module)])
            if hi > lo:
                out.append(((layer, module), self.ids[lo:hi] - start))
        return out
