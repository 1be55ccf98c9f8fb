"""What a premise-hypothesis pair is, and an immutable list of them.

``Pairs`` is what every later step takes: reading makes it, roles and treatment sets are subsets of it, and its digest
is what a result is tied to.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError

LABELS: tuple[str, ...] = ("entailment", "neutral", "contradiction", "non-entailment")
"""The canonical label names. ``non-entailment`` is HANS's merge of neutral and contradiction, not a fourth class."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One premise and one hypothesis.

    Parameters
    ----------
    id : str
        Name of the pair in its corpus; results and manifests refer to it.
    premise, hypothesis : str
    label : one of ``LABELS``, or None when unlabelled
    meta : mapping, optional
        Whatever else the corpus says of the pair (HANS heuristic, MNLI genre, ...). Copied and made read-only; not part
        of equality or digest.

    Raises
    ------
    InputError
        A text or the id is not a string, the id is empty, or the label is not canonical.

    Examples
    --------
    >>> Pair("p0", "A dog sleeps.", "An animal sleeps.", "entailment").label
    'entailment'
    """

    id: str
    premise: str
    hypothesis: str
    label: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InputError(f"a pair's id must be a non-empty string, got {self.id!r}")
        for name, text in (("premise", self.premise), ("hypothesis", self.hypothesis)):
            if not isinstance(text, str):
                raise InputError(f"pair {self.id!r}: the {name} must be a string, got {type(text).__name__} {text!r}")
        if self.label is not None and self.label not in LABELS:
            raise InputError(
                f"pair {self.id!r}: label {self.label!r} is not one of {', '.join(LABELS)}; "
                "use one of these, or None when unlabelled"
            )
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __reduce__(self) -> tuple[type[Pair], tuple[Any, ...]]:
        # A mapping proxy cannot be pickled or deep-copied; rebuild from a plain dict.
        return Pair, (self.id, self.premise, self.hypothesis, self.label, dict(self.meta))


class Pairs(Sequence[Pair]):
    """An immutable list of pairs that knows where it came from.

    Parameters
    ----------
    pairs : iterable of Pair
        Repeated ids are allowed, since sampling with replacement makes them; :func:`read_pairs` never does.
    source : str
        Where the pairs came from, for messages and manifests.
    dropped : mapping of reason to count, optional
        What reading left out, e.g. ``{"label '-'": 185}``.

    Attributes
    ----------
    source : str
    dropped : read-only mapping of str to int
    ids : tuple of str [n]
    labels : tuple of (str or None) [n]

    Raises
    ------
    InputError
        An element is not a Pair.

    Examples
    --------
    >>> pairs = Pairs([Pair("a", "It rains.", "It rains.", "entailment"), Pair("b", "It rains.", "It snows.")])
    >>> len(pairs), pairs[1].id, pairs[:1].ids
    (2, 'b', ('a',))
    """

    __slots__ = ("_pairs", "dropped", "source")

    source: str
    dropped: Mapping[str, int]
    _pairs: tuple[Pair, ...]

    def __init__(self, pairs: Iterable[Pair], source: str = "memory", dropped: Mapping[str, int] | None = None) -> None:
        items = tuple(pairs)
        for at, pair in enumerate(items):
            if not isinstance(pair, Pair):
                raise InputError(
                    f"element {at} of {source} is {type(pair).__name__} {pair!r}, not a Pair; "
                    "make one with Pair(id, premise, hypothesis, label)"
                )
        object.__setattr__(self, "_pairs", items)
        object.__setattr__(self, "source", str(source))
        object.__setattr__(self, "dropped", MappingProxyType(dict(dropped or {})))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Pairs is immutable; build a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Pairs is immutable; {name!r} cannot be deleted")

    def __reduce__(self) -> tuple[type[Pairs], tuple[Any, ...]]:
        return Pairs, (self._pairs, self.source, dict(self.dropped))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(pair.id for pair in self._pairs)

    @property
    def labels(self) -> tuple[str | None, ...]:
        return tuple(pair.label for pair in self._pairs)

    @property
    def label_counts(self) -> dict[str | None, int]:
        """Pairs per label that occurs, in the order of ``LABELS`` with unlabelled (None) last."""
        found = Counter(self.labels)
        return {label: found[label] for label in (*LABELS, None) if found[label]}

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    @overload
    def __getitem__(self, index: int) -> Pair: ...
    @overload
    def __getitem__(self, index: slice) -> Pairs: ...
    def __getitem__(self, index: int | slice) -> Pair | Pairs:
        if isinstance(index, slice):
            return Pairs(self._pairs[index], self.source)
        return self._pairs[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pairs) and self._pairs == other._pairs

    def __hash__(self) -> int:
        return hash(self.ids)

    def __repr__(self) -> str:
        counts = ", ".join(f"{label or 'unlabelled'} {count}" for label, count in self.label_counts.items())
        return f"Pairs({len(self)} from {self.source}{': ' + counts if counts else ''})"

    def subset(self, indices: Iterable[int] | npt.NDArray[np.integer[Any]], source: str | None = None) -> Pairs:
        """The pairs at these positions, in this order; repeats are kept.

        Parameters
        ----------
        indices : iterable of int [m]
            Positions 0..n-1. A boolean mask is refused, because read as positions it would pick pairs 0 and 1.
        source : str, optional
            Source of the subset; this one's by default. ``dropped`` stays with the whole reading.

        Raises
        ------
        InputError
            A position is a boolean, not an integer, or outside 0..n-1.
        """
        picked = []
        for index in indices:
            if isinstance(index, (bool, np.bool_)):
                raise InputError("subset takes positions, not a boolean mask; pass numpy.flatnonzero(mask)")
            try:
                at = operator.index(index)
            except TypeError:
                raise InputError(f"subset takes integer positions, got {type(index).__name__} {index!r}") from None
            if not 0 <= at < len(self._pairs):
                raise InputError(f"position {at} is outside the {len(self)} pairs of {self.source}")
            picked.append(self._pairs[at])
        return Pairs(picked, self.source if source is None else source)

    def digest(self) -> str:
        """Hex sha256 over (id, premise, hypothesis, label) of every pair, in order. Source and meta do not count."""
        return pairs_digest(self._pairs)


def pairs_digest(pairs: Iterable[Any]) -> str:
    """``Pairs.digest`` of any objects with id, premise and hypothesis, and a label if they have one."""
    sha = hashlib.sha256()
    for pair in pairs:
        fields = [pair.id, pair.premise, pair.hypothesis, getattr(pair, "label", None)]
        # JSON quotes its strings, so no text can imitate a boundary; ASCII escapes survive lone surrogates.
        sha.update(json.dumps(fields).encode("ascii") + b"\n")
    return sha.hexdigest()
