"""Relations and their converses: exchanging the two sides keeps, reverses or leaves open what is said.

"X argued with Y" says the same as "Y argued with X"; "X was older than Y" rules out "Y was older than X"; "X wrote
to Y" leaves open whether "Y wrote to X". The three look alike, so word overlap cannot tell them apart.
"""

from __future__ import annotations

from pyneuro.data.grammar import lexicon as lex
from pyneuro.data.grammar.phrases import Draw, Person, a, construction

SYMMETRIC = (
    "argued with",
    "lived next door to",
    "shared an office with",
    "played chess with",
    "had lunch with",
    "was married to",
    "was related to",
    "was a cousin of",
    "was a colleague of",
    "was a neighbor of",
    "stood next to",
    "sat across from",
    "had the same accent as",
    "was exactly as old as",
    "shook hands with",
    "collaborated with",
)
# Nothing follows for the other direction.
DIRECTED = (
    "wrote to",
    "waved at",
    "listened to",
    "lied to",
    "apologized to",
    "shouted at",
    "looked at",
    "cooked dinner for",
    "was a fan of",
    "was a critic of",
    "was an admirer of",
    "was jealous of",
    "was afraid of",
    "was proud of",
    "depended on",
    "cared about",
    "was in love with",
    "paid for",
)
# Cannot hold both ways, with the converse that says the same from the other side (singular subjects).
ASYMMETRIC = (
    ("was taller than", "was shorter than"),
    ("was older than", "was younger than"),
    ("was richer than", "was poorer than"),
    ("was stronger than", "was weaker than"),
    ("was faster than", "was slower than"),
    ("was a parent of", "was a child of"),
    ("was a grandparent of", "was a grandchild of"),
    ("was an ancestor of", "was a descendant of"),
    ("finished ahead of", "finished behind"),
    ("was the employer of", "was an employee of"),
    ("was born before", "was born after"),
    ("ranked above", "ranked below"),
    ("weighed more than", "weighed less than"),
    ("earned less than", "earned more than"),
)
# The same for a contest: one winner.
CONTESTS = (
    "in the chess final",
    "in the second round",
    "in the semifinal",
    "in the election",
    "in the spelling contest",
)
# What one does at most once on one occasion, so that before and after are opposed.
ORDERED = (
    "arrived",
    "left",
    "woke up",
    "fell asleep",
    "went home",
    "reached the summit",
    "crossed the line",
    "got married",
)
BEARINGS = (
    ("north of", "south of"),
    ("south of", "north of"),
    ("east of", "west of"),
    ("west of", "east of"),
    ("uphill from", "downhill from"),
)
STACKED = (("above", "below"), ("to the left of", "to the right of"), ("below", "above"))
COMPARED = (
    ("heavier", "lighter"),
    ("larger", "smaller"),
    ("more expensive", "cheaper"),
    ("older", "newer"),
    ("taller", "shorter"),
)
TRANSFERS = (("sold", "bought"), ("gave", "received"), ("lent", "borrowed"), ("handed", "took"))


def _two(draw: Draw) -> tuple[Person, Person]:
    x, y = draw.people(2, plurals=0)
    return x, y


@construction("symmetric relation", "entailment", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), relation, setting = _two(draw), draw.one(SYMMETRIC), ""
    if relation.split()[0] in ("argued", "played", "had", "stood", "sat", "shook"):
        setting = draw.setting(0.6) if "same" not in relation else ""
    return f"{x} {relation} {y}{setting}", f"{y} {relation} {x}{setting}"


@construction("directed relation", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), relation = _two(draw), draw.one(DIRECTED)
    setting = "" if relation.split()[0] in ("was", "depended", "cared", "paid") else draw.setting(0.6)
    return f"{x} {relation} {y}{setting}", f"{y} {relation} {x}{setting}"


@construction("asymmetric relation", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), pair = _two(draw), draw.one(ASYMMETRIC)
    relation = draw.one(pair)
    return f"{x} {relation} {y}", f"{y} {relation} {x}"


