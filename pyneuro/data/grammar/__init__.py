"""The grammar behind :func:`pyneuro.data.embedded_pairs`: words, phrases, and the constructions that settle a label.

``lexicon`` and ``scenes`` hold the vocabulary, ``phrases`` builds noun phrases and keeps the list of constructions, and
``roles``, ``scope``, ``converses`` and ``paraphrase`` each add constructions of one family to that list.
"""

from pyneuro.data.grammar import converses, paraphrase, roles, scope
from pyneuro.data.grammar.phrases import CONSTRUCTIONS, LEVELS, Construction, Draw, sentence

__all__ = ["CONSTRUCTIONS", "LEVELS", "Construction", "Draw", "converses", "paraphrase", "roles", "scope", "sentence"]
