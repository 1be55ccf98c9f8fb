"""Counterfactual values: what a neuron is set to when it is patched.

``z[treatment][layer][module]`` is the mean over a treatment set of the site's value at token 0 ([CLS], <s>).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.models.observe import observe
from pyneuro.models.weights import Encoding
from pyneuro.sites import CONVENTIONS, MODULES, Convention, ModelShape

Vector: TypeAlias = npt.NDArray[np.float64]
Site: TypeAlias = tuple[str, int, str]  # treatment, layer, module

_FORMAT = "pyneuro-values-1"
# What numpy, zipfile and json raise for bytes that are not what they should be.
_DAMAGE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_WINDOW = 64  # batches tokenised and sorted by length at a time


@dataclass(frozen=True, eq=False)
class Values:
    """Values to patch with, by treatment and site. Immutable; from ``mean_activations``, ``from_arrays`` or ``load``.

    Attributes
    ----------
    convention : "linear" or "hook"
        Where the values were read, see ``pyneuro.sites``.
    counts : mapping of str to int
        Samples behind each treatment's means; empty where unknown.
    model_digest, model_name : str or None
        The classifier they were read from; None lets ``check`` accept any model.
    """

    convention: Convention
    counts: Mapping[str, int] = field(default_factory=dict)
    model_digest: str | None = None
    model_name: str | None = None
    _means: Mapping[Site, Vector] = field(default_factory=dict, repr=False)
    _variances: Mapping[Site, Vector] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[Site, Any],
        *,
        convention: str,
        counts: Mapping[str, int] | None = None,
        variances: Mapping[Site, Any] | None = None,
        model_digest: str | None = None,
        model_name: str | None = None,
    ) -> Values:
        """Values of your own.

        Parameters
        ----------
        arrays : mapping of (treatment, layer, module) to array-like [width]
            Copied to float64. Widths and finiteness are judged by ``check``, against a model. Not every site need be
            there.
        convention : "linear" or "hook"
        counts, variances, model_digest, model_name
            As the attributes; `variances` is keyed as `arrays`.

        Raises
        ------
        InputError
            For an unknown convention or a key or array that can't be read.
        """
        if convention not in CONVENTIONS:
            raise InputError(f"convention {convention!r} is not one of {', '.join(map(repr, CONVENTIONS))}")
        if not arrays:
            raise InputError("no values given; pass {(treatment, layer, module): array} with at least one entry")
        if unknown := set(variances or {}) - set(arrays):
            raise InputError(f"variances has {sorted(unknown)[0]!r} and arrays doesn't; give values for it or drop it")
        return cls(
            convention=convention,
            counts=MappingProxyType(dict(counts or {})),
            model_digest=model_digest,
            model_name=model_name,
            _means=_frozen(arrays),
            _variances=_frozen(variances or {}),
        )

    @property
    def treatments(self) -> tuple[str, ...]:
        """Names of the treatments, in the order they were given."""
        return tuple(dict.fromkeys(treatment for treatment, _, _ in self._means))

    def array(self, treatment: str, layer: int, module: str) -> Vector:
        """Values [width], float64, read-only. Raises InputError when these are not among the values."""
        return self._get(self._means, "values", treatment, layer, module)

    def variance(self, treatment: str, layer: int, module: str) -> Vector:
        """Population variance over the samples (divided by their count), [width] float64, read-only.

        For diagnostics: nothing is patched from it. Raises InputError where it isn't known.
        """
        return self._get(self._variances, "variances", treatment, layer, module)

    def _get(self, arrays: Mapping[Site, Vector], what: str, treatment: str, layer: int, module: str) -> Vector:
        if treatment not in self.treatments:
            raise InputError(f"no treatment {treatment!r}; these values have {', '.join(map(repr, self.treatments))}")
        found = arrays.get((treatment, layer, module))
        if found is None:
            raise InputError(
                f"no {what} for L{layer}.{module} under treatment {treatment!r}; add them to from_arrays or use "
                "mean_activations"
            )
        return found

    def check(self, clf: Classifier, convention: str, groups: Iterable[tuple[int, str]] = ()) -> None:
        """Refuse values that can't be patched into this model.

        Parameters
        ----------
        clf : Classifier
        convention : "linear" or "hook"
            The convention the analysis patches in.
        groups : iterable of (layer, module)
            Sites that every treatment must have.

        Raises
        ------
        InputError
            Another convention, another model, a layer or module the model lacks, a wrong width, a NaN or infinity (the
            neuron is named), or a site of `groups` without values.
        """
        if convention != self.convention:
            raise InputError(
                f"the values are of the {self.convention!r} convention and the analysis uses {convention!r}; make "
                f"them with convention={convention!r} or analyse with convention={self.convention!r}"
            )
        if self.model_digest is not None and self.model_digest != clf.digest:
            raise InputError(
                f"the values were read from {self.model_name or 'a model'} ({self.model_digest[:12]}) and the model is "
                f"{clf.name} ({clf.digest[:12]}); make them again with mean_activations on this model"
            )
        for site, values in self._means.items():
            _check_site(site, values, clf.shape)
        for layer, module in groups:
            for treatment in self.treatments:
                self.array(treatment, layer, module)

    def digest(self) -> str:
        """Hex sha256 of what is patched: convention, model digest, and every site's values."""
        h = hashlib.sha256(json.dumps([self.convention, self.model_digest]).encode())
        for site in sorted(self._means):
            h.update(json.dumps([*site, self._means[site].shape]).encode())
            h.update(np.ascontiguousarray(self._means[site], dtype="<f8").data)
        return h.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write to one file: an npz of float64 arrays with its description as JSON inside. Whole or not at all."""
        names = self.treatments
        meta = {
            "format": _FORMAT,
            "convention": self.convention,
            "treatments": names,
            "counts": dict(self.counts),
            "model_digest": self.model_digest,
            "model_name": self.model_name,
            "digest": self.digest(),
        }
        members: dict[str, npt.NDArray[Any]] = {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)}
        for kind, arrays in (("mean", self._means), ("variance", self._variances)):
            for (treatment, layer, module), values in arrays.items():
                members[f"{kind}.{names.index(treatment)}.{layer}.{module}"] = values
        buffer = io.BytesIO()
        np.savez(buffer, **cast(Any, members))
        _write_whole(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Values:
        """Read a file written by ``save``. Raises InputError when it is missing, damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as members:
                meta = json.loads(members["meta"].tobytes())
                if meta["format"] != _FORMAT:
                    raise InputError(
                        f"{path}: format {meta['format']!r} is not {_FORMAT!r}; it was written by another version "
                        "of pyneuro"
                    )
                arrays: dict[str, dict[Site, Vector]] = {"mean": {}, "variance": {}}
                for name in members.files:
                    if name != "meta":
                        kind, number, layer, module = name.split(".")
                        arrays[kind][meta["treatments"][int(number)], int(layer), module] = members[name]
                values = cls.from_arrays(
                    arrays["mean"],
                    convention=meta["convention"],
                    counts=meta["counts"],
                    variances=arrays["variance"],
                    model_digest=meta["model_digest"],
                    model_name=meta["model_name"],
                )
        except FileNotFoundError as error:
            raise InputError(f"values file {str(path)!r} does not exist; write it with Values.save") from error
        except InputError:
            raise
        except _DAMAGE as error:
            raise InputError(
                f"{str(path)!r} is not a whole values file ({error}); it is truncated or something else: save it again"
            ) from error
        if values.digest() != meta["digest"]:
            raise InputError(f"{str(path)!r} does not match its own digest; it was altered or damaged: save it again")
        return values


