"""How well one result agrees with another that is taken as the truth, beside what the truth's own noise allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pyneuro.errors import InputError
from pyneuro.results.diagnostics import counted
from pyneuro.results.reliability import ALL, HALVES, TOP_PERCENT, agreement
from pyneuro.results.result import CONTRAST, Result
from pyneuro.results.table import SITE_COLUMNS
from pyneuro.sites import MODULES

CEILING = "ceiling_"
RECALLS = tuple(f"recall_{kind}_{percent}" for kind in ("absolute", "signed") for percent in TOP_PERCENT)
SHARED = ("pearson", "spearman", *RECALLS)
COSTS = ("method", "samples", "seconds", "patched_runs", "forward_equivalents")

# Settings that make effects of one kind, and those that may differ where it is said.
_KIND = ("model.digest", "response", "convention", "intervention", "token")
_CIRCUMSTANCES = {
    "data.digest": "the samples",
    "values.digest": "the replacement values",
    "probability_floor": "the probability floor",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Agreement of a result with a truth. Made by ``compare``.

    Attributes
    ----------
    table : DataFrame
        One row a treatment and module and one over all modules (``module`` is "all"; of sets that one alone), the
        contrast last, as treatment "contrast". ``rows`` counts the neurons compared; ``pearson`` and ``spearman`` are
        correlations; ``l2_error`` is ‖result − truth‖ / ‖truth‖; ``recall_absolute_<p>`` and ``recall_signed_<p>`` are
        the share of the truth's p per cent of neurons with the largest magnitude, and with the largest value, that are
        among the result's, ties by expectation. ``ceiling_<name>`` is the same between two halves of the truth's
        samples, missing where it has no halves of the column compared. nan where there is too little to compare.
    cost : DataFrame
        Rows "result" and "truth": ``method``, ``samples``, ``seconds``, ``patched_runs``, ``forward_equivalents`` (of a
        sample), from the manifests; missing where they do not say.
    warnings : tuple of str
        What else differs between the two.
    by : str
        The column compared.
    """

    table: pd.DataFrame
    cost: pd.DataFrame
    warnings: tuple[str, ...]
    by: str

    def text(self) -> str:
        """The comparison for a terminal."""
        cost = self.cost.rename_axis("side").reset_index()
        parts = [_text(cost), *(f"! {line}" for line in self.warnings)]
        for treatment, group in self.table.groupby("treatment", sort=False):
            rows = group.drop(columns="treatment")
            plain = [name for name in rows.columns if not name.startswith(CEILING)]
            parts.append(f"{treatment}: {self.by} against the truth\n{_text(rows[plain])}")
            halves = rows[["module", *(CEILING + name for name in SHARED)]]
            if halves.iloc[:, 1:].notna().any(axis=None):
                bare = halves.rename(columns=lambda name: name.removeprefix(CEILING))
                parts.append(
                    f"{treatment}: noise ceiling, one half of the truth's samples against the other\n{_text(bare)}"
                )
        return "\n\n".join(parts) + "\n"


def compare(result: Result, truth: Result, *, by: str = "nie") -> Comparison:
    """Compare a result, such as a screen's, with one that is taken as the truth.

    Parameters
    ----------
    result, truth : Result
        Of the same neurons or sets, treatments, model, response, convention, intervention and token.
    by : str
        A column that both have, such as "nie", "log_nie" or "diff". Rows where either lacks a value are left out.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        They are not of the same thing, and the message names what differs; or there is no such column, or no value in
        it.
    """
    _check(result, truth)
    rows: list[dict[str, Any]] = []
    for treatment in _treatments(result, truth):
        ceiling = _ceiling(truth, treatment, by)
        for module, found, wanted in _by_module(_joined(result, truth, treatment, by)):
            agreed = agreement(found, wanted)
            rows.append(
                {"treatment": treatment, "module": module, "rows": len(found)}
                | {name: agreed[name] for name in ("pearson", "spearman")}
                | {"l2_error": _relative(found - wanted, wanted)}
                | {name: agreed[name] for name in RECALLS}
                | {CEILING + name: ceiling.get(module, {}).get(name, np.nan) for name in SHARED}
            )
    cost = pd.DataFrame([_cost(result), _cost(truth)], index=["result", "truth"], columns=list(COSTS))
    return Comparison(pd.DataFrame(rows), cost, tuple(_warnings(result, truth)), by)


def _check(result: Result, truth: Result) -> None:
    """Raise InputError naming every way in which the two are not of the same thing."""
    differing = [
        f"{name}: {ours!r} and {theirs!r}"
        for name, ours, theirs in [
            ("kind", result.kind, truth.kind),
            ("shape", str(result.shape), str(truth.shape)),
            ("treatments", result.treatments, truth.treatments),
            *((name, _setting(result, name), _setting(truth, name)) for name in _KIND),
        ]
        if ours != theirs
    ]
    if not differing and (sites := _differing_sites(result, truth)):
        differing.append(sites)
    if differing:
        raise InputError(
            f"the results are not of the same effects: {'; '.join(differing)} (result and truth); compare searches "
            "that ask for the same"
        )


