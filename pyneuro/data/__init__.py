"""NLI pairs: reading, word overlap, treatment sets and split roles."""

from pyneuro.data.overlap import OVERLAP_SCORERS, overlap, overlap_scores, register_scorer
from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.data.read import read_pairs

__all__ = ["LABELS", "OVERLAP_SCORERS", "Pair", "Pairs", "overlap", "overlap_scores", "read_pairs", "register_scorer"]
