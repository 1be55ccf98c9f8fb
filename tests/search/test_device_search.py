"""Searches whose work is on a device, by its kernels on the host and on a GPU: the same answers as on the CPU."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import pyneuro as pn
from pyneuro.engine import at_once, plan
from pyneuro.engine.backend import Backend
from pyneuro.engine.recording import Recording
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.search import exact as search_exact
from pyneuro.search.estimate import phase_one
from tests.device import Device
from tests.search.oracle import random_values
from tests.tiny import PAIRS, SamplePair, crossed, make_tiny
from tests.tracing import recording_by_trace

MEASURED = ["nie", "se", "log_nie", "diff", "ratio_of_means", "nie_entailment", "min", "max"]
COUNTED = ["n", "n_neutral"]


@pytest.fixture(scope="module")
def clf() -> Classifier:
    return make_tiny(layers=3, hidden=16, heads=2, intermediate=24, attention_scale=1.0)


@pytest.fixture(scope="module")
def many() -> list[SamplePair]:
    return crossed(2)


@pytest.fixture
def on_device(device: Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pyneuro.search`` by the device kernels, in fp32 unless told."""

    def search(*args: Any, precision: str = "fp32", **options: Any) -> pn.Result:
        with monkeypatch.context() as patch:
            module = importlib.import_module("pyneuro.search.search")
            patch.setattr(module, "choose_backend", lambda backend, asked: device.backend(asked))
            return pn.search(*args, precision=precision, progress=False, **options)

    return search


def columns(result: pn.Result) -> list[pd.DataFrame]:
    """By treatment, and of the contrast."""
    frame = result.frame()
    by_treatment = [part for _, part in frame.groupby("treatment")] if "treatment" in frame else [frame]
    return [*by_treatment, *([result.contrast()] if result.has_contrast else [])]


def compare(found: pn.Result, wanted: pn.Result, tolerance: float) -> None:
    for got, want in zip(columns(found), columns(wanted), strict=True):
        for column in MEASURED:
            size = float(np.nan_to_num(want[column].abs().max()))
            np.testing.assert_allclose(got[column], want[column], rtol=tolerance, atol=tolerance * size, err_msg=column)
        pd.testing.assert_frame_equal(got[COUNTED], want[COUNTED])


@pytest.mark.parametrize("response", ["probability", "kl"])
@pytest.mark.parametrize("treatments", [1, 2])
@pytest.mark.parametrize("method", ["exact", "linear"])
def test_the_same_as_the_reference(
    on_device: Any, clf: Classifier, many: list[SamplePair], method: str, treatments: int, response: str
) -> None:
    values = random_values(clf, *("HOL", "LOL")[:treatments])
    options = {"sites": ["L0.*.*", "L1.*.*", "L2.*.*"], "method": method, "response": response}
    wanted = pn.search(clf, many, values, backend="reference", precision="float64", **options)
    compare(on_device(clf, many, values, **options), wanted, 2e-3)


@pytest.mark.parametrize("convention", ["linear", "hook"])
@pytest.mark.parametrize("depth", ["inside", 0, 1])
def test_every_depth_and_convention(
    on_device: Any, clf: Classifier, many: list[SamplePair], convention: str, depth: str | int
) -> None:
    options = {"intervention": "remove", "convention": convention, "method": "linear", "depth": depth}
    wanted = pn.search(clf, many[:3], backend="reference", precision="float64", **options)
    compare(on_device(clf, many[:3], **options), wanted, 2e-3)


@pytest.fixture
def repeated() -> list[SamplePair]:
    """Different texts, most of them of one length."""
    rng = np.random.default_rng(0)
    return [
        SamplePair(f"{pair.id}-{n}", " ".join(rng.permutation(pair.premise.split())), pair.hypothesis, pair.label)
        for n in range(6)
        for pair in PAIRS[: 1 if n else 2]
    ]


