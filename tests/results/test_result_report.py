"""The text report and its warnings, on results whose flaws are planted."""

from __future__ import annotations

import numpy as np
import pytest

from pyneuro.effects import Moments, Terms
from pyneuro.errors import InputError
from pyneuro.results import Result, summary_text
from pyneuro.results.diagnostics import outlier_coordinates, warnings_of
from pyneuro.sites import ModelShape, NeuronSet

SHAPE = ModelShape(layers=4, hidden=64, heads=4, intermediate=128)


def result_of(
    mean: np.ndarray,
    samples: int = 40,
    spike: tuple[int, float] | None = None,
    sites: NeuronSet | dict[str, NeuronSet] | None = None,
    noise: float = 0.1,
) -> Result:
    """Two treatments with effects ``mean`` and ``-mean / 2`` per neuron; ``spike`` adds to one neuron in sample 3."""
    rng = np.random.default_rng(0)
    first, second, contrast = Moments.zeros(len(mean)), Moments.zeros(len(mean)), Moments.zeros(len(mean))
    for sample in range(samples):
        a = mean * (1 + noise * rng.standard_normal(len(mean)))
        b = -mean / 2 * (1 + noise * rng.standard_normal(len(mean)))
        if spike is not None and sample == 3:
            a[spike[0]] += spike[1]
        left, right = (Terms(e, np.log1p(e), e / 4, 0.25) for e in (a, b))
        for moments, terms in ((first, left), (second, right), (contrast, left - right)):
            moments.update(terms, "neutral", sample)
    return Result.from_moments(sites or NeuronSet.all(SHAPE), {"HOL": first, "LOL": second}, contrast, {})


def plain_mean(seed: int = 1) -> np.ndarray:
    return 1e-3 * np.random.default_rng(seed).standard_normal(SHAPE.n_neurons)


def flat(site: str) -> int:
    return int(NeuronSet.parse(site, SHAPE).ids[0])


def test_the_report_ranks_every_treatment_and_the_contrast_and_sums_up_the_layers() -> None:
    mean = plain_mean()
    mean[flat("L3.I.77")] = -0.25
    text = summary_text(result_of(mean), k=4)
    lines = text.splitlines()
    assert lines[0] == "1,792 neurons x HOL, LOL"
    for title in ("HOL: 4 largest |NIE|", "LOL: 4 largest |NIE|", "HOL - LOL: 4 largest |contrast|"):
        start = lines.index(title)
        assert lines[start + 1].split()[:2] == ["site", "NIE"]
        assert lines[start + 2].split()[0] == "L3.I.77"
        assert lines[start + 6 :][:1] in ([""], [])
    layers = lines.index("HOL: mean |NIE| by layer")
    assert lines[layers + 1].split() == ["layer", "Q", "K", "V", "AO", "I", "O", "strongest"]
    assert lines[layers + 5].split()[0] == "L3"
    assert "L3.I.77 (-2." in lines[layers + 5]
    assert "Warnings" not in text
    assert max(map(len, lines)) <= 100


def test_a_result_of_sets_has_no_layers() -> None:
    sets = {f"set {i}": NeuronSet(SHAPE, [i, i + 1]) for i in range(3)}
    text = summary_text(result_of(np.array([0.1, -0.2, 0.05]), sites=sets))
    assert text.startswith("3 sets x HOL, LOL")
    assert "by layer" not in text
    assert text.index("set 1") < text.index("set 0") < text.index("set 2")


def test_one_treatment_has_no_contrast() -> None:
    neurons = NeuronSet.parse("L0.Q.*", SHAPE)
    moments = Moments.zeros(len(neurons))
    text = summary_text(Result.from_moments(neurons, {"HOL": moments}, None, {}))
    assert "contrast" not in text
    assert "0 samples" in text


def test_few_samples_are_warned_of() -> None:
    assert warnings_of(result_of(plain_mean())) == []
    assert warnings_of(result_of(plain_mean(), samples=12))[0].startswith("HOL: only 12 samples")
    assert "only 1 sample;" in summary_text(result_of(plain_mean(), samples=1))


def test_one_sample_that_makes_the_mean_is_warned_of_by_site() -> None:
    (warning,) = warnings_of(result_of(plain_mean(), spike=(flat("L2.V.5"), 5.0)))
    assert warning.startswith("HOL: a single sample carries more than 50% of the effect of 1 of the top 10 (L2.V.5)")


def test_many_exact_zeros_are_warned_of() -> None:
    mean = plain_mean()
    mean[: len(mean) // 2] = 0.0
    first, second = warnings_of(result_of(mean))
    assert first.startswith("HOL: 50% of the effects are exactly 0 and tie")
    assert second.startswith("LOL: 50%")


def test_a_coordinate_that_leads_several_layers_is_flagged() -> None:
    mean = plain_mean()
    for layer in range(4):
        for module in ("AO", "O"):
            mean[flat(f"L{layer}.{module}.30")] = 0.3
    result = result_of(mean)
    assert outlier_coordinates(result) == {30: [f"L{i}.{m}" for i in range(4) for m in ("AO", "O")]}
    assert any(w.startswith("coordinate 30 leads in 8 AO/O cells (L0.AO, L0.O") for w in warnings_of(result))


@pytest.mark.parametrize("seed", range(8))
def test_independent_rankings_flag_no_coordinate(seed: int) -> None:
    assert outlier_coordinates(result_of(plain_mean(seed), samples=2)) == {}


def test_two_layers_or_too_few_neurons_are_not_enough_to_flag() -> None:
    mean = plain_mean()
    for site in ("L0.AO.30", "L0.O.30", "L1.AO.30", "L1.O.30"):
        mean[flat(site)] = 0.3
    assert outlier_coordinates(result_of(mean)) == {}
    few = NeuronSet.parse([f"L*.{m}.{i}" for m in ("AO", "O") for i in (30, 31)], SHAPE)
    assert outlier_coordinates(result_of(np.full(len(few), 0.3), sites=few)) == {}


def test_no_row_is_no_report() -> None:
    with pytest.raises(InputError, match="k = 0; pass 1 or more"):
        summary_text(result_of(plain_mean(), samples=1), k=0)


def test_the_report_says_how_much_is_more_than_noise() -> None:
    mean = plain_mean()
    mean[::2] = 0.0
    result = result_of(mean)
    lines = summary_text(result).splitlines()
    halves = result.frame()[result.frame()["treatment"] == "HOL"][["nie_half_1", "nie_half_2"]]
    spearman = halves.corr("spearman").iloc[0, 1]
    said = f"    896 of 1,792 significant at a false discovery rate of 5%, split-half Spearman {spearman:.2f}"
    assert lines[2] == said
    assert "significant" not in summary_text(result_of(mean, samples=3))


def test_a_report_of_an_old_folder_has_no_halves() -> None:
    result = result_of(plain_mean())
    old = Result(result.manifest, result.frame().drop(columns=["nie_half_1", "nie_half_2"]), None)
    assert "significant" in summary_text(old)
    assert "split-half" not in summary_text(old)


def test_a_text_counted_twice_is_warned_of() -> None:
    result = result_of(plain_mean())
    for ids, said in (
        ([f"pair {i}" for i in range(40)], None),
        (["a", "b", "a", "c"], "1 sample id more than once (a): "),
        (list("aabbccdd"), "4 sample ids more than once (a, b, c, ...): "),
    ):
        warnings = warnings_of(Result({**result.manifest, "ids": ids}, result.frame(), None))
        assert [w for w in warnings if "more than once" in w] == [w for w in warnings if said and w.startswith(said)]
        assert len(warnings) == (said is not None)
