"""A search that was stopped, in whatever way, goes on with ``resume=True`` and ends as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pyneuro.errors import InputError, ResumeError
from pyneuro.results import Result, load_result
from pyneuro.search import search
from pyneuro.search.exact import ExactEvaluator
from pyneuro.sites import NeuronSet
from tests.search.conftest import NATIVE
from tests.search.oracle import Hooked, random_values, softmax
from tests.tiny import PAIRS, make_tiny

ROOT = Path(__file__).parents[2]
SEARCHED = ["L0.Q.*", "L1.V.*", "L1.I.*", "L2.O.*"]
GROUPS = ["L0.Q", "L1.I", "L1.V", "L2.O"]  # as they are on disk


class Stopper:
    """Counts the tiles that are computed and raises before a given one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tiles: list[str] = []
        self.stop_before: int | None = None
        self.error: type[BaseException] = KeyboardInterrupt
        compute = {"neurons": ExactEvaluator.neurons, "sets": ExactEvaluator.sets}

        def neurons(evaluator, state, layer, module, index, z):
            self.tick(f"L{layer}.{module}")
            return compute["neurons"](evaluator, state, layer, module, index, z)

        def sets(evaluator, state, *arguments):
            self.tick("sets")
            return compute["sets"](evaluator, state, *arguments)

        monkeypatch.setattr(ExactEvaluator, "neurons", neurons)
        monkeypatch.setattr(ExactEvaluator, "sets", sets)

    def tick(self, group: str) -> None:
        if len(self.tiles) == self.stop_before:
            raise self.error
        self.tiles.append(group)

    def after(self, count: int | None, error: type[BaseException] = KeyboardInterrupt) -> Stopper:
        """Start counting again and stop after `count` tiles (None: never)."""
        self.tiles, self.stop_before, self.error = [], count, error
        return self


@pytest.fixture
def stopper(monkeypatch: pytest.MonkeyPatch) -> Stopper:
    return Stopper(monkeypatch)


@pytest.fixture
def run(clf):
    """A search of four groups over all eight pairs, two treatments: 32 tiles, reference backend."""

    def start(**changes) -> Result:
        options = {"pairs": PAIRS, "values": random_values(clf, "HOL", "LOL"), "sites": SEARCHED}
        options |= {"backend": "reference", **changes}
        return search(options.pop("clf", clf), options.pop("pairs"), options.pop("values"), **options)

    return start


@pytest.fixture(scope="module")
def whole(clf) -> Result:
    """What ``run()`` gives when nothing stops it."""
    return search(clf, PAIRS, random_values(clf, "HOL", "LOL"), sites=SEARCHED, backend="reference")


def assert_identical(a: Result, b: Result) -> None:
    """Bit for bit."""
    pd.testing.assert_frame_equal(a.frame(), b.frame(), check_exact=True)
    pd.testing.assert_frame_equal(a.contrast(), b.contrast(), check_exact=True)
    for key in ("settings", "ids", "result"):
        assert a.manifest[key] == b.manifest[key]


def interrupted(run, stopper, folder, count, error=KeyboardInterrupt, **changes) -> None:
    stopper.after(count, error)
    with pytest.raises(error):
        run(out=folder, **changes)
    stopper.after(None)


# --- interruption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 18, 31])
def test_an_interrupted_search_ends_bit_for_bit_as_one_that_was_not(count, run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, count)
    assert_identical(run(out=tmp_path, resume=True), whole)
    assert len(stopper.tiles) == 32 - count  # and no finished tile is computed again
    assert_identical(load_result(tmp_path), whole)


@pytest.mark.parametrize("count", [1, 5])
def test_so_does_an_interrupted_search_of_sets(count, run, stopper, clf, tmp_path):
    sets = {name: NeuronSet.parse(name, clf.shape) for name in SEARCHED}
    whole = run(sites=sets)
    interrupted(run, stopper, tmp_path, count, sites=sets)
    assert_identical(run(sites=sets, out=tmp_path, resume=True), whole)
    assert len(stopper.tiles) == 8 - count


@NATIVE
def test_and_one_with_the_native_kernels(run, stopper, tmp_path):
    whole = run(backend="cpu")
    interrupted(run, stopper, tmp_path, 6, backend="cpu")
    assert_identical(run(backend="cpu", out=tmp_path, resume=True), whole)


def test_a_search_may_be_interrupted_again_and_again(run, whole, stopper, tmp_path):
    for _ in range(4):
        stopper.after(7)
        with pytest.raises(KeyboardInterrupt):
            run(out=tmp_path, resume=True)
    stopper.after(None)
    assert_identical(run(out=tmp_path, resume=True), whole)
    assert len(stopper.tiles) == 4


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, InputError, SystemExit])
def test_any_error_keeps_the_finished_tiles(error, run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 9, error)
    assert_identical(run(out=tmp_path, resume=True), whole)