def mean_activations(
    clf: Classifier, sets: Mapping[str, Sequence[PairLike]], convention: str = "linear", batch_size: int = 32
) -> Values:
    """Mean and variance of every neuron at token 0 over each treatment set, by forward hooks on the HuggingFace model.

    Parameters
    ----------
    clf : Classifier
        Left as it was: hooks removed, training flags restored, also after an error.
    sets : mapping of str to sequence of pairs
        Treatment name to its samples, such as ``treatment_sets(pairs)``; anything with ``id``, ``premise`` and
        ``hypothesis`` is a pair.
    convention : "linear" or "hook"
        Where a neuron's value is read, see ``pyneuro.sites``.
    batch_size : int, default 32
        Samples per forward. The forward runs in the model's dtype and sums in float64: results depend on this by the
        forward's rounding only.

    Returns
    -------
    Values

    Raises
    ------
    InputError
        No sets, an empty set, an unknown convention, a pair that can't be encoded, or a NaN or infinite activation
        (neuron and pair are named).

    References
    ----------
    Lim et al. 2024, whose values are these means with ``convention="hook"``. Batches are merged as in Chan, Golub and
    LeVeque 1983.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is not one of {', '.join(map(repr, CONVENTIONS))}")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    if not isinstance(sets, Mapping) or not sets:
        raise InputError(
            f"sets must map at least one treatment name to its pairs, got {type(sets).__name__}; pass "
            f"{{'HOL': pairs, 'LOL': pairs}}"
        )
    for treatment, pairs in sets.items():
        if not len(pairs):
            raise InputError(f"treatment set {treatment!r} is empty; widen its overlap bounds or drop it")
    means: dict[Site, Vector] = {}
    variances: dict[Site, Vector] = {}
    with observe(clf, convention, token=0) as seen, clf.inference():
        for treatment, pairs in sets.items():
            moments = _Moments(clf.shape.n_neurons)
            for batch in _batches(clf, pairs, batch_size):
                clf.model(**clf.batch(batch))
                # [B, n_neurons] in flat order, moved once. Doubled after the move: not every device has float64.
                rows = torch.cat([seen[site] for site in clf.shape.groups()], dim=1).cpu().double()
                _check_rows(rows, batch, clf.shape)
                moments.add(rows)
            for layer, module in clf.shape.groups():
                start = clf.shape.offset(layer, module)
                part = slice(start, start + clf.shape.width(module))
                means[treatment, layer, module] = moments.mean[part].numpy()
                variances[treatment, layer, module] = (moments.squares[part] / moments.count).numpy()
    return Values.from_arrays(
        means,
        convention=convention,
        counts={treatment: len(pairs) for treatment, pairs in sets.items()},
        variances=variances,
        model_digest=clf.digest,
        model_name=clf.name,
    )


class _Moments:
    """Running count, mean and sum of squared deviations from it, float64 [n]."""

    def __init__(self, n: int) -> None:
        self.count = 0
        self.mean = torch.zeros(n, dtype=torch.float64)
        self.squares = torch.zeros(n, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Merge a batch [B, n]: with delta between the means, M2 += M2_b + delta^2 n n_b / (n + n_b)."""
        size, mean = rows.shape[0], rows.mean(0)
        total, delta = self.count + size, mean - self.mean
        self.squares += (rows - mean).square().sum(0) + delta.square() * (self.count * size / total)
        self.mean += delta * (size / total)
        self.count = total


