"""What a search says on standard error: the plan, the time it will take, how far it is, and how to go on."""

from __future__ import annotations

import re
import sys

import pandas as pd
import pytest

from pyneuro.results import Result
from pyneuro.search import search
from pyneuro.search.exact import ExactEvaluator
from pyneuro.search.progress import duration
from pyneuro.sites import NeuronSet
from tests.search.oracle import random_values

SITES = ["L0.AO.*", "L1.K.*", "L2.I.*"]


@pytest.fixture
def told(clf, few, capsys):
    """Run a search and give what it wrote to standard error; standard output must stay empty."""

    def run(**options) -> str:
        options = {"sites": SITES, "backend": "reference", **options}
        search(clf, few, random_values(clf, "HOL", "LOL"), **options)
        out, err = capsys.readouterr()
        assert out == ""
        return err

    return run


def test_the_plan_names_neurons_samples_treatments_and_runs(told):
    said = told(progress=True)
    assert "plan: 44 neurons x 4 samples x 2 treatments (HOL, LOL) = 352 patched runs\n" in said
    assert re.search(r"^about \d+ s, from a short calibration$", said, re.M)


def test_the_bar_ends_full_with_a_rate(told):
    last = told(progress=True).split("\r")[-1]
    assert "100.0 %" in last
    assert re.search(r"[\d,]+ patched runs/s", last)
    assert "left" in last


def test_sets_are_called_sets(told, clf):
    sets = {name: NeuronSet.parse(name, clf.shape) for name in SITES}
    assert "plan: 3 sets x 4 samples x 2 treatments (HOL, LOL) = 24 patched runs" in told(sites=sets, progress=True)


@pytest.mark.parametrize("progress", [False, None])
def test_nothing_is_said_when_not_asked_or_not_to_a_terminal(progress, told):
    assert told(progress=progress) == ""


def test_a_terminal_is_told(told, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert "plan: " in told()


@pytest.mark.parametrize("token", [0, 3, "all"])
def test_saying_so_changes_no_number(token, clf, few):
    values = random_values(clf, "HOL", "LOL")
    loud, quiet = (
        search(clf, few, values, sites=SITES, token=token, progress=p, backend="reference").frame()
        for p in (True, False)
    )
    pd.testing.assert_frame_equal(loud, quiet, check_exact=True)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_search_says_how_to_go_on_and_then_where_it_goes_on(stop, told, capsys, monkeypatch, tmp_path):
    compute, calls = ExactEvaluator.neurons, []

    def neurons(*arguments):
        calls.append(1)
        if len(calls) == 9:  # two of them are the calibration's
            raise stop
        return compute(*arguments)

    monkeypatch.setattr(ExactEvaluator, "neurons", neurons)
    with pytest.raises(stop):
        told(progress=True, out=tmp_path)
    said = capsys.readouterr().err
    hint = f"stopped; finished tiles are kept in {tmp_path}: run again with resume=True (--resume) to go on\n"
    assert (hint in said) == (stop is KeyboardInterrupt)
    again = told(progress=True, out=tmp_path, resume=True)
    assert "resuming: 6 of 12 tiles are done\n" in again
    assert "100.0 %" in again


def test_a_search_stopped_while_saving_only_saves(told, monkeypatch, tmp_path, clf, few):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
        during.setattr(Result, "save", interrupt)
        told(out=tmp_path)
    monkeypatch.setattr(ExactEvaluator, "begin", interrupt)  # no sample is run again
    said = told(progress=True, out=tmp_path, resume=True)
    assert "resuming: 12 of 12 tiles are done\n" in said
    assert "calibration" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["contrast.parquet", "manifest.json", "neurons.parquet"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (41.6, "42 s"),
        (59.7, "1 min 0 s"),
        (425, "7 min 5 s"),
        (3599, "59 min 59 s"),
        (12_000, "3 h 20 min"),
        (86_399, "23 h 59 min"),
        (9 * 86_400 + 4 * 3600 + 59, "9 d 4 h"),
    ],
)
def test_lengths_of_time_are_for_people(seconds, text):
    assert duration(seconds) == text
