"""What the premise commits to: embedded clauses, negation, modals, conditions, quantifiers, coordination."""

from __future__ import annotations

from pyneuro.data.grammar import lexicon as lex
from pyneuro.data.grammar.phrases import Draw, construction, plural

CAUSES = (
    "the road was flooded",
    "the power failed",
    "the fog was thick",
    "the ferry was late",
    "a pipe burst",
    "the guests were hungry",
    "the mayor insisted",
    "the alarm rang",
)
CONDITIONS = (
    "if the weather improves",
    "if the price falls",
    "if the committee agrees",
    "unless it rains",
    "unless the train is late",
    "if the others agree",
    "if there is enough time",
)
PRODUCTS = ("soup", "salad", "coffee", "tea", "rice", "bread", "cake", "fruit", "cheese", "pasta", "fish", "pizza")
ORDERS = ("ordered", "chose", "brought", "served", "requested")


def fact(draw: Draw, negated: float = 0.2) -> tuple[str, str]:
    """A clause in the past that may or may not hold, and somebody it is not about. ``negated``: share with "not"."""
    x, y, holder = (str(person) for person in draw.people(3, plurals=0))
    negation = " not" if draw.chance(negated) else ""
    building, gathering = draw.one(lex.BUILDINGS), draw.one(lex.GATHERINGS)
    state = f"{draw.one(draw.one(lex.OPPOSITES))}{draw.maybe(lex.WHENS, 0.4)}"
    clauses = (
        f"{x} was{negation} {draw.one(lex.PROGRESSIVES)}",
        f"the {building} was{negation} {state}",
        f"the {gathering} had{negation} {draw.one(('ended', 'begun', 'been canceled'))}",
        f"{x} had{negation} {draw.one(lex.TRANSITIVES)[0]} {y}",
    )
    return clauses[draw.one((0, 0, 0, 1, 1, 2, 3))], holder


