"""Who did what to whom: the same words in another order, entailed or left open by the syntax."""

from __future__ import annotations

from pyneuro.data.grammar import lexicon as lex
from pyneuro.data.grammar.phrases import Draw, Person, construction


def _described(draw: Draw) -> tuple[Person, Person]:
    """Two people, the first without a proper name, so that a relative clause can follow."""
    x, y = draw.people(2, names=0)
    return x, draw.person(names=1) if draw.chance(0.35) else y


@construction("role swap", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.6)
    return f"{x} {verb} {y}{setting}", f"{y} {verb} {x}{setting}"


@construction("passive to active", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.6)
    return f"{y} {y.was} {verb} by {x}{setting}", f"{x} {verb} {y}{setting if draw.chance(0.6) else ''}"


@construction("passive to active, roles kept in order", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.6)
    return f"{y} {y.was} {verb} by {x}{setting}", f"{y} {verb} {x}{setting if draw.chance(0.6) else ''}"


@construction("active to passive", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.7)
    return f"{x} {verb} {y}{setting}", f"{y} {y.was} {verb} by {x}{setting}"


@construction("active to passive, roles kept in order", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.7)
    return f"{x} {verb} {y}{setting}", f"{x} {x.was} {verb} by {y}{setting}"


@construction("cleft", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting()
    return f"it was {x} who {verb} {y}{setting}", f"{x} {verb} {y}{setting}"


@construction("object cleft", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2, origins=0)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting()
    return f"it was {x} that {y} {verb}{setting}", f"{x} {verb} {y}{setting}"


@construction("subject relative", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = _described(draw)
    verb, act = draw.one(lex.TRANSITIVES)[0], draw.one(lex.INTRANSITIVES)
    setting = draw.setting(0.4)
    return f"{x} who {verb} {y} {act}{setting}", draw.one((f"{x} {verb} {y}", f"{x} {act}{setting}"))


@construction("noun inside a relative", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = _described(draw)
    verb, act = draw.one(lex.TRANSITIVES)[0], draw.one(lex.INTRANSITIVES)
    setting = draw.setting(0.4)
    return f"{x} who {verb} {y} {act}{setting}", draw.one((f"{y} {act}{setting}", f"{y} {verb} {x}"))


@construction("object relative", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = _described(draw)
    verb, act = draw.one(lex.TRANSITIVES)[0], draw.one(lex.INTRANSITIVES)
    return f"{x} that {y} {verb} {act}{draw.setting(0.4)}", draw.one((f"{y} {verb} {x}", f"{x} {act}"))


@construction("noun before a prepositional phrase", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2, names=0, plurals=0.25, origins=0)
    act, manner = draw.one(lex.INTRANSITIVES), draw.maybe(lex.MANNERS)
    premise = f"{x} {draw.one(lex.NEAR)} {y} {act}{manner}{draw.setting(0.3)}"
    return premise, f"{x} {act}{manner if draw.chance(0.5) else ''}"


@construction("noun inside a prepositional phrase", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2, names=0, plurals=0.25, origins=0)
    act, manner = draw.one(lex.INTRANSITIVES), draw.maybe(lex.MANNERS)
    return f"{x} {draw.one(lex.NEAR)} {y} {act}{manner}{draw.setting(0.3)}", f"{y} {act}{manner}"


@construction("possessor", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, relation = draw.person(names=0), draw.one(("brother", "daughter", "neighbor", "boss", "rival", "cousin"))
    act = f"{draw.one(lex.INTRANSITIVES)}{draw.setting(0.6)}"
    return f"the {relation} of {x} {act}", f"{x} {act}"


@construction("conjoined subject", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.6)
    return f"{x} and {y} {act}{setting}", f"{draw.one((x, y))} {act}{setting}"


@construction("disjoined subject", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.6)
    either = "either " if draw.chance(0.5) else ""
    return f"{either}{x} or {y} {act}{setting}", f"{draw.one((x, y))} {act}{setting}"


@construction("conjoined predicate", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y, z = draw.people(3)
    (first, _), (second, _) = draw.few(lex.TRANSITIVES, 2)
    setting = draw.setting(0.4)
    return f"{x} {first} {y} and {second} {z}{setting}", draw.one((f"{x} {second} {z}{setting}", f"{x} {first} {y}"))


@construction("objects of conjoined predicates exchanged", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y, z = draw.people(3)
    (first, _), (second, _) = draw.few(lex.TRANSITIVES, 2)
    return f"{x} {first} {y} and {second} {z}{draw.setting(0.4)}", draw.one((f"{x} {second} {y}", f"{x} {first} {z}"))


@construction("unnamed agent", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.4)
    hypothesis = draw.one((f"someone {verb} {y}", f"{y} {y.was} {verb}", f"{y} {y.was} {verb} by somebody{setting}"))
    return f"{x} {verb} {y}{setting}", hypothesis


@construction("unnamed agent, roles exchanged", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.4)
    hypothesis = draw.one((f"someone {verb} {x}", f"{x} {x.was} {verb}", f"{y} {verb} somebody{setting}"))
    return f"{x} {verb} {y}{setting}", hypothesis


@construction("no agent", "contradiction", "low middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, base = draw.one(lex.TRANSITIVES)
    setting = draw.setting(0.4)
    hypothesis = draw.one(
        (
            f"nobody {verb} {y}{setting}",
            f"{x} did not {base} {y}{setting}",
            f"{x} did not {base} anyone{setting}",
            f"{y} {y.was} not {verb} by anyone{setting}",
        )
    )
    return f"{x} {verb} {y}{setting}", hypothesis


@construction("verb synonym", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, synonym = draw.one(lex.VERB_SYNONYMS)
    setting = draw.setting(0.7)
    return f"{x} {verb} {y}{setting}", f"{x} {synonym} {y}{setting}"


@construction("verb synonym, roles exchanged", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    verb, synonym = draw.one(lex.VERB_SYNONYMS)
    setting = draw.setting(0.7)
    return f"{x} {verb} {y}{setting}", f"{y} {synonym} {x}{setting}"