def _differing_sites(result: Result, truth: Result) -> str | None:
    ours, theirs = (set(r.frame()["site"]) for r in (result, truth))
    if ours != theirs:
        example = min(ours ^ theirs)
        return (
            f"sites: {counted(len(ours), 'site')} and {counted(len(theirs), 'site')}, {example!r} in the "
            f"{'result' if example in ours else 'truth'} alone"
        )
    if result.kind == "sets":
        theirs_by_name = truth.sets()
        for name, members in result.sets().items():
            if members != theirs_by_name[name]:
                return f"sites: set {name!r} has other members"
    return None


def _setting(result: Result, name: str) -> Any:
    """An entry of the manifest's settings, by its dotted name; None where there is none."""
    found: Any = result.manifest.get("settings")
    for key in name.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _warnings(result: Result, truth: Result) -> Iterator[str]:
    for setting, what in _CIRCUMSTANCES.items():
        if _setting(result, setting) != _setting(truth, setting):
            yield f"{what} of the two differ: part of the disagreement is theirs"


def _treatments(result: Result, truth: Result) -> list[str]:
    both = result.has_contrast and truth.has_contrast
    return [*result.treatments, *([CONTRAST] if both else [])]


def _rows(result: Result, treatment: str) -> pd.DataFrame:
    if treatment == CONTRAST:
        return result.contrast()
    table = result.frame()
    return table[table["treatment"] == treatment]


def _joined(result: Result, truth: Result, treatment: str, by: str) -> pd.DataFrame:
    """Module, and values "found" and "wanted", of the sites where both have one."""
    ours, theirs = _rows(result, treatment), _rows(truth, treatment)
    for side, table in (("result", ours), ("truth", theirs)):
        if by in SITE_COLUMNS or by not in table.columns:
            known = [name for name in theirs.columns if name in ours.columns and name not in SITE_COLUMNS]
            raise InputError(f"by = {by!r} is no column of the {side} to compare; choose one of {', '.join(known)}")
    wanted = theirs.set_index("site")[["module", by]].rename(columns={by: "wanted"})
    joined = wanted.assign(found=ours.set_index("site")[by]).dropna(subset=["found", "wanted"])
    if not len(joined):
        raise InputError(f"by = {by!r} has no values under {treatment!r} that both sides know; compare another column")
    return joined


def _by_module(joined: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(module or "all", found [N], wanted [N])."""
    groups = [(module, joined[(joined["module"] == module).fillna(False)]) for module in MODULES]
    for module, group in [*groups, (ALL, joined)]:
        if len(group):
            yield module, group["found"].to_numpy(dtype=float), group["wanted"].to_numpy(dtype=float)


def _ceiling(truth: Result, treatment: str, by: str) -> dict[Any, dict[Any, float]]:
    """Agreement of the truth's halves by module; empty where it has none of this column."""
    if by != "nie" or not set(HALVES) <= set(_rows(truth, treatment).columns):
        return {}
    return truth.reliability(treatment).set_index("module").to_dict("index")


def _relative(error: np.ndarray, wanted: np.ndarray) -> float:
    size = np.linalg.norm(wanted)
    return float(np.linalg.norm(error) / size) if size > 0 else np.nan


def _cost(result: Result) -> dict[str, Any]:
    run = result.manifest.get("run", {})
    ids = result.manifest.get("ids")
    known = {"method": _setting(result, "method"), "samples": None if ids is None else len(ids)}
    return known | {name: run.get(name) for name in COSTS[2:]}


def _text(table: pd.DataFrame) -> str:
    """Columns of equal width under short names, recalls in per cent."""
    texts = {_short(name): [_cell(name, value) for value in table[name]] for name in table.columns}
    return pd.DataFrame(texts).to_string(index=False)


def _short(name: str) -> str:
    kind, _, percent = name.removeprefix("recall_").partition("_")
    if name in RECALLS:
        return f"|top {percent}%|" if kind == "absolute" else f"top {percent}%"
    return {"forward_equivalents": "forwards/sample"}.get(name, name.replace("_", " "))


def _cell(name: str, value: Any) -> str:
    if pd.isna(value):
        return "-"
    if name in RECALLS:
        return f"{value:.0%}"
    if isinstance(value, str):
        return value
    if name in ("rows", "samples", "patched_runs"):
        return f"{int(value):,}"
    return f"{value:.3g}" if name in ("seconds", "forward_equivalents", "l2_error") else f"{value:.3f}"
