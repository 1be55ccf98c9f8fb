"""Presets: every file is read, and says nothing that no function takes."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pyneuro as pn
from pyneuro.data import PRESETS, Pair, Pairs
from pyneuro.errors import InputError
from pyneuro.presets import preset, preset_names
from pyneuro.sites import NeuronSet
from tests.tiny import make_tiny

FILES = Path(pn.__file__).parent / "assets" / "presets"


def configured(function: str) -> Any:
    found: Any = pn
    for part in function.split("."):
        found = getattr(found, part)
    return found


def test_the_published_settings_are_there() -> None:
    assert preset_names() == (
        "acl2024",
        "acl2024-fixed",
        "emnlp2022-fixed",
        "emnlp2022-released",
        "meissner2022",
        "notes2023",
        "notes2023-fixed",
        "vig2020",
        "zhao2020",
    )


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_arguments_of_public_functions(name: str) -> None:
    found = preset(name)
    assert found.name == name and found.about and found.sources and found.left_out and len(found)
    for function, arguments in found.items():
        signature = inspect.signature(configured(function))
        assert arguments, function
        signature.bind_partial(**arguments)  # TypeError for a name that it does not take
        for argument, value in arguments.items():
            default = signature.parameters[argument].default
            if isinstance(default, bool):
                assert isinstance(value, bool), (function, argument)
            elif isinstance(default, (int, float)):
                assert isinstance(value, (int, float) if isinstance(default, float) else int), (function, argument)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_its_file_and_fits_a_manifest(name: str) -> None:
    text = (FILES / f"{name}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    plain = {function: dict(arguments) for function, arguments in preset(name).items()}
    assert json.loads(json.dumps(plain)) == {k: v for k, v in content.items() if isinstance(v, dict)}
    assert preset(name) == preset(name)
    assert not re.search(r"\[(MEM|SRC|DER|PAGE)\]", text)


@pytest.mark.parametrize("name", [n for n in preset_names() if "data.treatment_sets" in preset(n)])
def test_sets_and_samples_can_be_drawn(name: str) -> None:
    words = list("abcdefghij")
    pairs = Pairs(
        Pair(f"{label}-{n}-{i}", " ".join(words), f"{' '.join(words[:n] + ['x'] * (10 - n))}", label)
        for label in ("entailment", "neutral", "contradiction")
        for n in range(11)
        for i in range(100)
    )
    found = preset(name)
    if "data.split_roles" in found:
        roles = pn.data.split_roles(pairs, **found["data.split_roles"])
        assert not set(roles.treatment.ids) & set(roles.nie.ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ties: eleven different scores
        sets = pn.data.treatment_sets(pairs, **found["data.treatment_sets"])
    assert (sets.low, sets.high) == (PRESETS[name.split("-")[0]].low, PRESETS[name.split("-")[0]].high)
    sample = pn.data.balanced_sample(pairs, **found["data.balanced_sample"])
    assert len(sample) == found["data.balanced_sample"]["n"]
    assert name.endswith("-fixed") == (len(set(sample.ids)) == len(sample))


@pytest.mark.parametrize("name", ["zhao2020", "meissner2022"])
def test_masks_can_be_applied(name: str) -> None:
    clf = make_tiny(layers=12, hidden=24, heads=3, intermediate=40)
    layers = pn.masking.apply(clf, **preset(name)["masking.apply"])
    share = sum(m.sparsity * m.weight.numel() for m in layers.values()) / sum(m.weight.numel() for m in layers.values())
    assert share == pytest.approx(preset(name)["masking.apply"]["sparsity"], abs=1e-3)
    assert len(layers) == {"zhao2020": 62, "meissner2022": 72}[name]


def test_neurons_are_those_meant() -> None:
    clf = make_tiny(layers=2, hidden=24, heads=3, intermediate=40)
    assert len(NeuronSet.parse(preset("vig2020")["search"]["sites"], clf.shape)) == 2 * 24


@pytest.mark.parametrize("name", ["emnlp2022-released", "emnlp2022-fixed"])
def test_counterfactual_inference_runs(name: str) -> None:
    rng = np.random.default_rng(0)
    main, bias = rng.dirichlet([1, 1, 1], 70), rng.dirichlet([3, 3, 3], 70)
    found = preset(name)
    c = pn.mitigation.fit_sharpness(main, bias, of="tie_a", **found["mitigation.fit_sharpness"]).c
    effects = pn.mitigation.counterfactual(main, bias, c, **found["mitigation.counterfactual"])
    assert effects.tie_a.shape == (70, 3)
    pytest.importorskip("sklearn")
    model = pn.reweighting.OverlapModel(**found["reweighting.OverlapModel"])
    assert model.c == pn.reweighting.FEATURE_SETS[model.features].c


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"preset 'acl' is not known; use one of acl2024, acl2024-fixed, .*, zhao2020"):
        preset("acl")
    with pytest.raises(KeyError, match=r"says nothing of 'search'; it has masking.apply, masking.train"):
        preset("zhao2020")["search"]
