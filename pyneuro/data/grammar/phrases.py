"""Noun phrases, sentences, random choice, and the list of constructions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pyneuro.data.grammar import lexicon as lex

T = TypeVar("T")

LEVELS: tuple[str, ...] = ("none", "low", "middle", "high", "full")
"""Overlap 0 | (0, 1/3] | (1/3, .8) | [.8, 1) | 1. Bands join the first two as low and the last two as high."""
LOW_MAX, HIGH_MIN = 1 / 3, 0.8

BAND_OF_LEVEL = {"none": "low", "low": "low", "middle": "middle", "high": "high", "full": "high"}


def level_of(overlap: float) -> str:
    """The overlap level of a whitespace overlap score in 0..1."""
    if overlap in (0.0, 1.0):
        return "none" if overlap == 0.0 else "full"
    if overlap <= LOW_MAX:
        return "low"
    return "middle" if overlap < HIGH_MIN else "high"


def plural(noun: str) -> str:
    """Plural of a regular noun of the lexicon."""
    if noun == "craftsperson":
        return "craftspeople"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def a(noun_phrase: str) -> str:
    """``noun_phrase`` with "a" or "an" before it. By spelling: the lexicon has no silent h and no "yoo" vowel."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"


def sentence(clause: str) -> str:
    """The clause with a capital and a full stop that stands apart.

    Standing apart, as in HANS and treebank text, it does not cling to the last word: whitespace overlap sees the word,
    and BERT's tokenizer makes the same wordpieces of "dog ." and "dog.".
    """
    return f"{clause[0].upper()}{clause[1:]} ."


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, or a group: what to call them, and what they are by definition."""

    text: str
    kind: str | None = None
    plural: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def was(self) -> str:
        return "were" if self.plural else "was"


class Draw:
    """Random choices for one pair. All randomness of a construction goes through it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def one(self, options: Sequence[T]) -> T:
        return options[self._rng.randrange(len(options))]

    def few(self, options: Sequence[T], count: int) -> list[T]:
        """``count`` different elements, in random order."""
        return self._rng.sample(options, count)

    def chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def maybe(self, options: Sequence[str], probability: float = 0.5) -> str:
        """One of the options with a space before it, or nothing."""
        return f" {self.one(options)}" if self.chance(probability) else ""

    def people(self, count: int, *, names: float = 0.35, plurals: float = 0.2, origins: float = 0.1) -> list[Person]:
        """Different people. The keywords are the shares of proper names, of plurals and of "from <city>"."""
        called = self.few(lex.NAMES, count)
        return [
            Person(name) if self.chance(names) else self._described(noun, kind, plurals, origins)
            for name, (noun, kind) in zip(called, self.few(lex.PEOPLE, count), strict=True)
        ]

    def person(self, *, names: float = 0.35, plurals: float = 0.0, origins: float = 0.1) -> Person:
        return self.people(1, names=names, plurals=plurals, origins=origins)[0]

    def _described(self, noun: str, kind: str, plurals: float, origins: float) -> Person:
        many = self.chance(plurals)
        trait = self.maybe(lex.TRAITS, 0.25)
        origin = f" from {self.one(lex.CITIES)}" if self.chance(origins) else ""
        return Person(f"the{trait} {plural(noun) if many else noun}{origin}", kind, many)

    def setting(self, probability: float = 0.5) -> str:
        """A place or time that ends a clause, or nothing."""
        return self.maybe(lex.LOCATIONS + lex.WHENS, probability)


Build = Callable[[Draw], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Construction:
    """A way to make (premise, hypothesis) clauses whose label follows from how they are built.

    ``levels`` are the overlap levels that it can reach. ``clause`` says that the hypothesis is a clause of the premise
    (HANS's constituent heuristic). ``scene`` says that the premise may follow "<scene> and", which must not change the
    label: false where the premise is about the present.
    """

    name: str
    label: str
    levels: tuple[str, ...]
    build: Build
    clause: bool
    scene: bool


CONSTRUCTIONS: list[Construction] = []


def construction(
    name: str, label: str, levels: str, *, clause: bool = False, scene: bool = True
) -> Callable[[Build], Build]:
    """Decorator that adds a construction; ``levels`` are words of :data:`LEVELS`."""

    def add(build: Build) -> Build:
        CONSTRUCTIONS.append(Construction(name, label, tuple(levels.split()), build, clause, scene))
        return build

    return add