@pytest.fixture
def recorded(device: Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``pyneuro.search`` on a device that records, and what it recorded; on the host a trace is what it records."""
    made: list[Recording] = []
    recording = recording_by_trace(monkeypatch) if device.device.type == "cpu" else Recording
    monkeypatch.setattr(at_once, "Recording", lambda *args: made.append(recording(*args)) or made[-1])
    # Operations by the dispatcher, which can be traced.
    where = device.backend("fp32").device
    module = importlib.import_module("pyneuro.search.search")
    monkeypatch.setattr(module, "choose_backend", lambda _, precision: Backend("cuda", precision, where))

    def search(*args: Any, **options: Any) -> tuple[pn.Result, list[int]]:
        made.clear()
        return pn.search(*args, progress=False, **options), [len(recording._graphs) for recording in made]

    return search


@pytest.mark.parametrize(
    ("method", "intervention", "convention", "precision"),
    [
        ("exact", "replace", "linear", "fp16"),
        ("exact", "remove", "hook", "fp32"),
        ("linear", "replace", "hook", "fp32"),
        ("linear", "remove", "linear", "fp32"),
    ],
)
def test_samples_of_a_length_are_recorded(
    recorded: Any,
    clf: Classifier,
    repeated: list[SamplePair],
    method: str,
    intervention: str,
    convention: str,
    precision: Any,
) -> None:
    values = random_values(clf, "HOL", "LOL", convention=convention) if intervention == "replace" else None
    options = {"convention": convention, "intervention": intervention, "method": method}
    options |= {"depth": "inside"} if method == "linear" else {}
    wanted = pn.search(clf, repeated, values, backend="reference", precision="float64", progress=False, **options)
    found, graphs = recorded(clf, repeated, values, precision=precision, **options)
    compare(found, wanted, 2e-3 if precision == "fp32" else 2e-2)
    assert graphs == [1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_layers_are_launched_ahead_where_a_sample_is_more_than_a_chunk(
    on_device: Any, clf: Classifier, many: list[SamplePair], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    values = random_values(clf, "HOL", "LOL")
    wanted = on_device(clf, many, values, precision=precision)
    monkeypatch.setattr(plan, "DEVICE_MOST_CANDIDATES", 50)
    with monkeypatch.context() as patch:
        patch.setattr(search_exact.ExactAtOnce, "launch_begin", None)
        compare(on_device(clf, many, values, precision=precision), wanted, 1e-5 if precision == "fp32" else 2e-2)


def test_what_outgrows_its_unit_is_computed_again(
    on_device: Any, clf: Classifier, many: list[SamplePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sites": ["L0.AO.*", "L0.V.*"], "intervention": "remove"}
    wanted = on_device(clf, many, precision="fp16", **options)
    call = Recording.__call__

    def overflowing(self: Recording, *args: Any) -> Any:
        ids, delta, *rest = call(self, *args)
        return ids, delta.index_fill(0, torch.tensor([3], device=delta.device), torch.inf), *rest

    monkeypatch.setattr(Recording, "__call__", overflowing)
    compare(on_device(clf, many, precision="fp16", **options), wanted, 1e-5)


def test_half_precision_predicts_and_a_floor_leaves_samples_out(
    on_device: Any, clf: Classifier, many: list[SamplePair]
) -> None:
    values = random_values(clf, "HOL", "LOL")
    floor = float(np.median(pn.evaluation.predict(clf, many)[:, 0]))
    options = {"method": "linear", "probability_floor": floor}
    wanted = pn.search(clf, many, values, backend="reference", precision="float64", **options)
    found = on_device(clf, many, values, precision="fp16", **options)
    left_out = wanted.manifest["run"]["left_out_below_floor"]
    assert left_out and found.manifest["run"]["left_out_below_floor"] == left_out
    compare(found, wanted, 2e-2)


@pytest.mark.parametrize("stop", [0, 1, 7, 15])
def test_a_stopped_estimate_goes_on(
    on_device: Any, clf: Classifier, many: list[SamplePair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    values = random_values(clf, "HOL", "LOL")
    options = {"sites": ["L0.AO.*", "L1.I.*", "L0.K.*"], "method": "estimate", "tolerance": 0.5}
    wanted = on_device(clf, many, values, **options)
    exact = pn.search(clf, many, values, sites=options["sites"], backend="reference", precision="float64")
    inside = wanted.frame()
    off = np.abs(inside["nie"] - exact.frame()["nie"])
    assert (off <= 4 * inside["design_se"] + 1e-4 * off.max() + 1e-9).mean() > 0.9

    predict = phase_one.OnDevice.predict

    def stopping(self: phase_one.OnDevice, sample: int) -> Any:
        if sample == stop:
            raise KeyboardInterrupt
        return predict(self, sample)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(phase_one.OnDevice, "predict", stopping)
        on_device(clf, many, values, out=tmp_path, **options)
    found = on_device(clf, many, values, out=tmp_path, resume=True, **options)
    pd.testing.assert_frame_equal(found.frame(), wanted.frame())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "linear", "depth": "inside"}, r"L0\.O\.7 on sample '0-0' is NaN or infinite"),
        ({"method": "exact"}, r"patching L0\.O\.7 of sample '0-0' by 1e\+200 gives a NaN or infinite"),
    ],
)
def test_an_effect_that_is_not_finite_names_neuron_and_sample(
    on_device: Any, clf: Classifier, many: list[SamplePair], options: dict[str, Any], message: str
) -> None:
    arrays = {("HOL", 0, "O"): np.where(np.arange(16) == 7, 1e200, 0.0)}
    values = pn.Values.from_arrays(arrays, convention="linear")
    with pytest.raises(InputError, match=message):
        on_device(clf, many, values, sites="L0.O.*", **options)
