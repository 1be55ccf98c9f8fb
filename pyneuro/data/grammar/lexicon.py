"""Single words of the embedded pairs: people, things, places, verbs, modifiers.

Every list is used by constructions that rely on what its words mean, so the comment on a list says what a word must
satisfy to be added. All words are common, so that wordpiece tokenizers keep most of them whole.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Marta Hugo Priya Tomas Ingrid Leila Oliver Naomi Dmitri Felix Rosa Anton Greta Samir Clara Bianca Edgar Nadia "
    "Victor Irene"
)

# Kind -> people of that kind. Every member must be of the kind by definition; no noun under two kinds.
PEOPLE_KINDS: dict[str, tuple[str, ...]] = {
    "musician": ("violinist", "cellist", "pianist", "drummer", "guitarist"),
    "writer": ("poet", "novelist", "playwright", "biographer"),
    "craftsperson": ("carpenter", "potter", "tailor", "jeweler"),
    "researcher": ("chemist", "biologist", "physicist", "geologist"),
    "employee": ("waiter", "cashier", "receptionist", "janitor"),
    "soldier": ("corporal", "paratrooper"),
    "criminal": ("burglar", "pickpocket", "smuggler"),
    "health worker": ("surgeon", "nurse", "dentist"),
    "educator": ("teacher", "tutor"),
    "noble": ("duchess", "baron"),
    "player": ("goalkeeper", "striker"),
    "cleric": ("priest", "bishop"),
}
PEOPLE = tuple((noun, kind) for kind, nouns in PEOPLE_KINDS.items() for noun in nouns)

# Do not bear on what the person did, and fit every person above.
TRAITS = ("young", "tall", "retired", "clumsy", "famous", "shy", "elderly", "local", "friendly", "wealthy")
CITIES = ("Lisbon", "Oslo", "Madrid", "Dublin", "Vienna", "Boston", "Cairo", "Prague")

# Past = participle, base. "X did it to Y" must leave open whether Y did it to X.
TRANSITIVES = (
    ("praised", "praise"),
    ("greeted", "greet"),
    ("teased", "tease"),
    ("photographed", "photograph"),
    ("interviewed", "interview"),
    ("scolded", "scold"),
    ("imitated", "imitate"),
    ("tricked", "trick"),
    ("insulted", "insult"),
    ("startled", "startle"),
    ("rescued", "rescue"),
    ("invited", "invite"),
    ("blamed", "blame"),
    ("trusted", "trust"),
    ("annoyed", "annoy"),
    ("flattered", "flatter"),
    ("mocked", "mock"),
    ("warned", "warn"),
    ("comforted", "comfort"),
    ("questioned", "question"),
    ("chased", "chase"),
    ("congratulated", "congratulate"),
)
# Past, and a past that it entails.
VERB_SYNONYMS = (
    ("praised", "complimented"),
    ("scolded", "reprimanded"),
    ("imitated", "copied"),
    ("tricked", "fooled"),
    ("startled", "surprised"),
    ("rescued", "saved"),
    ("annoyed", "irritated"),
    ("comforted", "consoled"),
    ("mocked", "ridiculed"),
    ("chased", "pursued"),
    ("telephoned", "called"),
    ("interrogated", "questioned"),
)
# True of each member of a group one by one.
INTRANSITIVES = _words(
    "laughed yawned sneezed whistled fainted wept sang smiled stumbled shivered dozed coughed complained giggled "
    "trembled limped blushed snored hesitated apologized"
)
# What someone can be seen doing: "X was ...".
PROGRESSIVES = (
    "limping",
    "shivering",
    "snoring",
    "crying",
    "singing",
    "whistling",
    "smiling",
    "trembling",
    "wearing a wig",
    "carrying a lantern",
    "hiding a letter",
    "reading a map",
    "feeding the horses",
    "cleaning the windows",
    "packing a suitcase",
    "waiting in the lobby",
)
# "will / could ..."; single acts, so that "will not" rules out "will".
BASES = (
    "join the choir",
    "attend the wedding",
    "sign the contract",
    "visit the island",
    "repair the engine",
    "sell the boat",
    "move to the coast",
    "run for mayor",
    "pay the fine",
    "testify at the trial",
    "stay for dinner",
    "write a second book",
)
MANNERS = ("loudly", "quietly", "suddenly", "nervously", "briefly", "openly", "repeatedly")
LOCATIONS = (
    "in the garden",
    "near the fountain",
    "at the station",
    "in the kitchen",
    "outside the bank",
    "on the balcony",
    "at the market",
    "in the library",
)
WHENS = ("on Friday", "during lunch", "after the meeting", "before sunrise", "on Monday", "during the festival")
NEAR = ("near", "beside", "behind", "across from", "next to", "in front of")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")

# Kind -> things of that kind, by definition; no noun under two kinds.
THING_KINDS: dict[str, tuple[str, ...]] = {
    "vehicle": ("bicycle", "scooter", "tractor", "motorcycle"),
    "animal": ("puppy", "kitten", "pony", "parrot"),
    "tool": ("hammer", "drill", "wrench"),
    "instrument": ("flute", "banjo", "harp", "trumpet"),
    "weapon": ("dagger", "sword", "rifle"),
    "garment": ("coat", "scarf", "sweater", "jacket"),
    "book": ("novel", "dictionary", "atlas", "cookbook"),
}
THINGS = tuple((noun, kind) for kind, nouns in THING_KINDS.items() for noun in nouns)
# Inanimate, movable.
OBJECTS = ("lamp", "ladder", "kettle", "clock", "suitcase", "umbrella", "mirror", "basket", "statue", "bucket", "vase")
ROOMS = ("kitchen", "garage", "attic", "hallway", "cellar", "bedroom", "office", "garden")
BUILDINGS = ("bakery", "museum", "chapel", "gym", "library", "stadium", "theater", "hospital", "brewery", "castle")
GATHERINGS = ("concert", "parade", "lecture", "auction", "banquet", "trial", "wedding", "match", "ceremony", "debate")

# What one can do to any thing: past, a past that it entails with its base and participle.
ACQUISITIONS = (
    ("purchased", "bought", "buy", "bought"),
    ("located", "found", "find", "found"),
    ("auctioned off", "sold", "sell", "sold"),
    ("swiped", "stole", "steal", "stolen"),
    ("sketched", "drew", "draw", "drawn"),
    ("examined", "inspected", "inspect", "inspected"),
    ("concealed", "hid", "hide", "hidden"),
    ("snatched", "grabbed", "grab", "grabbed"),
)

# Adjective pairs of which a thing can have only one at a time: place states.
OPPOSITES = (
    ("open", "closed"),
    ("empty", "full"),
    ("clean", "dirty"),
    ("quiet", "noisy"),
    ("cold", "warm"),
    ("dark", "bright"),
    ("locked", "unlocked"),
    ("busy", "deserted"),
)
# Verb pairs of which one person can do only one on one occasion: "X ... but Y ...".
CONTRARIES = (
    ("stayed", "left"),
    ("won", "lost"),
    ("survived", "died"),
    ("agreed", "refused"),
    ("succeeded", "failed"),
    ("told the truth", "lied"),
    ("remembered", "forgot"),
    ("arrived early", "arrived late"),
    ("voted in favor", "voted against"),
)
FACTIVES = ("knew", "noticed", "realized", "discovered", "remembered", "was glad", "was aware", "found out", "saw")
NONFACTIVES = ("believed", "suspected", "claimed", "thought", "assumed", "feared", "hoped", "said", "guessed")
QUESTIONS = ("wondered", "asked", "did not know", "never found out", "could not tell")
COUNTERFACTIVES = ("wrongly believed", "falsely claimed", "mistakenly thought", "wrongly assumed", "falsely reported")
HEDGES = ("allegedly", "reportedly", "possibly", "supposedly", "perhaps")
