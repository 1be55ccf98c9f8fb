"""What a reader of a ranking must know before believing it: warnings computed from the table itself."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
from scipy import stats

from pyneuro.results.result import Result

#: Below this many samples the t interval of a skewed effect is a rough guide only.
FEW_SAMPLES = 30
#: A single sample carrying this share of Σ |effect| makes a mean of its own.
DOMINANT_SHARE = 0.5
#: Share of neurons with an effect of exactly 0 above which the patches themselves are in doubt.
MANY_ZEROS = 0.25
#: What a prediction leaves out, against the effect (root mean squares), above which it tells little.
FAR_FROM_LINEAR = 0.5
_LEADERS = 3
_CHANCE = 0.01


def warnings_of(result: Result, k: int = 10) -> list[str]:
    """Warnings about a result, one sentence each; dominating samples are looked for in each treatment's top ``k``."""
    out = _repeated(result)
    for treatment in result.treatments:
        table = result.top(k=len(result.frame()), treatment=treatment, absolute=True)
        strongest = table.head(k)
        out += _few_samples(table, treatment) + _dominated(strongest, treatment) + _not_linear(strongest, treatment)
        out += _zeros(table, treatment)
    for index, cells in outlier_coordinates(result).items():
        out.append(
            f"coordinate {index} leads in {len(cells)} AO/O cells ({', '.join(cells)}): perhaps an outlier dimension "
            "of the residual stream, where a mean is far from any sample; compare with another replacement value"
        )
    return out


def counted(n: int, noun: str) -> str:
    """``"1 sample"``, ``"2,000 samples"``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def outlier_coordinates(result: Result) -> dict[int, list[str]]:
    """Residual-stream coordinates that lead several layers' AO and O rankings, with the cells they lead.

    BERT-like models have a few LayerNorm dimensions of outsized magnitude (Kovaleva et al. 2021, "BERT Busters"), which
    rank high in AO and O for that reason alone. An index is reported when it is among the three largest |NIE| of more
    (layer, module) cells than independent rankings would make likely (expected number of such indices < 0.01), in at
    least three layers. Empty for a result of sets, or of too few neurons to tell.
    """
    if result.kind != "neurons":
        return {}
    table = result.frame()
    table = table[table["module"].isin(["AO", "O"]) & (table["nie"].abs() > 0)]
    leads: dict[int, set[tuple[int, str]]] = defaultdict(set)
    cells = set()
    for _, cell in table.groupby(["treatment", "layer", "module"]):
        if len(cell) <= 10 * _LEADERS:
            continue
        place = (int(cell["layer"].iloc[0]), str(cell["module"].iloc[0]))
        cells.add(place)
        for index in cell.loc[cell["nie"].abs().nlargest(_LEADERS).index, "neuron"].tolist():
            leads[index].add(place)
    needed = _unlikely_count(len(cells), len(result.treatments), result.shape.hidden)
    return {
        index: [f"L{layer}.{module}" for layer, module in sorted(places)]
        for index, places in sorted(leads.items(), key=lambda item: -len(item[1]))
        if len(places) >= needed and len({layer for layer, _ in places}) >= 3
    }


def _unlikely_count(cells: int, treatments: int, width: int) -> float:
    """Fewest cells an index must lead so that chance would produce less than 0.01 such indices."""
    chance = min(1.0, treatments * _LEADERS / width)
    for count in range(1, cells + 1):
        if width * stats.binom.sf(count - 1, cells, chance) < _CHANCE:
            return count
    return np.inf


def _repeated(result: Result) -> list[str]:
    counts = Counter(result.manifest.get("ids") or [])
    repeated = [str(name) for name, count in counts.items() if count > 1]
    if not repeated:
        return []
    names = ", ".join(repeated[:3]) + (", ..." if len(repeated) > 3 else "")
    return [
        f"{counted(len(repeated), 'sample id')} more than once ({names}): a text that is counted twice makes n too "
        "large and every error too small; search on each once"
    ]


def _few_samples(table: pd.DataFrame, treatment: str) -> list[str]:
    n = int(table["n"].min())
    if n >= FEW_SAMPLES:
        return []
    return [f"{treatment}: only {counted(n, 'sample')}; intervals are rough below {FEW_SAMPLES}"]


def _dominated(strongest: pd.DataFrame, treatment: str) -> list[str]:
    rows = strongest[strongest["largest_share"] > DOMINANT_SHARE]
    if not len(rows) or (strongest["n"] < 3).all():
        return []
    sites = ", ".join(rows["site"].head(3)) + (", ..." if len(rows) > 3 else "")
    return [
        f"{treatment}: a single sample carries more than {DOMINANT_SHARE:.0%} of the effect of {len(rows)} of the top "
        f"{len(strongest)} ({sites}); read log_nie or ratio_of_means beside nie"
    ]


def _not_linear(strongest: pd.DataFrame, treatment: str) -> list[str]:
    if "nonlinearity" not in strongest:
        return []
    rows = strongest[strongest["surprising"] | (strongest["nonlinearity"] > FAR_FROM_LINEAR)]
    if not len(rows):
        return []
    sites = ", ".join(rows["site"].head(3)) + (", ..." if len(rows) > 3 else "")
    return [
        f"{treatment}: the effects of {len(rows)} of the top {len(strongest)} are far from linear ({sites}); their "
        "estimates lean on exact pairs, see nonlinearity and exact_pairs"
    ]


def _zeros(table: pd.DataFrame, treatment: str) -> list[str]:
    share = float((table["nie"] == 0).mean())
    if share <= MANY_ZEROS:
        return []
    return [
        f"{treatment}: {share:.0%} of the effects are exactly 0 and tie; check that replacement values differ from the "
        "activations and that the response can move (flip rarely does)"
    ]