def test_a_floor_leaves_out_the_same_samples_after_a_stop(run, stopper, clf, tmp_path):
    probability = sorted(softmax(Hooked(clf).run(pair)[0])[0] for pair in PAIRS)
    options = {"probability_floor": (probability[3] + probability[4]) / 2}
    whole = run(**options)
    assert (whole.frame()["n"] == 4).all()
    interrupted(run, stopper, tmp_path, 9, **options)
    assert_identical(run(out=tmp_path, resume=True, **options), whole)


@pytest.mark.parametrize("count", [3, 17])
def test_a_bootstrap_goes_on_with_the_same_weights(count, run, whole, stopper, tmp_path):
    options = {"bootstrap": 40}
    once = run(**options)
    interrupted(run, stopper, tmp_path, count, **options)
    assert_identical(run(out=tmp_path, resume=True, **options), once)
    assert len(stopper.tiles) == 32 - count
    pd.testing.assert_frame_equal(once.frame()[whole.frame().columns], whole.frame(), check_exact=True)
    for table in (once.frame(), once.contrast()):
        assert table[["boot_se", "boot_low", "boot_high"]].notna().all(axis=None)
        assert (table["boot_se"] / table["se"]).median() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("change", [{"ci": 0.8}, {"memory": 2**30}, {"progress": True}], ids=lambda c: next(iter(c)))
def test_what_does_not_change_the_samples_effects_may_change_at_a_resume(change, run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 9)
    found = run(out=tmp_path, resume=True, **change).frame()
    pd.testing.assert_frame_equal(found, run(**change).frame(), rtol=1e-5, atol=1e-9)
    assert found["ci_high"][0] < whole.frame()["ci_high"][0] or "ci" not in change


