"""The same search gives the same bits; threads, budgets and backends move nothing but rounding."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch

from pyneuro.engine.backend import choose_backend
from pyneuro.engine.plan import MIB, base_run_bytes, candidate_bytes
from pyneuro.engine.values import mean_activations
from pyneuro.errors import InputError
from pyneuro.search import search
from pyneuro.search.driver import Sweep
from pyneuro.search.exact import ExactEvaluator
from pyneuro.sites import MODULES, NeuronSet
from tests.search.conftest import CPU, FLOAT64, FP32, NATIVE
from tests.search.oracle import random_values
from tests.tiny import PAIRS, make_tiny

MEASURED = ["nie", "se", "log_nie", "diff"]
COMPUTING = [FP32, pytest.param(CPU, marks=NATIVE)]


@pytest.fixture
def threads():
    """``torch.set_num_threads``, put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def tokens_and_sets(clf):
    """The three paths: neurons at [CLS], neurons elsewhere, sets."""
    sets = {f"L{layer}": NeuronSet.parse(f"L{layer}.*.1", clf.shape) for layer in range(clf.shape.layers)}
    return [{"sites": "all"}, {"sites": "L0.*.*", "token": 2}, {"sites": sets}]


@pytest.mark.parametrize("way", COMPUTING, ids=lambda way: way.backend)
@pytest.mark.parametrize("path", range(3), ids=["neurons", "another token", "sets"])
def test_the_same_search_gives_the_same_bits(way, path, clf, few):
    values = random_values(clf, "HOL", "LOL")
    options = {**tokens_and_sets(clf)[path], **way.options}
    first, second = (search(clf, few, values, **options) for _ in range(2))
    pd.testing.assert_frame_equal(first.frame(), second.frame(), check_exact=True)
    pd.testing.assert_frame_equal(first.contrast(), second.contrast(), check_exact=True)


@pytest.mark.parametrize("way", COMPUTING, ids=lambda way: way.backend)
@pytest.mark.parametrize("path", range(3), ids=["neurons", "another token", "sets"])
def test_threads_move_nothing_but_rounding(way, path, clf, few, threads):
    values = random_values(clf, "HOL", "LOL")
    tables = []
    for count in (1, 2):
        threads(count)
        result = search(clf, few, values, **tokens_and_sets(clf)[path], **way.options)
        assert result.manifest["run"]["threads"] == count
        tables.append(result.frame())
    for column in MEASURED:
        way.check(tables[1][column], tables[0][column])


@NATIVE
def test_threads_move_nothing_but_rounding_in_a_real_model(bundled, few, threads):
    values = mean_activations(bundled, {"HOL": PAIRS[:3]})
    tables = []
    for count in (1, 2):
        threads(count)
        tables.append(search(bundled, few[:1], values, sites=["L1.AO.*", "L3.K.*"], backend="cpu").frame())
    CPU.check(tables[1]["nie"], tables[0]["nie"])


@pytest.mark.parametrize("way", [FLOAT64, pytest.param(CPU, marks=NATIVE)], ids=lambda way: way.backend)
@pytest.mark.parametrize("carried", [1, 19])
@pytest.mark.parametrize("path", range(3), ids=["neurons", "another token", "sets"])
def test_a_small_memory_budget_gives_the_same_numbers(way, carried, path, clf, few):
    backend = choose_backend(way.backend, way.precision)
    longest = max(len(clf.encode(pair)) for pair in few[:1])
    rows = 2 * longest if path else longest  # the general path holds twice as much
    budget = base_run_bytes(clf.shape, longest, backend) + carried * candidate_bytes(clf.shape, rows, backend)
    values = random_values(clf, "HOL", "LOL")
    options = {**tokens_and_sets(clf)[path], **way.options}
    small, plain = (search(clf, few[:1], values, memory=memory, **options).frame() for memory in (budget, None))
    for column in MEASURED:
        way.check(small[column], plain[column])


@NATIVE
@pytest.mark.parametrize("as_set", [False, True])
def test_a_budget_that_is_too_small_says_what_is_needed_and_that_is_enough(as_set, bundled, few):
    values = mean_activations(bundled, {"HOL": PAIRS[:2]})
    members = NeuronSet.parse(["L0.O.3", "L3.K.5"], bundled.shape)
    sites = {"s": members} if as_set else members
    tokens = len(bundled.encode(few[0]))
    with pytest.raises(InputError, match=f"budget of 2 MiB is too small for a sample of {tokens} tokens") as caught:
        search(bundled, few[0], values, sites=sites, memory=2 * MIB, backend="cpu")
    needed = float(re.search(r"at least ([\d.]+) MiB", str(caught.value)).group(1))
    found = search(bundled, few[0], values, sites=sites, memory=needed * MIB, backend="cpu").frame()
    plain = search(bundled, few[0], values, sites=sites, backend="cpu").frame()
    np.testing.assert_allclose(found["nie"], plain["nie"], rtol=1e-4)


