"""Searching for neurons: ``search`` and what it is made of."""

from pyneuro.search.search import search

__all__ = ["search"]
