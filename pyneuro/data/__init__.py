"""NLI pairs: reading, word overlap, treatment sets and split roles."""

from pyneuro.data.pairs import LABELS, Pair, Pairs

__all__ = ["LABELS", "Pair", "Pairs"]
