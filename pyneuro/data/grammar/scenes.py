"""Whole phrases of the embedded pairs: events and states with what they entail, exclude and leave open."""

from __future__ import annotations

from dataclasses import dataclass

from pyneuro.data.grammar import lexicon as lex


@dataclass(frozen=True, slots=True)
class Event:
    """Four predicates of one singular subject.

    ``told`` entails ``entailed`` and excludes ``excluded``, and leaves ``open`` open. The others share no word with
    ``told``, as far as English allows, so that a pair can have no overlap at all.
    """

    told: str
    entailed: str
    excluded: str
    open: str


EVENTS = tuple(
    Event(*row)
    for row in (
        ("passed the exam", "succeeded in a test", "failed this test", "studied for three months"),
        ("missed the ferry", "failed to catch a boat", "was on that boat from start to finish", "had packed two bags"),
        ("accepted the job", "agreed to take a position", "turned that position down", "wanted a higher salary"),
        ("devoured the sandwich", "ate some food", "ate nothing", "disliked mustard"),
        ("sipped the lemonade", "drank something", "drank nothing at all", "had been thirsty for hours"),
        ("sprinted down the street", "was running", "stood still all day", "was training for a marathon"),
        ("whispered the secret", "spoke quietly", "said nothing", "had promised to stay silent"),
        ("sold the farm", "gave up ownership of some land", "kept all of that land", "planned to move abroad"),
        (
            "forgot the password",
            "could not remember a secret word",
            "had a perfect memory for codes",
            "worked for a bank",
        ),
        ("won the race", "came in first", "came in last", "trained every day"),
        ("lost the match", "was beaten", "was victorious in that game", "had an injured knee"),
        ("arrived ten minutes late", "was not on time", "came early", "had been stuck in traffic"),
        (
            "slept through the storm",
            "did not wake up in bad weather",
            "was awake during that tempest",
            "dreamed about home",
        ),
        ("sobbed in the kitchen", "shed tears", "did not cry at all", "had received bad news"),
        ("chuckled at the joke", "found something funny", "was not amused", "had heard a similar story years ago"),
        ("mended the fence", "repaired something", "repaired nothing", "used new nails"),
        ("refused the invitation", "turned something down", "agreed to come", "had other plans"),
        (
            "survived the shipwreck",
            "lived through a disaster at sea",
            "drowned in that disaster",
            "clung to a plank for hours",
        ),
        ("donated the coat to charity", "gave away a garment", "kept that garment", "wanted more space at home"),
        ("resigned from the committee", "gave up a position", "never quit", "had quarreled with several members"),
        ("shattered the vase", "broke something", "broke nothing", "was carrying a heavy tray"),
        ("ignored the warning", "paid no attention to an alert", "took that alert seriously", "ended up in a hospital"),
        ("unlocked the gate", "opened a lock", "left that entrance locked", "heard a strange noise"),
        (
            "stayed at home all Friday",
            "did not go anywhere that day",
            "flew to Madrid that afternoon",
            "expected a letter",
        ),
        ("spent every last cent", "had no money left", "kept a large sum", "bought gifts"),
        ("broke the promise", "did not do what was agreed", "kept that vow", "felt guilty for weeks"),
        (
            "canceled the trip to Spain",
            "called off a journey",
            "went on that journey as planned",
            "was afraid of flying",
        ),
        ("carried the crate alone", "moved a box without help", "had help with that box", "injured a shoulder"),
        ("married the plumber in June", "became a spouse", "stayed single that year", "had been engaged twice before"),
        ("switched off the radio", "silenced a device", "left that device on", "wanted to sleep"),
        (
            "opposed the new law",
            "was against a change in legislation",
            "supported this legislation",
            "gave a long speech",
        ),
        ("confessed to the robbery", "admitted guilt", "denied everything", "feared prison"),
        ("abandoned the search", "stopped trying to find something", "never stopped looking", "had found a clue"),
        ("hired two assistants", "employed someone", "employed nobody", "was overworked"),
        ("paid the entire bill", "settled what was owed", "left without paying", "ordered dessert"),
        ("obeyed the order", "did what was commanded", "rebelled against that command", "hated taking risks"),
        ("quit smoking in May", "gave up cigarettes", "still smokes", "was worried about health problems"),
        (
            "memorized the poem",
            "learned some verses by heart",
            "never learned any verses",
            "had a strict teacher",
        ),
        ("arrived in Cairo by plane", "traveled by air", "has never flown", "had visited Egypt twice already"),
        (
            "walked to the office",
            "went somewhere on foot",
            "traveled everywhere by car that day",
            "met a friend on route",
        ),
        ("spilled the soup on the carpet", "made a mess", "kept all floors perfectly clean", "was in a hurry"),
        (
            "bowed to the queen",
            "showed respect to a monarch",
            "never showed respect to any monarch",
            "was very nervous",
        ),
    )
)

