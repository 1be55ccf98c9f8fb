"""The embedded pairs: balanced, distinct, sound as far as structure shows it, and a trap for the bundled model."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pyneuro.data.generator import CAPACITY, embedded_pairs
from pyneuro.data.grammar import CONSTRUCTIONS, Draw, converses, lexicon, scenes, sentence
from pyneuro.data.grammar.phrases import a, level_of, plural
from pyneuro.data.overlap import whitespace_overlap
from pyneuro.data.pairs import Pair, Pairs
from pyneuro.data.roles import split_roles
from pyneuro.data.treatment import treatment_sets
from pyneuro.errors import InputError

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


@pytest.fixture(scope="module")
def many() -> Pairs:
    return embedded_pairs(20_000, seed=3)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return embedded_pairs()


def words(text: str) -> list[str]:
    return text.removesuffix(" .").split()


def built(many: Pairs, construction: str) -> list[Pair]:
    found = [pair for pair in many if pair.meta["construction"] == construction]
    assert found, construction
    return found


def told(pair: Pair) -> str:
    """The premise without the unrelated clause that may open it, starting in lower case unless with a name."""
    premise = pair.premise
    for scene in scenes.SCENES:
        premise = premise.removeprefix(f"{sentence(scene)[:-2]} and ")
    return premise if premise.split()[0] in lexicon.NAMES else premise[0].lower() + premise[1:]


# --- what is promised of the set ---------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_pairs_and_another_seed_others(pairs: Pairs) -> None:
    assert embedded_pairs(2000, 0).digest() == pairs.digest()
    texts = {(pair.premise, pair.hypothesis) for pair in embedded_pairs(2000, 1)}
    assert len(texts & {(pair.premise, pair.hypothesis) for pair in pairs}) < 100


def test_the_default_set_stays_what_it_is() -> None:
    # Results are tied to digests: change this only with a change of the grammar that is meant.
    assert embedded_pairs(9, 0).digest() == "dc501a2f39013909dda64d8e3de000eb2c01b90e06d8a3c869491a09d4e531c9"


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10, 100, 151, 2000])
def test_label_and_band_are_balanced_at_any_size(n: int) -> None:
    pairs = embedded_pairs(n, 5)
    assert len(pairs) == n
    cells = Counter((pair.label, pair.meta["band"]) for pair in pairs)
    assert max(cells.values()) - (min(cells.values()) if len(cells) == 9 else 0) <= 1
    assert len(cells) == min(n, 9)


def test_all_pairs_are_distinct_and_no_text_has_two_labels(many: Pairs) -> None:
    assert len({(pair.premise, pair.hypothesis) for pair in many}) == len(many) == 20_000
    assert len(set(many.ids)) == len(many)


def test_ids_and_source_name_the_call(pairs: Pairs) -> None:
    assert pairs.ids[:2] == ("embedded-0-0", "embedded-0-1")
    assert pairs.source == "embedded_pairs(n=2000, seed=0)"


def test_labels_come_in_random_order(pairs: Pairs) -> None:
    counts = [Counter(pairs.labels[start : start + 100])["entailment"] for start in range(0, 2000, 100)]
    assert all(15 < count < 52 for count in counts)


def test_meta_says_overlap_band_construction_and_heuristic(pairs: Pairs) -> None:
    for pair in pairs:
        score = whitespace_overlap(pair.premise, pair.hypothesis)
        assert pair.meta["overlap"] == score
        assert pair.meta["band"] == ("low" if score <= 1 / 3 else "high" if score >= 0.8 else "middle")
        inside = " ".join(words(pair.hypothesis)).lower() in pair.premise.lower()
        expected = {"overlap"} if not inside else {"subsequence", "constituent"}
        assert pair.meta["heuristic"] in (expected if score == 1 else {"none"})
    assert {pair.meta["heuristic"] for pair in pairs} == {"overlap", "subsequence", "constituent", "none"}


@pytest.mark.parametrize("seed", range(5))
def test_the_treatment_role_gives_high_and_low_overlap_sets_with_sixty_of_every_class(seed: int) -> None:
    treatment = split_roles(embedded_pairs(2000, seed), seed=seed).treatment
    sets = treatment_sets(treatment, 0.0, 1.0, mode="absolute")
    assert min(count for counts in sets.counts_before.values() for count in counts.values()) >= 60
    scores = [pair.meta["overlap"] for pair in treatment]
    assert tuple(np.percentile(scores, (20, 80))) == (0.0, 1.0)


def test_every_label_has_several_constructions_at_every_level(pairs: Pairs) -> None:
    kinds = {(pair.label, level_of(pair.meta["overlap"]), pair.meta["construction"]) for pair in pairs}
    per_cell = Counter((label, level) for label, level, _ in kinds)
    assert len(per_cell) == 15 and min(per_cell.values()) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be 1 to 30000 pairs, got 0"),
        ({"n": CAPACITY + 1}, "got 30001; join several seeds"),
        ({"n": 10.0}, "n must be an integer, got float 10.0"),
        ({"n": True}, "n must be an integer, got bool True"),
        ({"seed": "a"}, "seed must be an integer, got str 'a'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        embedded_pairs(**arguments)  # type: ignore[arg-type]


def test_numpy_integers_are_integers() -> None:
    assert embedded_pairs(np.int64(12), np.int32(0)).digest() == embedded_pairs(12).digest()  # type: ignore[arg-type]


def test_a_full_capacity_set_can_be_made() -> None:
    assert len(embedded_pairs(CAPACITY, 11)) == CAPACITY


# --- that the English is well formed -----------------------------------------------------------------------------


def test_sentences_are_capitalised_closed_and_single_spaced(many: Pairs) -> None:
    for pair in many:
        for text in (pair.premise, pair.hypothesis):
            assert re.fullmatch(r"[A-Z]\w*(?:-\w+)*(?: (?:[\w'-]+|,))* \.", text), text
            assert not re.search(r"\b(\w+) \1\b", text), text


def test_articles_suit_the_next_word(many: Pairs) -> None:
    for pair in many:
        for article, following in re.findall(r"\b(an?) (\w)", f"{pair.premise} {pair.hypothesis}".lower()):
            assert (article == "an") == (following in "aeiou"), pair


def test_verbs_agree_with_their_subjects(many: Pairs) -> None:
    nouns = {noun for noun, _ in lexicon.PEOPLE} | set(lexicon.PEOPLE_KINDS) | set(lexicon.THING_KINDS)
    many_of, one_of = ("|".join(sorted(names)) for names in ({plural(noun) for noun in nouns}, nouns))
    for pair in many:
        for text in (pair.premise, pair.hypothesis):
            assert not re.search(rf"\bthe (?:\w+ )?(?:{many_of}) (?:was|is|has)\b", text), text
            assert not re.search(rf"\b(?:a|an|the|that|this|every) (?:\w+ )?(?:{one_of}) (?:were|are|have)\b", text), (
                text
            )
            assert not re.search(rf"\b(?:two|three|four|five|six|seven|eight|nine) (?:{one_of})\b", text), text


def test_premises_vary_in_length(many: Pairs) -> None:
    lengths = [len(pair.premise.split()) for pair in many]
    assert min(lengths) >= 5 and 20 <= max(lengths) <= 28
    assert np.std(lengths) > 3


def test_plurals_and_articles() -> None:
    assert [plural(noun) for noun in ("nurse", "boy", "duchess", "puppy", "craftsperson")] == [
        "nurses",
        "boys",
        "duchesses",
        "puppies",
        "craftspeople",
    ]
    assert (a("employee"), a("vehicle")) == ("an employee", "a vehicle")


# --- that labels follow, as far as structure shows it ------------------------------------------------------------


@pytest.mark.parametrize("rule", CONSTRUCTIONS, ids=lambda rule: f"{rule.label}: {rule.name}")
def test_a_construction_reaches_the_levels_it_names(rule) -> None:
    draw = Draw(random.Random(1))
    drawn = (rule.build(draw) for _ in range(3000))
    levels = {level_of(whitespace_overlap(sentence(premise), sentence(hypothesis))) for premise, hypothesis in drawn}
    assert set(rule.levels) <= levels


def test_a_construction_name_stands_for_one_label() -> None:
    assert len({rule.name for rule in CONSTRUCTIONS}) == len(CONSTRUCTIONS)


def test_nobody_is_spoken_of_twice_by_one_noun(many: Pairs) -> None:
    # "The nurse praised the tall nurse" would leave open whom "the nurse" of the hypothesis is.
    for name in ("role swap", "noun inside a relative", "object relative", "factive verb", "asymmetric relation"):
        for pair in built(many, name):
            people = [word for word in words(told(pair)) if word in {noun for noun, _ in lexicon.PEOPLE}]
            assert len(set(people)) == len(people), pair


@pytest.mark.parametrize("name", ["asymmetric relation", "symmetric relation", "directed relation"])
def test_relations_are_turned_around_and_nothing_else(many: Pairs, name: str) -> None:
    relations = {
        "asymmetric relation": [relation for pair in converses.ASYMMETRIC for relation in pair],
        "symmetric relation": list(converses.SYMMETRIC),
        "directed relation": list(converses.DIRECTED),
    }[name]
    for pair in built(many, name):
        hypothesis = pair.hypothesis[:-2]
        hits = [r for r in relations if f" {r} " in told(pair)]
        relation = max(hits, key=len)
        x, y = told(pair)[:-2].split(f" {relation} ", 1)
        back_y, back_x = hypothesis.split(f" {relation} ", 1)
        assert y.lower().startswith(back_y.lower()) and back_x.lower().startswith(x.lower())


def test_no_relation_is_both_symmetric_and_not() -> None:
    asymmetric = [relation for pair in converses.ASYMMETRIC for relation in pair]
    everything = [*converses.SYMMETRIC, *converses.DIRECTED, *asymmetric]
    assert len(set(everything)) == len(everything)


def test_passives_give_the_agent_back(many: Pairs) -> None:
    for pair in built(many, "passive to active"):
        patient, verb, agent = re.match(r"(.+) (?:was|were) (\w+) by (.+) \.", told(pair)).groups()
        subject, rest = pair.hypothesis.lower().split(f" {verb} ", 1)
        assert agent.lower().startswith(subject) and rest.startswith(patient.lower())
    for pair in built(many, "passive to active, roles kept in order"):
        patient, verb = re.match(r"(.+) (?:was|were) (\w+) by ", told(pair)).groups()
        assert pair.hypothesis.lower().startswith(f"{patient} {verb} ".lower())


@pytest.mark.parametrize(
    ("name", "openers"),
    [
        ("factive verb", lexicon.FACTIVES),
        ("nonfactive verb", lexicon.NONFACTIVES),
        ("counterfactive verb", lexicon.COUNTERFACTIVES),
    ],
)
def test_embedding_verbs_alone_settle_the_embedded_clause(many: Pairs, name: str, openers: tuple[str, ...]) -> None:
    for pair in built(many, name):
        embedded = pair.hypothesis[0].lower() + pair.hypothesis[1:]
        found = re.search(rf" ({'|'.join(openers)}) that (.+)$", told(pair))
        assert found and found[2].lower() == embedded.lower()
        assert pair.meta["heuristic"] == "constituent"


def test_exchanged_counts_differ_for_every_group(many: Pairs) -> None:
    def counts(text: str) -> dict[str, str]:
        return {group: number for number, group in re.findall(r"[Ee]xactly (\w+) (\w+)", text)}

    for pair in built(many, "counts exchanged"):
        for group, number in counts(pair.hypothesis).items():
            assert counts(pair.premise)[group] != number
    for pair in built(many, "counts side by side"):
        assert counts(pair.hypothesis).items() <= counts(pair.premise).items()


def test_negated_sentences_differ_in_the_negation_only(many: Pairs) -> None:
    for name in ("negated state", "negated future"):
        for pair in built(many, name):
            assert told(pair).lower().replace(" not ", " ", 1) == pair.hypothesis.lower()
    for pair in built(many, "negation added"):
        assert told(pair).lower() == pair.hypothesis.lower().replace(" not ", " ", 1)


def test_every_is_never_followed_by_a_negation(many: Pairs) -> None:
    # "Every cook did not leave" may mean that not every cook left.
    for pair in many:
        assert not re.search(r"^Every .*\b(?:not|never|no|nothing)\b", pair.hypothesis), pair


def test_kinds_share_no_member() -> None:
    for kinds in (lexicon.PEOPLE_KINDS, lexicon.THING_KINDS):
        nouns = [noun for members in kinds.values() for noun in members]
        assert len(set(nouns)) == len(nouns) and not set(nouns) & set(kinds)


def test_retold_events_share_no_content_word_with_what_was_told() -> None:
    function_words = set(re.findall(r"\w+", "a the to at of in by is has with for was not did does no than"))
    for event in (*scenes.EVENTS, *scenes.TRAITS):
        for other in (event.entailed, event.excluded, event.open):
            shared = set(event.told.split()) & set(other.split()) - function_words
            assert shared <= {"swim"}, (event.told, other)


def test_scenes_bear_on_nothing_a_hypothesis_says(many: Pairs) -> None:
    spoken_of = {word for scene in scenes.SCENES for word in scene.split()}
    nouns = {noun for noun, _ in (*lexicon.PEOPLE, *lexicon.THINGS)} | set(lexicon.OBJECTS + lexicon.BUILDINGS)
    assert not spoken_of & (nouns | set(lexicon.GATHERINGS) | set(lexicon.INTRANSITIVES))


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared/data beside the repository: HANS is not there to compare")
def test_no_pair_is_one_of_hans(many: Pairs) -> None:
    with gzip.open(SHARED / "hans_eval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    hans = {row[key].lower() for row in rows for key in ("premise", "hypothesis")}
    assert not hans & {text.lower() for pair in many for text in (pair.premise, pair.hypothesis)}


# --- that it is a trap -------------------------------------------------------------------------------------------


def test_the_bundled_model_takes_overlap_for_entailment(bundled) -> None:
    pairs = embedded_pairs(162, seed=2)
    encodings = [bundled.encode(pair) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda i: len(encodings[i]))
    probability = np.empty(len(pairs))
    for start in range(0, len(order), 54):
        batch = order[start : start + 54]
        logits = bundled.logits([encodings[i] for i in batch])
        probability[batch] = logits.softmax(-1)[:, bundled.target_index("entailment")].detach().numpy()
    entailed = np.array([label == "entailment" for label in pairs.labels])
    band = np.array([pair.meta["band"] for pair in pairs])
    # The mean P(entailment) rises with overlap whether or not the pair is entailed...
    for is_entailed in (True, False):
        low, middle, high = (
            probability[(band == b) & (entailed == is_entailed)].mean() for b in ("low", "middle", "high")
        )
        assert low < middle < high
    # ...so that at high overlap it is right on what is entailed and wrong on the rest, and the reverse at low overlap.
    takes = probability > 0.5
    right = {
        (b, e): (takes == entailed)[(band == b) & (entailed == e)].mean()
        for b in ("low", "high")
        for e in (True, False)
    }
    assert right["high", True] > 0.8 > 0.4 > right["high", False]
    assert right["low", False] > 0.8 > 0.7 > right["low", True]