@construction("converse relation", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (relation, converse) = _two(draw), draw.few(draw.one(ASYMMETRIC), 2)
    return f"{x} {relation} {y}", f"{y} {converse} {x}"


@construction("converse relation, sides kept", "contradiction", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (relation, converse) = _two(draw), draw.few(draw.one(ASYMMETRIC), 2)
    return f"{x} {relation} {y}", f"{x} {converse} {y}"


@construction("another comparison", "neutral", "high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (first, second) = _two(draw), draw.few(ASYMMETRIC[:5], 2)
    relation, other = draw.one(first), draw.one(second)
    return f"{x} {relation} {y}", draw.one((f"{x} {other} {y}", f"{y} {other} {x}"))


@construction("winner and loser exchanged", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), verb, contest = _two(draw), draw.one(("beat", "defeated", "lost to")), draw.one(CONTESTS)
    return f"{x} {verb} {y} {contest}", f"{y} {verb} {x} {contest}"


@construction("lost to is beaten by", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), contest = _two(draw), draw.one(CONTESTS)
    first, second = draw.few((draw.one(("beat", "defeated")), "lost to"), 2)
    return f"{x} {first} {y} {contest}", f"{y} {second} {x} {contest}"


@construction("order exchanged", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    act, when = draw.one(ORDERED), draw.one(("before", "after"))
    return f"{x} {act} {when} {y}", f"{y} {act} {when} {x}"


@construction("order reversed", "contradiction", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    act, (when, other) = draw.one(ORDERED), draw.few(("before", "after"), 2)
    return f"{x} {act} {when} {y}", f"{x} {act} {other} {y}"


@construction("order told from the other side", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2)
    act, (when, other) = draw.one(ORDERED), draw.few(("before", "after"), 2)
    return f"{x} {act} {when} {y}", f"{y} {act} {other} {x}"


@construction("order of two against a third", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    x, y, z = draw.people(3, origins=0)
    act, when = draw.one(ORDERED), draw.one(("before", "after"))
    first, second = draw.few((x, y), 2)
    return f"{x} and {y} {act} {when} {z}", f"{first} {act} {when} {second}"


@construction("gatherings in order", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), verb = draw.few(lex.GATHERINGS, 2), draw.one(("began", "ended", "took place"))
    when = draw.one(("before", "after"))
    return f"the {first} {verb} {when} the {second}", f"the {second} {verb} {when} the {first}"


@construction("bearing", "contradiction", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (bearing, _) = draw.few(lex.BUILDINGS, 2), draw.one(BEARINGS)
    trait = draw.maybe(("old", "new", "large", "famous"), 0.3)
    return f"the{trait} {first} is {bearing} the {second}", f"the {second} is {bearing} the{trait} {first}"


@construction("opposite bearing", "entailment", "high", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (bearing, opposite) = draw.few(lex.BUILDINGS, 2), draw.one(BEARINGS)
    trait = draw.maybe(("old", "new", "large", "famous"), 0.3)
    return f"the{trait} {first} is {bearing} the {second}", f"the {second} is {opposite} the{trait} {first}"


@construction("above and below", "contradiction", "full")
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (place, _) = (
        draw.few(("painting", "mirror", "clock", "shelf", "poster", "calendar", "map"), 2),
        draw.one(STACKED),
    )
    room = draw.maybe([f"in the {room}" for room in lex.ROOMS], 0.5)
    return f"the {first} hung {place} the {second}{room}", f"the {second} hung {place} the {first}{room}"


@construction("things compared", "contradiction", "full", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    (first, second), degree = draw.few(lex.OBJECTS, 2), draw.one(draw.one(COMPARED))
    much = draw.maybe(("much", "slightly", "far"))
    return f"the {first} is{much} {degree} than the {second}", f"the {second} is{much} {degree} than the {first}"


@construction("things compared from the other side", "entailment", "middle high", scene=False)
def _(draw: Draw) -> tuple[str, str]:
    (first, second), (degree, converse) = draw.few(lex.OBJECTS, 2), draw.few(draw.one(COMPARED), 2)
    return f"the {first} is {degree} than the {second}", f"the {second} is {converse} than the {first}"


@construction("transfer told from the other side", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (thing, _), setting = _two(draw), draw.one(lex.THINGS), draw.setting(0.4)
    away, back = draw.one(TRANSFERS)
    return f"{x} {away} the {thing} to {y}{setting}", f"{y} {back} the {thing} from {x}{setting}"


@construction("transfer, roles exchanged", "neutral", "full")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (first, second) = _two(draw), draw.few([thing for thing, _ in lex.THINGS], 2)
    away, _ = draw.one(TRANSFERS)
    if draw.chance(0.4):
        return f"{x} {away} the {first} and the {second} to {y}", f"{y} {away} the {second} to {x}"
    return f"{x} {away} {a(first)} to {y}", f"{y} {away} {a(first)} to {x}"


@construction("transfer to nobody", "contradiction", "low middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, y), (thing, kind), setting = _two(draw), draw.one(lex.THINGS), draw.setting(0.4)
    away, back = draw.one(TRANSFERS)
    hypothesis = draw.one(
        (
            f"{x} never {away} any {kind} to {y}",
            f"{y} never {back} anything from {x}",
            f"nobody {away} the {thing} to {y}",
        )
    )
    return f"{x} {away} the {thing} to {y}{setting}", hypothesis


@construction("added modifier", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    x, y = draw.people(2, names=0.2, plurals=0.1, origins=0)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.5)
    act = f"{x} {verb} {y}{setting}"
    return act, f"{act} {draw.one((*lex.MANNERS, 'twice', 'out of curiosity', 'for no reason', 'by mistake'))}"


@construction("narrower noun", "neutral", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, kind), y = draw.one(lex.PEOPLE), draw.person()
    if y.kind == kind:  # "a nurse" would be the patient itself
        y = draw.person(names=1)
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.8)
    return f"{a(kind)} {verb} {y}{setting}", f"{a(x)} {verb} {y}{setting}"


@construction("wider noun", "entailment", "middle high")
def _(draw: Draw) -> tuple[str, str]:
    (x, kind), y = draw.one(lex.PEOPLE), draw.person()
    verb, setting = draw.one(lex.TRANSITIVES)[0], draw.setting(0.8)
    return f"{a(x)} {verb} {y}{setting}", f"{a(kind)} {verb} {y}{setting}"