# Lasting states, told in the present.
TRAITS = tuple(
    Event(*row)
    for row in (
        ("lives alone", "has no roommates", "shares a home with two friends", "owns a large house"),
        ("is unemployed", "has no job", "works full time", "used to drive trucks"),
        ("has never left Norway", "has always been in one country", "went abroad last year", "enjoys skiing"),
        ("speaks only French", "knows just one language", "understands several languages", "grew up near Paris"),
        ("is an only child", "has no siblings", "has three brothers", "was raised by grandparents"),
        ("is a strict vegetarian", "does not eat beef", "eats steak every Friday", "loves mushrooms"),
        ("cannot swim", "does not know how to swim", "swims every morning", "grew up far from any lake"),
        ("is completely deaf", "hears nothing", "listens to music every day", "writes long letters"),
        ("owns six cats", "has pets", "does not have any pets", "also wants a dog"),
        ("is a millionaire", "has a lot of money", "lives in poverty", "inherited a fortune"),
        ("hates every vegetable", "dislikes carrots", "is fond of carrots", "had a difficult childhood"),
        ("drives a red truck", "has used a vehicle", "does not know how to drive", "lives far from town"),
        ("never drinks alcohol", "avoids wine and beer", "gets drunk every weekend", "goes to many parties"),
        ("is taller than everyone else", "has above average height", "is shorter than most people", "plays basketball"),
        ("has been bald since birth", "does not have any hair", "has long blond curls", "wears a hat in winter"),
        ("is the parent of twins", "has at least two children", "does not have children", "hopes for a bigger family"),
        ("works at night", "has a job", "does not work", "earns very little"),
    )
)


@dataclass(frozen=True, slots=True)
class State:
    """Adjectives of which ``told`` entails ``same`` and excludes ``opposite``."""

    told: str
    same: str
    opposite: str


@dataclass(frozen=True, slots=True)
class StateFrame:
    """Subjects with another name each, the states they can be in, and facts that no state settles."""

    subjects: tuple[tuple[str, str], ...]
    states: tuple[State, ...]
    open: tuple[str, ...]
    traits: tuple[str, ...] = ()  # adjectives that no state or fact bears on
    times: int | None = None  # how many of TIMES suit, None for all