@construction("factive verb", "entailment", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, holder = fact(draw)
    return f"{holder} {draw.one(lex.FACTIVES)} that {clause}", clause


@construction("nonfactive verb", "neutral", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, holder = fact(draw)
    return f"{holder} {draw.one(lex.NONFACTIVES)} that {clause}", clause


@construction("embedded question", "neutral", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, holder = fact(draw, negated=0)
    return f"{holder} {draw.one(lex.QUESTIONS)} whether {clause}", clause


@construction("counterfactive verb", "contradiction", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, holder = fact(draw)
    return f"{holder} {draw.one(lex.COUNTERFACTIVES)} that {clause}", clause


@construction("declared false", "contradiction", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, _ = fact(draw, negated=0.1)
    frame = draw.one(
        (
            "it is false that {}",
            "it is not true that {}",
            "the rumor that {} was false",
            "the report that {} was untrue",
            "the story that {} was a lie",
        )
    )
    return frame.format(clause), clause


@construction("reported", "neutral", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, _ = fact(draw)
    frame = draw.one(
        (
            "according to a rumor , {}",
            "there was a rumor that {}",
            "it was not clear whether {}",
            "it was possible that {}",
            "nobody could prove that {}",
        )
    )
    return frame.format(clause), clause


@construction("hedge", "neutral", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, _ = fact(draw)
    return f"{draw.one(lex.HEDGES)} {clause}", clause


@construction("comment", "entailment", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, _ = fact(draw)
    frame = draw.one(
        (
            "luckily {}",
            "sadly {}",
            "it was a shame that {}",
            "it surprised nobody that {}",
            "it was no secret that {}",
            "everyone was amazed that {}",
        )
    )
    return frame.format(clause), clause


@construction("reason or concession", "entailment", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, _ = fact(draw, negated=0)  # "not ... because" would leave open what is denied
    main, cause = draw.few((clause, draw.one(CAUSES)), 2)
    return f"{main} {draw.one(('because', 'although', 'even though'))} {cause}", draw.one((main, cause))


@construction("condition", "neutral", "full", clause=True, scene=False)
def _(draw: Draw) -> tuple[str, str]:
    x, base = draw.person(), draw.one(lex.BASES)
    return f"{x} will {base} {draw.one(CONDITIONS)}", f"{x} will {base}"


@construction("past condition", "neutral", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    clause, holder = fact(draw)
    return f"if {clause} , {holder} must have noticed", clause


@construction("negated future", "contradiction", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    x, base = draw.person(plurals=0.2), draw.one(lex.BASES)
    when = draw.maybe(("this year", "next week", "on Sunday", "in the spring"), 0.6)
    return f"{x} will not {base}{when}", f"{x} will {base}{when}"


@construction("negated future beside a future", "entailment", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(lex.BASES, 2)
    return f"{x} will {first} but will not {second}", draw.one((f"{x} will {first}", f"{x} will not {second}"))


@construction("negations exchanged", "contradiction", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(lex.BASES, 2)
    hypothesis = draw.one((f"{x} will {second}", f"{x} will not {first}", f"{x} will {second} but will not {first}"))
    return f"{x} will {first} but will not {second}", hypothesis


@construction("disjoined future", "neutral", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(lex.BASES, 2)
    return f"{x} will {first} or {second}", f"{x} will {draw.one((first, second))}"


@construction("negation added", "contradiction", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, act, setting = draw.person(plurals=0.2), draw.one(lex.PROGRESSIVES), draw.maybe(lex.WHENS, 0.6)
    return f"{x} {x.was} {act}{setting}", f"{x} {x.was} not {act}{setting}"


@construction("negated state", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    building, adjective = draw.one(lex.BUILDINGS), draw.one(draw.one(lex.OPPOSITES))
    when = f" {draw.one(lex.WHENS)}"
    return f"the {building} was not {adjective}{when}", f"the {building} was {adjective}{when}"


@construction("state of two", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    (b, c), (first, second) = draw.few(lex.BUILDINGS, 2), draw.few([draw.one(pair) for pair in lex.OPPOSITES], 2)
    when = draw.maybe(lex.WHENS)
    return f"the {b} was {first} but the {c} was not {second}{when}", draw.one(
        (f"the {c} was not {second}{when}", f"the {b} was {first}")
    )


@construction("opposite state", "contradiction", "high")
def _(draw: Draw) -> tuple[str, str]:
    building, (first, second) = draw.one(lex.BUILDINGS), draw.few(draw.one(lex.OPPOSITES), 2)
    when, trait = f" {draw.one(lex.WHENS)}", draw.maybe(("old", "new", "large", "famous"))
    return f"the{trait} {building} was {first}{when}", f"the{trait} {building} was {second}{when}"


@construction("not the opposite state", "entailment", "middle")
def _(draw: Draw) -> tuple[str, str]:
    building, (first, second) = draw.one(lex.BUILDINGS), draw.few(draw.one(lex.OPPOSITES), 2)
    when, trait = f" {draw.one(lex.WHENS)}", draw.maybe(("old", "new", "large", "famous"))
    return f"the{trait} {building} was {first}{when}", f"the{trait} {building} was not {second}{when}"


@construction("some but not all", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    group, act, setting = plural(draw.one(lex.PEOPLE)[0]), draw.one(lex.INTRANSITIVES), draw.setting()
    part = draw.one(("some", "many", "most"))
    return (
        f"{part} but not all of the {group} {act}{setting}",
        f"{draw.one((part, 'not all'))} of the {group} {act}{setting}",
    )


@construction("not all", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    group, act, setting = plural(draw.one(lex.PEOPLE)[0]), draw.one(lex.INTRANSITIVES), draw.setting()
    part = draw.one(("", "", "some but ", "many but "))
    return f"{part}not all of the {group} {act}{setting}", f"all of the {group} {act}{setting}"


@construction("all, then none", "contradiction", "high")
def _(draw: Draw) -> tuple[str, str]:
    group, act, setting = plural(draw.one(lex.PEOPLE)[0]), draw.one(lex.INTRANSITIVES), draw.setting()
    first, second = draw.few(("none", draw.one(("all", "some", "most", "half"))), 2)
    return f"{first} of the {group} {act}{setting}", f"{second} of the {group} {act}{setting}"


@construction("fewer than all", "entailment", "high")
def _(draw: Draw) -> tuple[str, str]:
    group, act, setting = plural(draw.one(lex.PEOPLE)[0]), draw.one(lex.INTRANSITIVES), draw.setting()
    first, second = draw.one((("all", "some"), ("all", "most"), ("most", "some"), ("half", "some")))
    return f"{first} of the {group} {act}{setting}", f"{second} of the {group} {act}{setting}"


@construction("at least some", "neutral", "high full")
def _(draw: Draw) -> tuple[str, str]:
    group, act, setting = plural(draw.one(lex.PEOPLE)[0]), draw.one(lex.INTRANSITIVES), draw.setting()
    part = draw.one(("some", "half", "three"))
    hypothesis = f"{draw.one(('all', 'most'))} of the {group} {act}{setting}"
    return f"at least {part} and perhaps all of the {group} {act}{setting}", hypothesis


@construction("counts side by side", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (g, h) = _two_counts(draw)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.4)
    premise = f"exactly {first} {g} and exactly {second} {h} {act}{setting}"
    return premise, f"exactly {draw.one((f'{first} {g}', f'{second} {h}'))} {act}{setting}"


@construction("counts exchanged", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (g, h) = _two_counts(draw)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.4)
    premise = f"exactly {first} {g} and exactly {second} {h} {act}{setting}"
    swapped = (f"{second} {g}", f"{first} {h}", f"{second} {g} and exactly {first} {h}")
    return premise, f"exactly {draw.one(swapped)} {act}{setting}"


@construction("counts disjoined", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (g, _) = _two_counts(draw)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.4)
    premise = f"either exactly {first} or exactly {second} {g} {act}{setting}"
    return premise, f"exactly {draw.one((first, second))} {g} {act}{setting}"


@construction("another count", "contradiction", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (g, _) = _two_counts(draw)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.8)
    return f"exactly {first} {g} {act}{setting}", f"exactly {second} {g} {act}{setting}"


@construction("exact count of a minimum", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (first, _), (g, _) = _two_counts(draw)
    act, setting = draw.one(lex.INTRANSITIVES), draw.setting(0.8)
    return f"at least {first} {g} {act}{setting}", f"exactly {first} {g} {act}{setting}"


def _two_counts(draw: Draw) -> tuple[list[str], list[str]]:
    return draw.few(lex.NUMBERS, 2), [plural(noun) for noun, _ in draw.few(lex.PEOPLE, 2)]


@construction("one of two", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (first, second) = draw.people(2), draw.few(draw.one(lex.CONTRARIES), 2)
    premise = f"{x} {first} {draw.one(('but', 'while', 'and'))} {y} {second}"
    return premise, draw.one((f"{x} {first}", f"{y} {second}"))


@construction("contrary predicates exchanged", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (first, second) = draw.people(2), draw.few(draw.one(lex.CONTRARIES), 2)
    link = draw.one(("but", "while", "and"))
    hypothesis = draw.one((f"{x} {second}", f"{y} {first}", f"{x} {second} {link} {y} {first}"))
    return f"{x} {first} {link} {y} {second}", hypothesis


@construction("contrary predicates disjoined", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (first, second) = draw.people(2), draw.few(draw.one(lex.CONTRARIES), 2)
    return f"either {x} {first} or {y} {second}", draw.one((f"{x} {first}", f"{y} {second}"))


@construction("instead of", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(PRODUCTS, 2)
    verb, link, when = draw.one(ORDERS), draw.one(("instead of", "rather than")), draw.maybe(lex.WHENS, 0.6)
    return f"{x} {verb} {first} {link} {second}{when}", f"{x} {verb} {second} {link} {first}{when}"


@construction("chosen over", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(PRODUCTS, 2)
    verb, link, when = draw.one(ORDERS), draw.one(("instead of", "rather than", "and")), draw.maybe(lex.WHENS, 0.6)
    return f"{x} {verb} {first} {link} {second}{when}", f"{x} {verb} {first}{when}"


@construction("disjoined object", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, (first, second) = draw.person(plurals=0.2), draw.few(PRODUCTS, 2)
    verb, when = draw.one(ORDERS), draw.maybe(lex.WHENS, 0.6)
    return f"{x} {verb} {first} or {second}{when}", f"{x} {verb} {draw.one((first, second))}{when}"


def _two_places(draw: Draw) -> tuple[list[str], list[str]]:
    return draw.few(lex.OBJECTS, 2), draw.few(lex.ROOMS, 2)


@construction("two places", "entailment", "full", clause=True)
def _(draw: Draw) -> tuple[str, str]:
    (o, q), (r, s) = _two_places(draw)
    premise = f"the {o} was in the {r} and the {q} was in the {s}"
    return premise, draw.one((f"the {o} was in the {r}", f"the {q} was in the {s}"))


@construction("places exchanged", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (o, q), (r, s) = _two_places(draw)
    hypothesis = draw.one(
        (f"the {o} was in the {s}", f"the {q} was in the {r}", f"the {q} was in the {r} and the {o} was in the {s}")
    )
    return f"the {o} was in the {r} and the {q} was in the {s}", hypothesis


@construction("places disjoined", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    (o, q), (r, s) = _two_places(draw)
    premise = draw.one((f"the {o} or the {q} was in the {r}", f"the {o} was in the {r} or in the {s}"))
    return premise, f"the {o} was in the {r}"
