"""Other words for the premise, or against it: pairs of little or no overlap, under every label.

Hypotheses speak of "that musician", "a musician" or "every musician" where the premise has "the cellist": the label
follows because every cellist is a musician, and "that" can only point back to the one that the premise is about.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyneuro.data.grammar import lexicon as lex
from pyneuro.data.grammar import scenes
from pyneuro.data.grammar.phrases import Draw, Person, a, construction, plural

ANY_LEVEL = "none low middle"
_NEGATIVE = frozenset(("not", "no", "nothing", "failed", "without", "never", "nobody", "nowhere"))
# Events whose retelling is of something done, so that how and when can be added to it.
_DEEDS = tuple(
    event
    for event in scenes.EVENTS
    if _NEGATIVE.isdisjoint(event.entailed.split()) and event.entailed.split()[0] not in ("was", "had", "could", "owed")
)


def _someone(draw: Draw, person: Person) -> str:
    """Subject for what is true of the person: it is then true of somebody of that kind."""
    if person.kind is None:
        return draw.one((person.text, person.text, "someone", "somebody"))
    kind = person.kind
    return draw.one((person.text, a(kind), a(kind), f"that {kind}", f"some {kind}", "someone"))


def _the_same(draw: Draw, person: Person, predicate: str) -> str:
    """Subject for what is false of the person: it cannot be true of everyone of that kind either.

    No "every" before a negation, which would also read as "not every".
    """
    if person.kind is None:
        return draw.one((person.text, person.text, "that person"))
    same = (person.text, f"that {person.kind}", f"this {person.kind}")
    return draw.one((*same, f"every {person.kind}") if _NEGATIVE.isdisjoint(predicate.split()) else same)


def _undecided(draw: Draw, person: Person) -> str:
    """Subject for what is neither true nor false of the person."""
    if person.kind is None:
        return draw.one((person.text, person.text, "that person"))
    kind = person.kind
    return draw.one((person.text, a(kind), f"that {kind}", f"this {kind}", f"every {kind}"))


def _told(draw: Draw, events: tuple[scenes.Event, ...], asides: tuple[str, ...]) -> tuple[Person, scenes.Event, str]:
    """Somebody, an event or trait, and a premise that tells it, at times beside another."""
    person, event = draw.person(names=0.25, origins=0.2), draw.one(events)
    told = [event.told, draw.one(asides)] if draw.chance(0.25) else [event.told]
    return person, event, f"{person} {' and '.join(draw.few(told, len(told)))}"


def _event(draw: Draw) -> tuple[Person, scenes.Event, str]:
    return _told(draw, scenes.EVENTS, scenes.PAST_ASIDES)


def _trait(draw: Draw) -> tuple[Person, scenes.Event, str]:
    return _told(draw, scenes.TRAITS, scenes.PRESENT_ASIDES)


@construction("event retold", "entailment", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, event, premise = _event(draw)
    return premise, f"{_someone(draw, person)} {event.entailed}"


@construction("event excluded", "contradiction", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, event, premise = _event(draw)
    return premise, f"{_the_same(draw, person, event.excluded)} {event.excluded}"


@construction("event left open", "neutral", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, event, premise = _event(draw)
    return premise, f"{_undecided(draw, person)} {event.open}"


@construction("event with an addition", "neutral", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, event, premise = _told(draw, _DEEDS, scenes.PAST_ASIDES)
    return premise, f"{_someone(draw, person)} {event.entailed} {draw.one(scenes.EVENT_ADDITIONS)}"


@construction("trait retold", "entailment", ANY_LEVEL, scene=False)
def _(draw: Draw) -> tuple[str, str]:
    person, trait, premise = _trait(draw)
    return premise, f"{_someone(draw, person)} {trait.entailed}"


@construction("trait excluded", "contradiction", ANY_LEVEL, scene=False)
def _(draw: Draw) -> tuple[str, str]:
    person, trait, premise = _trait(draw)
    return premise, f"{_the_same(draw, person, trait.excluded)} {trait.excluded}"


@construction("trait left open", "neutral", ANY_LEVEL, scene=False)
def _(draw: Draw) -> tuple[str, str]:
    person, trait, premise = _trait(draw)
    return premise, f"{_undecided(draw, person)} {trait.open}"


@dataclass(frozen=True, slots=True)
class _StateTold:
    """``<subject> <verb> <state.told> <time>``, with another name of the subject and two of the time."""

    frame: scenes.StateFrame
    state: scenes.State
    subject: str
    other: str
    verb: str
    time: str
    same_time: str
    all_time: str

    @property
    def premise(self) -> str:
        return f"{self.subject} {self.verb} {self.state.told} {self.time}"


def _state(draw: Draw) -> _StateTold:
    frame = draw.one(scenes.STATE_FRAMES)
    noun, other = draw.one(frame.subjects or lex.PEOPLE)
    trait = draw.maybe(frame.traits, 0.3) if frame.traits else ""
    times = draw.one(scenes.TIMES[: frame.times])
    verb = draw.one(("was", "stayed", "remained"))
    return _StateTold(frame, draw.one(frame.states), f"the{trait} {noun}", other, verb, *times)


def _renamed(draw: Draw, told: _StateTold) -> str:
    return draw.one(
        (told.subject, f"that {told.other}", f"that {told.other}", f"this {told.other}", f"the {told.other}")
    )


@construction("state renamed", "entailment", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    told = _state(draw)
    time = f" {told.same_time}" if draw.chance(0.5) else ""
    return told.premise, f"{_renamed(draw, told)} was {told.state.same}{time}"


@construction("state not opposite", "entailment", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    told = _state(draw)
    return told.premise, f"{_renamed(draw, told)} was not {told.state.opposite} {told.same_time}"


@construction("state opposed", "contradiction", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    told = _state(draw)
    verb = "was" if told.verb == "stayed" else draw.one(("was", "stayed"))
    time = draw.one((told.same_time, told.all_time)) if verb == "was" else told.all_time
    return told.premise, f"{_renamed(draw, told)} {verb} {told.state.opposite} {time}"


@construction("state left open", "neutral", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    told = _state(draw)
    return told.premise, f"{_renamed(draw, told)} {draw.one(told.frame.open)}"


def _deed(draw: Draw) -> tuple[Person, str, str, tuple[str, str, str], str]:
    """Somebody, the thing and its kind, (past, base, participle) of what was done in other words, and the premise."""
    person, (thing, kind) = draw.person(names=0.25, origins=0.15), draw.one(lex.THINGS)
    told, past, base, participle = draw.one(lex.ACQUISITIONS)
    thing_told = f"{draw.one(('old ', 'expensive ', 'small ', 'black '))}{thing}" if draw.chance(0.3) else thing
    object_told = a(thing_told) if draw.chance(0.33) else f"the {thing_told}"
    premise = f"{person} {told} {object_told}{draw.setting(0.25)}"
    return person, thing, kind, (past, base, participle), premise


@construction("deed retold", "entailment", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, thing, kind, (past, _, participle), premise = _deed(draw)
    hypothesis = draw.one(
        (
            f"{_someone(draw, person)} {past} {a(kind)}",
            f"{_someone(draw, person)} {past} the {thing}",
            f"{a(kind)} was {participle}",
            f"{a(kind)} was {participle} by {_someone(draw, person)}",
        )
    )
    return premise, hypothesis


@construction("deed denied", "contradiction", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, thing, kind, (past, base, participle), premise = _deed(draw)
    denier = _the_same(draw, person, "not")
    hypothesis = draw.one(
        (
            f"{draw.one(('nobody', 'no one'))} {past} {draw.one((a(kind), f'any {kind}', f'the {thing}'))}",
            f"{denier} never {past} {draw.one((a(kind), f'any {kind}'))}",
            f"{denier} did not {base} any {kind}",
            f"no {plural(kind)} were {participle}",
            f"{denier} {past} nothing",
        )
    )
    return premise, hypothesis


@construction("deed with an addition", "neutral", ANY_LEVEL)
def _(draw: Draw) -> tuple[str, str]:
    person, thing, kind, (past, _, participle), premise = _deed(draw)
    addition = draw.one(scenes.DEED_ADDITIONS)
    hypothesis = draw.one(
        (
            f"{_someone(draw, person)} {past} {a(kind)} {addition}",
            f"{_someone(draw, person)} {past} the {thing} {addition}",
            f"{a(kind)} was {participle} {addition}",
            f"{draw.one(('several', 'two', 'three'))} {plural(kind)} were {participle}",
            f"{_someone(draw, person)} {past} several {plural(kind)}",
        )
    )
    return premise, hypothesis