PLACES = StateFrame(
    subjects=(
        ("cabin", "hut"),
        ("shop", "store"),
        ("chapel", "house of worship"),
        ("tavern", "pub"),
        ("cellar", "basement"),
        ("theater", "playhouse"),
        ("corridor", "hallway"),
        ("cottage", "house"),
        ("villa", "house"),
        ("barn", "farm building"),
        ("bakery", "shop"),
        ("museum", "building"),
        ("library", "building"),
        ("hotel", "building"),
    ),
    states=(
        State("chilly", "cold", "warm"),
        State("noisy", "loud", "silent"),
        State("spotless", "clean", "dirty"),
        State("crowded", "full of people", "empty"),
        State("deserted", "empty", "crowded"),
        State("gloomy", "dark", "bright"),
        State("shut", "closed", "open"),
        State("silent", "quiet", "noisy"),
        State("filthy", "dirty", "clean"),
        State("damp", "slightly wet", "completely dry"),
        State("safe", "not dangerous", "dangerous"),
    ),
    open=(
        "needed a new roof",
        "belonged to a rich family",
        "had three entrances",
        "had once been a school",
        "could be seen from a distance",
        "was for sale",
        "had been built by monks",
        "was famous for its windows",
        "had survived an earthquake",
    ),
    traits=("local", "big", "charming"),
)
PERSONS = StateFrame(
    subjects=(),  # any person, renamed by kind
    states=(
        State("furious", "angry", "calm"),
        State("exhausted", "tired", "full of energy"),
        State("anxious", "nervous", "relaxed"),
        State("silent", "quiet", "talkative"),
        State("drowsy", "sleepy", "wide awake"),
        State("cheerful", "happy", "miserable"),
        State("starving", "hungry", "well fed"),
        State("motionless", "not moving", "in motion"),
        State("intoxicated", "drunk", "sober"),
        State("unwell", "sick", "perfectly healthy"),
        State("terrified", "afraid", "fearless"),
    ),
    open=(
        "owned two dogs",
        "had grown up on a farm",
        "spoke three languages",
        "was planning a holiday",
        "had just moved house",
        "worked for a small company",
        "was waiting for a phone call",
        "had a twin sister",
    ),
    traits=lex.TRAITS,
    times=4,
)
FOODS = StateFrame(
    subjects=(
        ("stew", "dish"),
        ("omelet", "dish"),
        ("porridge", "meal"),
        ("coffee", "drink"),
        ("cider", "drink"),
        ("cocoa", "drink"),
        ("lasagna", "meal"),
        ("soup", "dish"),
    ),
    states=(
        State("scalding", "hot", "cold"),
        State("freezing", "cold", "hot"),
        State("lukewarm", "neither hot nor cold", "extremely hot"),
    ),
    open=(
        "had been made by a stranger",
        "contained ginger",
        "cost eight dollars",
        "was too sweet for children",
        "came with bread",
        "was a local specialty",
    ),
    times=3,
)
STATE_FRAMES = (PLACES, PLACES, PERSONS, PERSONS, FOODS)  # by how much there is to say

# A time, another name of it, and a stretch that contains it. The first three also suit a meal, the first four a person.
TIMES = (
    ("at noon", "around midday", "all day"),
    ("at dawn", "around sunrise", "all morning"),
    ("at dusk", "around nightfall", "all evening"),
    ("throughout the night", "overnight", "all night"),
    ("throughout the winter", "that season", "all winter"),
)

# What a premise adds to an event or a trait; settles and excludes nothing that is told above.
PAST_ASIDES = (
    "fed the birds",
    "watered the plants",
    "wrote a postcard",
    "played cards",
    "lit a candle",
    "read the newspaper",
)
PRESENT_ASIDES = (
    "collects stamps",
    "likes chess",
    "paints landscapes",
    "bakes on weekends",
    "reads two newspapers a day",
)

# True or false whatever else the premise says, and about nothing that hypotheses are about.
SCENES = (
    "the choir rehearsed",
    "snow fell on the village",
    "the bells rang twice",
    "the market was about to close",
    "the harvest had just begun",
    "two ships entered the bay",
    "the streets were decorated with flags",
    "the band played an old tune",
    "a dog barked in the distance",
    "the river was high",
    "the moon was hidden by clouds",
    "the last bus had already gone",
    "fireworks lit up the sky",
    "a cold wind blew from the hills",
    "children played in the square",
    "the summer was almost over",
)
# Ways to go on about a deed, and about any event, that it does not settle.
DEED_ADDITIONS = (
    "for a friend",
    "because of a bet",
    "for the second time",
    "without telling anyone",
    "to impress a stranger",
    "by mistake",
    "with some help",
)
EVENT_ADDITIONS = (
    "for the second time that month",
    "after a sleepless night",
    "despite a headache",
    "in front of two witnesses",
)
