"""Searching for neurons: ``search``, ``top_k`` and what they are made of."""

from pyneuro.search.search import search
from pyneuro.search.top_k import TopK, top_k

__all__ = ["TopK", "search", "top_k"]