def _batches(clf: Classifier, pairs: Sequence[PairLike], batch_size: int) -> Iterator[list[Encoding]]:
    """Batches of like length, so that little is padding: a window of many batches is tokenised and sorted at a time."""
    source = iter(pairs)
    while window := [clf.encode(pair) for pair in islice(source, _WINDOW * batch_size)]:
        window.sort(key=len)
        for start in range(0, len(window), batch_size):
            yield window[start : start + batch_size]


def _check_rows(rows: Tensor, batch: Sequence[Encoding], shape: ModelShape) -> None:
    finite = torch.isfinite(rows)
    if bool(finite.all()):
        return
    row, neuron = (int(i) for i in torch.nonzero(~finite)[0])
    layer, module = [site for site in shape.groups() if shape.offset(*site) <= neuron][-1]
    raise InputError(
        f"neuron L{layer}.{module}.{neuron - shape.offset(layer, module)} is {float(rows[row, neuron])} at token 0 "
        f"of pair {batch[row].id!r}; the model overflows on this pair: drop the pair or check the weights"
    )


def _check_site(site: Site, values: Vector, shape: ModelShape) -> None:
    treatment, layer, module = site
    where = f"values of L{layer}.{module} under treatment {treatment!r}"
    if layer >= shape.layers:
        raise InputError(f"{where}: the model has layers 0..{shape.layers - 1}")
    if values.shape != (shape.width(module),):
        raise InputError(f"{where} have shape {values.shape}; the model needs ({shape.width(module)},)")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise InputError(
            f"{where}: neuron L{layer}.{module}.{bad[0]} is {values[bad[0]]} ({bad.size} of {values.size} not "
            "finite); give finite values"
        )


def _frozen(arrays: Mapping[Site, Any]) -> Mapping[Site, Vector]:
    """Read-only float64 copies, keys checked."""
    out: dict[Site, Vector] = {}
    for key, values in arrays.items():
        match key:
            case (str() as treatment, int() | np.integer() as layer, str() as module) if (
                layer >= 0 and module in MODULES
            ):
                pass
            case _:
                raise InputError(
                    f"key {key!r} is not (treatment, layer, module) such as ('HOL', 3, 'I'); modules are "
                    f"{', '.join(MODULES)}"
                )
        try:
            numbers = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values
            copy = np.array(numbers, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"values of {key!r} can't be read as float64 numbers: {error}") from error
        copy.flags.writeable = False
        out[treatment, int(layer), module] = copy
    return MappingProxyType(out)


def _write_whole(path: Path, content: bytes) -> None:
    """Write through a temporary file beside `path`, so that a reader never meets half a file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"can't write {str(path)!r}: {error.strerror}; choose a file in a folder that is there and writable"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
