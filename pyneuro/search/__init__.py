"""Searching for neurons: ``search``, ``top_k``, rankings, sets, controls, and what they are made of."""

from pyneuro.search.controls import (
    BesideControls,
    beside_controls,
    controls_table,
    matched_controls,
    matched_rankings,
    measure_beside_controls,
    with_controls,
)
from pyneuro.search.ranking import Ranking, rank
from pyneuro.search.search import search
from pyneuro.search.sets import Bisection, Greedy, bisect, greedy, halves, synergy, top_k_sets
from pyneuro.search.top_k import TopK, top_k

__all__ = [
    "BesideControls",
    "Bisection",
    "Greedy",
    "Ranking",
    "TopK",
    "beside_controls",
    "bisect",
    "controls_table",
    "greedy",
    "halves",
    "matched_controls",
    "matched_rankings",
    "measure_beside_controls",
    "rank",
    "search",
    "synergy",
    "top_k",
    "top_k_sets",
    "with_controls",
]