@NATIVE
@pytest.mark.parametrize("convention", ["linear", "hook"])
def test_backends_and_precisions_agree(convention, clf, few):
    values = random_values(clf, "HOL", "LOL", convention=convention)
    found = {way: search(clf, few, values, convention=convention, **way.options) for way in (FLOAT64, FP32, CPU)}
    for way in (FP32, CPU):
        for column in MEASURED:
            way.check(found[way].frame()[column], found[FLOAT64].frame()[column])
            way.check(found[way].contrast()[column], found[FLOAT64].contrast()[column])


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=NATIVE)])
def test_bf16_products_keep_three_digits_of_the_larger_effects(backend, few):
    from pyneuro import ops

    if backend == "cpu" and not ops.native().bf16:
        pytest.skip("this CPU has no bf16 products")
    clf = make_tiny(layers=3, hidden=32, heads=4, intermediate=64, attention_scale=1.0)
    values = random_values(clf, "z")
    rough = search(clf, few, values, backend=backend, precision="bf16").frame()["nie"]
    exact = search(clf, few, values, **FLOAT64.options).frame()["nie"]
    large = exact.abs() > exact.abs().quantile(0.5)
    assert (rough - exact)[large].abs().div(exact[large].abs()).median() < 5e-3
    assert np.corrcoef(rough, exact)[0, 1] > 0.9999


def test_a_search_does_not_depend_on_the_one_before_it(clf, few):
    values = random_values(clf, "HOL", "LOL")
    alone = search(clf, few, values, sites="L1.*.*", backend="reference").frame()
    search(
        clf, PAIRS, random_values(clf, seed=9), sites=[f"L*.{m}.0" for m in MODULES], token="all", backend="reference"
    )
    torch.manual_seed(123)
    np.random.seed(7)
    pd.testing.assert_frame_equal(search(clf, few, values, sites="L1.*.*", backend="reference").frame(), alone)


def test_a_search_leaves_random_numbers_threads_and_gradient_mode_alone(clf, few):
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    with torch.enable_grad():
        search(clf, few, random_values(clf), sites="L1.*.*", backend="reference")
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == before[1:]


@pytest.mark.parametrize("treatments", [1, 2])
def test_groups_launched_together_and_ahead_give_the_same_numbers(treatments, monkeypatch):
    """As on a device: the groups of a layer are carried together, and later layers begun before these are counted."""
    clf = make_tiny()
    values = random_values(clf, *("HOL", "LOL")[:treatments])
    alone = search(clf, PAIRS[:3], values, **FP32.options)
    monkeypatch.setattr(ExactEvaluator, "launches", True)
    together = search(clf, PAIRS[:3], values, **FP32.options)
    pd.testing.assert_frame_equal(alone.frame()[MEASURED], together.frame()[MEASURED], rtol=1e-4, atol=1e-9)


def test_the_next_base_run_is_begun_before_a_samples_last_layers_are_counted(monkeypatch):
    clf, events = make_tiny(), []
    begin, count = ExactEvaluator.launch_begin, Sweep._count

    def beginning(self, encodings):
        events.append(f"begin {encodings[0].id}")
        return begin(self, encodings)

    def counting(self, tile, dirty):
        events.append(f"count {self.encodings[tile.block.samples.start].id}")
        count(self, tile, dirty)

    monkeypatch.setattr(ExactEvaluator, "launches", True)
    monkeypatch.setattr(ExactEvaluator, "launch_begin", beginning)
    monkeypatch.setattr(Sweep, "_count", counting)
    search(clf, PAIRS[:3], random_values(clf), progress=False, **FP32.options)
    ids = [e.split()[1] for e in events if e.startswith("begin")][-3:]
    for one, following in pairwise(ids):
        last = len(events) - 1 - events[::-1].index(f"count {one}")
        assert events.index(f"begin {following}") < last


def test_what_was_launched_is_counted_before_the_next_samples_error(monkeypatch):
    clf, counted = make_tiny(), []
    begin, count = ExactEvaluator.launch_begin, Sweep._count

    def beginning(self, encodings):
        def failing():
            raise InputError("activations are NaN")

        return failing if encodings[0].id == PAIRS[2].id else begin(self, encodings)

    def counting(self, tile, dirty):
        counted.append((tile.block.samples.start, tile.group.name))
        count(self, tile, dirty)

    monkeypatch.setattr(ExactEvaluator, "launches", True)
    monkeypatch.setattr(ExactEvaluator, "launch_begin", beginning)
    monkeypatch.setattr(Sweep, "_count", counting)
    with pytest.raises(InputError, match="NaN"):
        search(clf, PAIRS[:3], random_values(clf), progress=False, **FP32.options)
    assert len(counted) == len(set(counted)) == 2 * len(list(clf.shape.groups()))