def test_a_killed_process_loses_at_most_the_tile_it_was_in(run, whole, stopper, tmp_path):
    """kill -9, at a moment the child announces: no clock takes part."""
    child = textwrap.dedent(
        """
        import sys, time
        from pyneuro.search import search
        from pyneuro.search.exact import ExactEvaluator
        from tests.search.oracle import random_values
        from tests.search.test_resume import SEARCHED
        from tests.tiny import PAIRS, make_tiny

        driver = sys.modules["pyneuro.search.driver"]
        driver.SAVE_SECONDS, driver.SAVE_SHARE = -1.0, float("inf")  # every tile reaches the disk at once
        compute, tiles = ExactEvaluator.neurons, []

        def neurons(*arguments):
            tiles.append(1)
            if len(tiles) == 14:
                print("ready", flush=True)
                time.sleep(600)
            return compute(*arguments)

        ExactEvaluator.neurons = neurons
        clf = make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0)
        values = random_values(clf, "HOL", "LOL")
        search(clf, PAIRS, values, sites=SEARCHED, backend="reference", out=sys.argv[1])
        """
    )
    command = [sys.executable, "-c", child, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.kill()
    assert said == "ready\n"
    assert sorted(p.stem for p in (tmp_path / "tiles").glob("*.npz")) == GROUPS
    result = run(out=tmp_path, resume=True)
    assert len(stopper.tiles) == 32 - 13
    assert_identical(result, whole)


# --- files that are not whole ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 200, -1], ids=["empty", "one byte", "a head", "all but a byte"])
def test_only_the_group_of_a_truncated_tile_starts_again_with_a_warning(left, run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 18)  # four rounds of four groups, and L0.Q and L1.V a fifth time
    tile = tmp_path / "tiles" / "L1.V.npz"
    tile.write_bytes(tile.read_bytes()[:left])
    with pytest.warns(UserWarning, match=r"'L1\.V' are damaged"):
        result = run(out=tmp_path, resume=True)
    assert_identical(result, whole)
    assert {group: stopper.tiles.count(group) for group in GROUPS} == {"L0.Q": 3, "L1.V": 8, "L1.I": 4, "L2.O": 4}


def test_a_half_written_tile_is_no_tile(run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 18)
    tiles = tmp_path / "tiles"
    half = tiles / f".L2.O.npz.{2**22 + 5}-0badcafe.partial"  # of a process that cannot exist
    half.write_bytes((tiles / "L2.O.npz").read_bytes()[:300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_identical(run(out=tmp_path, resume=True), whole)
    assert len(stopper.tiles) == 32 - 18
    assert not half.exists()


def test_a_missing_tile_starts_its_group_again(run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 18)
    (tmp_path / "tiles" / "L1.I.npz").unlink()
    assert_identical(run(out=tmp_path, resume=True), whole)


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_without_whole_settings_nothing_is_continued(content, run, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 5)
    settings = tmp_path / "settings.json"
    settings.unlink()
    if content is not None:
        settings.write_text(content)
    with pytest.raises(InputError, match="settings"):
        run(out=tmp_path, resume=True)


# --- what may be continued with what ---------------------------------------------------------------------------------


def other_model(clf):
    return {"clf": make_tiny(layers=3, hidden=12, heads=2, intermediate=20, attention_scale=1.0, seed=1)}


REFUSED = {
    "model.digest": lambda clf: {**other_model(clf), "values": random_values(**other_model(clf)), "sites": SEARCHED},
    "data.pairs": lambda clf: {"pairs": PAIRS[:7]},
    "data.digest": lambda clf: {"pairs": PAIRS[::-1]},
    "values.digest": lambda clf: {"values": random_values(clf, "HOL", "LOL", seed=5)},
    "treatments": lambda clf: {"values": random_values(clf, "HOL", "MOL")},
    "sites": lambda clf: {"sites": [*SEARCHED, "L2.K.1"]},
    "response.name": lambda clf: {"response": "odds"},
    "response.target": lambda clf: {"target": "neutral"},
    "response.foil": lambda clf: {"response": "logit_difference", "foil": "neutral"},
    "convention": lambda clf: {"values": random_values(clf, "HOL", "LOL", convention="hook"), "convention": "hook"},
    "intervention.kind": lambda clf: {"intervention": "add"},
    "intervention.strength": lambda clf: {"intervention": "add", "strength": 0.5},
    "token": lambda clf: {"token": 1},
    "probability_floor": lambda clf: {"probability_floor": 0.01},
    "bootstrap": lambda clf: {"bootstrap": 20},
    "precision": lambda clf: {"precision": "float64"},
}


@pytest.mark.parametrize("setting", REFUSED)
def test_partial_results_of_another_search_are_refused_and_the_difference_named(
    setting, run, whole, stopper, clf, tmp_path
):
    interrupted(run, stopper, tmp_path, 6)
    with pytest.raises(ResumeError, match=rf"\n  {setting}: .* in the folder, .* now"):
        run(out=tmp_path, resume=True, **REFUSED[setting](clf))
    assert stopper.tiles == []
    assert_identical(run(out=tmp_path, resume=True), whole)  # what was there is still good


def test_a_label_more_or_less_is_other_data(run, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 6)
    with pytest.raises(ResumeError, match=r"data\.digest"):
        run(out=tmp_path, resume=True, pairs=[replace(PAIRS[0], label=None), *PAIRS[1:]])


def test_only_what_differs_is_named(run, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 6)
    with pytest.raises(ResumeError) as caught:
        run(out=tmp_path, resume=True, response="kl")
    assert str(caught.value).count(" in the folder, ") == 1
    assert '"probability" in the folder, "kl" now' in str(caught.value)


def test_sets_and_neurons_do_not_continue_each_other(run, stopper, clf, tmp_path):
    interrupted(run, stopper, tmp_path, 6)
    with pytest.raises(ResumeError, match="sites"):
        run(out=tmp_path, resume=True, sites={"s": NeuronSet.parse(SEARCHED, clf.shape)})


def test_partial_results_are_not_started_over_by_accident(run, whole, stopper, tmp_path):
    interrupted(run, stopper, tmp_path, 6)
    with pytest.raises(InputError, match=r"holds partial results .* resume=True"):
        run(out=tmp_path)
    assert stopper.tiles == []
    assert_identical(run(out=tmp_path, resume=True), whole)


def test_resuming_where_nothing_is_just_begins(run, whole, stopper, tmp_path):
    assert_identical(run(out=tmp_path / "not there yet", resume=True), whole)


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_finished_search_leaves_its_result_and_nothing_else(run, stopper, tmp_path):
    folder = tmp_path / "deep" / "inside"
    result = run(out=folder)
    assert sorted(p.name for p in folder.iterdir()) == ["contrast.parquet", "manifest.json", "neurons.parquet"]
    assert_identical(load_result(folder), result)


def test_so_does_a_resumed_one_and_files_of_others_stay(run, stopper, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    interrupted(run, stopper, tmp_path, 6)
    run(out=tmp_path, resume=True)
    left = ["contrast.parquet", "manifest.json", "neurons.parquet", "notes.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left


def test_without_a_folder_nothing_is_written(run, stopper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run()
    assert list(tmp_path.iterdir()) == []
