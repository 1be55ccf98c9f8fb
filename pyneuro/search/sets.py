"""Sets of neurons that are patched jointly: halves of layers, the strongest k, bisection, greedy growth, synergy.

Effects do not add: what a set does is measured by patching the set, ``pyneuro.search(sites={name: NeuronSet})``. Here
are the sets, and the two searches for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import numpy as np
import pandas as pd

from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_whole
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.results import CONTRAST, Result
from pyneuro.results.table import SITE_COLUMNS
from pyneuro.search.ranking import Ranking, chosen_treatment
from pyneuro.search.search import search
from pyneuro.search.targets import resolve_sites, sites_digest
from pyneuro.search.top_k import ORDERS, Order
from pyneuro.sites import ModelShape, NeuronSet

Names = str | Iterable[str] | NeuronSet
_Part = tuple[str, Result, str]  # a set: its name, where it was searched, its name there


class SetOptions(TypedDict, total=False):
    """Options of ``pyneuro.search`` that apply to sets, with the same meaning and the same defaults."""

    response: str
    target: str
    foil: str | None
    convention: str
    backend: str | None
    precision: str
    intervention: str | Intervention
    strength: float | None
    token: int | Literal["all"]
    memory: int | None
    probability_floor: float | None
    ci: float


@dataclass(frozen=True, eq=False)
class Bisection:
    """Made by ``bisect``.

    Attributes
    ----------
    tree : DataFrame
        A row a set that was patched, parents before their halves: ``site, parent, depth, size, effect, followed``.
        ``site`` names the first and last neuron; ``followed`` says whether it was split, or is the leaf.
    result : Result
        The same sets with all columns and treatments.
    leaf : NeuronSet
        Where the splitting ended.
    """

    tree: pd.DataFrame
    result: Result
    leaf: NeuronSet


@dataclass(frozen=True, eq=False)
class Greedy:
    """Made by ``greedy``.

    Attributes
    ----------
    steps : DataFrame
        A row a neuron, in the order in which they were taken: ``step`` (from 1) ``, site, effect`` (joint, of all
        neurons so far) ``, gain`` (over the step before).
    result : Result
        The growing sets, "step 1" and so on, with all columns and treatments.
    neurons : NeuronSet
        All that were taken.
    """

    steps: pd.DataFrame
    result: Result
    neurons: NeuronSet


def halves(shape: ModelShape) -> dict[str, NeuronSet]:
    """First and second half of the output of every linear layer: 144 sets for BERT-base.

    Names are as "L0.Q.0-383"; an odd width has the larger half second.

    Examples
    --------
    >>> found = halves(ModelShape(layers=12, hidden=768, heads=12, intermediate=3072))
    >>> len(found), list(found)[:2]
    (144, ['L0.Q.0-383', 'L0.Q.384-767'])
    """
    out = {}
    for layer, module in shape.groups():
        start, width = shape.offset(layer, module), shape.width(module)
        for low, high in ((0, width // 2), (width // 2, width)):
            if high > low:
                out[f"L{layer}.{module}.{low}-{high - 1}"] = NeuronSet(shape, start + np.arange(low, high))
    return out


def top_k_sets(ranking: Ranking, ks: Sequence[int]) -> dict[str, NeuronSet]:
    """The k strongest neurons, "top 10" and so on, for every k. Raises InputError for a k that is not from 1 to the
    number of neurons ranked."""
    if odd := [k for k in ks if k == 0]:
        raise InputError(f"k = {odd[0]} is an empty set; pass numbers from 1")
    return {f"top {k}": ranking.first(k) for k in ks}


def bisect(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    start: Names = "all",
    *,
    size: int = 1,
    treatment: str | None = None,
    **options: Unpack[SetOptions],
) -> Bisection:
    """Split a set into halves, go on with the half of the larger joint |effect|, and so on.

    Takes about 2 log₂(n / size) joint effects a sample. It finds where a large effect is only as far as effects of
    parts tell of it: a strong neuron among others that push the other way may lie in the half that is left.

    Parameters
    ----------
    clf, pairs, values
        As for ``pyneuro.search``.
    start : names or NeuronSet
        The set to begin with; it is split in flat order: by layer, then module, then index.
    size : int
        Sets of this size or smaller are not split.
    treatment : str, optional
        Whose effect decides, or "contrast". Default: the contrast where there is one, else the only treatment.
    **options
        Of ``pyneuro.search``: see ``SetOptions``.

    Raises
    ------
    InputError
        As ``pyneuro.search``, and for a size that is no whole number from 1.
    """
    if not is_whole(size) or size < 1:
        raise InputError(f"size = {size!r}; pass a whole number from 1, the size at which splitting ends")
    current = _resolved(start, clf.shape)
    parts: list[_Part] = []
    rows: list[dict[str, object]] = []

    def measured(sets: Sequence[NeuronSet], parent: str | None, depth: int) -> list[float]:
        result = search(clf, pairs, values, sites={_extent(s): s for s in sets}, progress=False, **options)
        effects = _effects(result, treatment)
        for members in sets:
            name = _extent(members)
            parts.append((name, result, name))
            about = {"site": name, "parent": parent, "depth": depth, "size": len(members)}
            rows.append({**about, "effect": effects[name]})
        return [effects[_extent(members)] for members in sets]

    measured([current], None, 0)
    followed = [_extent(current)]
    while len(current) > size:
        both = [NeuronSet(clf.shape, ids) for ids in np.split(current.ids, [len(current) // 2])]
        first, second = measured(both, followed[-1], len(followed))
        current = both[1] if abs(second) > abs(first) else both[0]
        followed.append(_extent(current))
    tree = pd.DataFrame(rows)
    tree["followed"] = tree["site"].isin(followed)
    return Bisection(tree, _combined(parts), current)


def greedy(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    k: int = 5,
    *,
    candidates: Names,
    order: Order = "absolute",
    treatment: str | None = None,
    **options: Unpack[SetOptions],
) -> Greedy:
    """Grow a set: every step patches each candidate jointly with those taken so far, and takes the strongest (Vig et
    al. 2020).

    Costs k times a sweep over the candidates, from the second step on as sets, which are dearer than single neurons:
    pass the strongest of a search as candidates.

    Parameters
    ----------
    clf, pairs, values
        As for ``pyneuro.search``.
    k : int
        Neurons to take.
    candidates : names or NeuronSet
    order : "absolute", "signed" or "negative"
        Take what makes the joint effect largest in magnitude, largest (as Vig et al.), or smallest.
    treatment, **options
        As for ``bisect``.

    Raises
    ------
    InputError
        As ``pyneuro.search``, for a k outside 1 to the number of candidates, and an unknown order.
    """
    pool = _resolved(candidates, clf.shape)
    if not is_whole(k) or not 1 <= k <= len(pool):
        raise InputError(f"k = {k!r}; pass a whole number from 1 to {len(pool)}, the candidates")
    if order not in ORDERS:
        raise InputError(f"order = {order!r} is not one of {', '.join(ORDERS)}")
    names = dict(zip(map(str, pool), pool.ids.tolist(), strict=True))
    taken: list[int] = []
    parts: list[_Part] = []
    steps: list[dict[str, object]] = []
    before = 0.0
    for step in range(1, k + 1):
        sets = {name: NeuronSet(clf.shape, [*taken, i]) for name, i in names.items() if i not in taken}
        result = search(clf, pairs, values, sites=sets, progress=False, **options)
        effects = _effects(result, treatment)
        best = max(effects, key=lambda name: _score(effects[name], order))
        taken.append(names[best])
        parts.append((f"step {step}", result, best))
        steps.append({"step": step, "site": best, "effect": effects[best], "gain": effects[best] - before})
        before = effects[best]
    return Greedy(pd.DataFrame(steps), _combined(parts), NeuronSet(clf.shape, taken))


def synergy(joint: Result, singles: Result) -> pd.DataFrame:
    """What sets do beyond the sum of what their neurons do alone: joint effect − Σ single effects (Vig et al. 2020).

    Parameters
    ----------
    joint : Result
        Of sets.
    singles : Result
        Of single neurons, all members of the sets among them; found on the same pairs with the same values and
        options. Where it is an estimate, the sums are too.

    Returns
    -------
    DataFrame
        A row a set and treatment (and the contrast): ``set, treatment, size, joint, sum_of_singles, synergy``.

    Raises
    ------
    InputError
        Where the results do not belong together, and for a member that was not searched alone.
    """
    sets = joint.sets()
    if singles.kind != "neurons":
        raise InputError("singles is a result of sets; pass that of a search for single neurons")
    for name in _TOGETHER:
        first, second = (result.manifest.get("settings", {}).get(name) for result in (joint, singles))
        if first != second:
            raise InputError(f"the two results differ in {name}: {first} and {second}; search both in the same way")
    rows = []
    for treatment in [*joint.treatments, *([CONTRAST] if joint.has_contrast else [])]:
        alone, together = _effects(singles, treatment), _effects(joint, treatment)
        for name, members in sets.items():
            if missing := [str(neuron) for neuron in members if str(neuron) not in alone]:
                raise InputError(f"{missing[0]} of set {name!r} was not searched alone; search all members of the sets")
            total = float(sum(alone[str(neuron)] for neuron in members))
            row = {"set": name, "treatment": treatment, "size": len(members), "joint": together[name]}
            rows.append(row | {"sum_of_singles": total, "synergy": together[name] - total})
    return pd.DataFrame(rows)


# Settings in which two results must agree for their effects to be compared.
_TOGETHER = (
    "model",
    "data",
    "values",
    "treatments",
    "response",
    "convention",
    "intervention",
    "token",
    "probability_floor",
)


def _resolved(names: Names, shape: ModelShape) -> NeuronSet:
    found = resolve_sites(names, shape)
    if not isinstance(found, NeuronSet):
        raise InputError("one set is needed here, not a mapping of sets; pass names or a NeuronSet")
    return found


def _extent(members: NeuronSet) -> str:
    """First and last neuron, which tell the sets of a bisection apart."""
    groups = members.groups()
    (first, low), (last, high) = groups[0], groups[-1]
    start, end = f"L{first[0]}.{first[1]}.{low[0]}", f"L{last[0]}.{last[1]}.{high[-1]}"
    return start if len(members) == 1 else f"{start} to {end}"


def _effects(result: Result, treatment: str | None) -> dict[str, float]:
    """Mean effect by site."""
    chosen = chosen_treatment(result, treatment)
    table = result.contrast() if chosen == CONTRAST else _of(result.frame(), "treatment", chosen)
    return dict(zip(table["site"].tolist(), table["nie"].tolist(), strict=True))


def _of(table: pd.DataFrame, column: str, value: str) -> pd.DataFrame:
    return table[table[column] == value]


def _score(effect: float, order: Order) -> float:
    return abs(effect) if order == "absolute" else effect if order == "signed" else -effect


def _combined(parts: Sequence[_Part]) -> Result:
    """One result of sets that were searched one after another in the same way."""
    results = list({id(result): result for _, result, _ in parts}.values())
    first = results[0]
    members = {id(result): result.sets() for result in results}
    sets = {name: members[id(result)][there] for name, result, there in parts}

    def columns(tables: Mapping[int, pd.DataFrame]) -> dict[str, np.ndarray]:
        rows = [_of(tables[id(result)], "site", there) for _, result, there in parts]
        table = pd.concat(rows, ignore_index=True)
        return {name: table[name].to_numpy() for name in table.columns if name not in SITE_COLUMNS}

    tables = {
        treatment: columns({id(r): _of(r.frame(), "treatment", treatment) for r in results})
        for treatment in first.treatments
    }
    contrast = columns({id(r): r.contrast() for r in results}) if first.has_contrast else None
    manifest = {key: value for key, value in first.manifest.items() if key not in ("result", "files")}
    manifest["settings"] = {**manifest["settings"], "sites": sites_digest(sets)}
    totals = {name: sum(r.manifest["run"][name] for r in results) for name in ("patched_runs", "seconds")}
    manifest["run"] = {**manifest["run"], **totals}
    return Result.from_columns(sets, tables, contrast, manifest, first.manifest["result"]["ci"])
