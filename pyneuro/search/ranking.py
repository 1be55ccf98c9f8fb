"""Neurons in the order of their effects: what sets are cut from, and what ablations go along."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyneuro.errors import InputError
from pyneuro.results import CONTRAST, Result
from pyneuro.search.top_k import ORDERS, Order
from pyneuro.sites import CONVENTIONS, ModelShape, NeuronSet

Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Distinct neurons of one model shape, strongest first. Made by ``rank`` and ``Ranking.parse``.

    Attributes
    ----------
    shape : ModelShape
    ids : int64 [n]
        Flat ids, as of ``NeuronSet``.
    convention : str
        Where these neurons are read and patched.
    model_digest : str or None
        Of the model that was searched, where it is known.
    samples : frozenset of str
        Ids of the pairs that the order was found on, as far as they are known.
    """

    shape: ModelShape
    ids: Int
    convention: str
    model_digest: str | None = None
    samples: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, names: Iterable[str], shape: ModelShape, convention: str = "linear") -> Ranking:
        """Read names such as ``["L3.I.906", "L0.Q.5"]``, strongest first.

        Raises InputError for a name that cannot be read, lies outside the model or comes twice, and for an unknown
        convention.
        """
        if convention not in CONVENTIONS:
            raise InputError(f"convention {convention!r} is not one of {', '.join(CONVENTIONS)}")
        ids: list[int] = []
        for name in names:
            found = NeuronSet.parse([name], shape).ids
            if len(found) != 1 or int(found[0]) in ids:
                raise InputError(f"{name!r} names {len(found)} neurons, or one named before; a ranking has each once")
            ids.append(int(found[0]))
        return cls(shape, np.array(ids, dtype=np.int64), convention)

    def first(self, k: int) -> NeuronSet:
        """The k strongest. Raises InputError for a k outside 0 to the number of neurons."""
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k <= len(self):
            raise InputError(f"k = {k!r}; pass a whole number from 0 to {len(self)}, the neurons that are ranked")
        return NeuronSet(self.shape, self.ids[:k])

    def count(self, share: float) -> int:
        """Neurons in a share of the ranking, rounded, at least 1. Raises InputError for a share outside (0, 1]."""
        if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
            raise InputError(f"share = {share!r}; pass a number above 0, up to 1: 0.05 is the strongest 5 %")
        return max(1, round(float(share) * len(self)))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Ranking({len(self)} neurons, {self.convention})"


def rank(result: Result, *, treatment: str | None = None, by: str = "nie", order: Order = "absolute") -> Ranking:
    """Neurons of a search, strongest first.

    Lim et al. 2024 rank by the signed effect of one treatment: ``treatment="HOL", order="signed"``.

    Parameters
    ----------
    result : Result
        Of single neurons.
    treatment : str, optional
        A treatment, or "contrast". Default: the contrast where there is one, else the only treatment.
    by : str
        Any numeric column of the result.
    order : "absolute", "signed" or "negative"
        Largest magnitude, largest value, or smallest value first. Ties keep the order of the sites; neurons without a
        value are left out.

    Raises
    ------
    InputError
        For a result of sets, an unknown order, treatment or column.
    """
    if result.kind != "neurons":
        raise InputError("this result is of sets; rank a result of single neurons")
    if order not in ORDERS:
        raise InputError(f"order = {order!r} is not one of {', '.join(ORDERS)}")
    table = result.top(
        max(len(result.frame()), 1),
        treatment=chosen_treatment(result, treatment),
        by=by,
        absolute=order == "absolute",
        ascending=order == "negative",
    )
    table = table[table[by].notna()]
    shape = result.shape
    start = {site: shape.offset(*site) for site in shape.groups()}
    where = zip(table["layer"].tolist(), table["module"].tolist(), table["neuron"].tolist(), strict=True)
    ids = np.array([start[layer, module] + neuron for layer, module, neuron in where], dtype=np.int64)
    settings = result.manifest.get("settings", {})
    return Ranking(
        shape,
        ids,
        str(settings.get("convention", "linear")),
        settings.get("model", {}).get("digest"),
        frozenset(result.manifest.get("ids", ())),
    )


def chosen_treatment(result: Result, treatment: str | None) -> str:
    """The treatment asked for; else the contrast where there is one, else the only treatment.

    Raises InputError for a treatment that is not in the result.
    """
    known = [*result.treatments, *([CONTRAST] if result.has_contrast else [])]
    if treatment is None:
        return known[-1]
    if treatment not in known:
        raise InputError(f"treatment {treatment!r} is not in this result; choose one of {', '.join(known)}")
    return treatment
