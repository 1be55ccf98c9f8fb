"""What a search goes through: groups of neurons of one (layer, module), or named sets, with their replacement
values."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pyneuro.data.pairs import pairs_digest
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models.classifier import PairLike
from pyneuro.models.weights import Encoding
from pyneuro.search.evaluator import Float
from pyneuro.sites import ModelShape, NeuronSet

Sites = str | Iterable[str] | NeuronSet | Mapping[str, NeuronSet]


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons of one (layer, module), each patched alone. ``z`` is float64 [T, n] or None."""

    layer: int
    module: str
    index: npt.NDArray[np.int64]  # [n]
    z: Float | None

    @property
    def name(self) -> str:
        return f"L{self.layer}.{self.module}"

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class SetGroup:
    """Named sets, each patched jointly. ``z[i]`` is float64 [T, len(sets[i])], in flat order."""

    names: tuple[str, ...]
    sets: tuple[NeuronSet, ...]
    z: tuple[Float, ...] | None

    name = "sets"

    def __len__(self) -> int:
        return len(self.sets)

    @property
    def layer(self) -> int:
        """The first patched layer: what lies below is not run again for any of the sets."""
        return self._first[0]

    @property
    def module(self) -> str:
        """The first patched module of that layer."""
        return self._first[1]

    @cached_property
    def _first(self) -> tuple[int, str]:
        shape = self.sets[0].shape
        return min((s.groups()[0][0] for s in self.sets), key=lambda site: shape.offset(*site))


def resolve_sites(sites: Sites, shape: ModelShape) -> NeuronSet | dict[str, NeuronSet]:
    """Names, patterns, a NeuronSet (each neuron alone), or a mapping of names to NeuronSets (each set jointly).

    Raises InputError for what cannot be read, is empty, or belongs to another shape.
    """
    if isinstance(sites, Mapping):
        if not sites:
            raise InputError("sites is an empty mapping; pass at least one named NeuronSet")
        for name, members in sites.items():
            if not isinstance(members, NeuronSet):
                raise InputError(
                    f"set {name!r} is {type(members).__name__}; pass a NeuronSet, as NeuronSet.parse makes"
                )
            _check_shape(members, shape, f"set {name!r}")
        return dict(sites)
    if isinstance(sites, NeuronSet):
        _check_shape(sites, shape, "sites")
        return sites
    if not isinstance(sites, Iterable):
        raise InputError(f"sites = {sites!r}; pass 'all', names, a NeuronSet, or a mapping of names to NeuronSets")
    return NeuronSet.parse(sites, shape)


def _check_shape(members: NeuronSet, shape: ModelShape, what: str) -> None:
    if len(members) == 0:
        raise InputError(f"{what} holds no neuron")
    if members.shape != shape:
        raise InputError(f"{what} was made for {members.shape}, the model is {shape}; make it from clf.shape")


def make_groups(sites: NeuronSet | Mapping[str, NeuronSet], values: Values | None) -> list[Group] | list[SetGroup]:
    """The groups of a search, with the values of every treatment."""

    def z_of(members: NeuronSet) -> Float | None:
        if values is None:
            return None
        found = [
            np.concatenate(
                [values.array(treatment, layer, module)[index] for (layer, module), index in members.groups()]
            )
            for treatment in values.treatments
        ]
        return np.stack(found)

    if isinstance(sites, NeuronSet):
        return [
            Group(layer, module, index, z_of(NeuronSet(sites.shape, sites.shape.offset(layer, module) + index)))
            for (layer, module), index in sites.groups()
        ]
    sets = tuple(sites.values())
    z = None if values is None else tuple(z for s in sets if (z := z_of(s)) is not None)
    return [SetGroup(tuple(sites), sets, z)]


def sites_digest(sites: NeuronSet | Mapping[str, NeuronSet]) -> str:
    """Hex sha256 of what is searched."""
    h = hashlib.sha256()
    for name, members in [("", sites)] if isinstance(sites, NeuronSet) else sites.items():
        h.update(f"{name}:{len(members)}:".encode())
        h.update(members.ids.astype("<i8").tobytes())
    return h.hexdigest()


def texts_digest(samples: Iterable[PairLike], encodings: Iterable[Encoding]) -> dict[str, str]:
    """Hex sha256 of the pairs, and of what the model sees of them (tokenizer and truncation included)."""
    tokens = hashlib.sha256()
    for e in encodings:
        tokens.update(f"{len(e)}:".encode() + e.input_ids.numpy().tobytes() + e.token_type_ids.numpy().tobytes())
    return {"digest": pairs_digest(samples), "tokens": tokens.hexdigest()}
