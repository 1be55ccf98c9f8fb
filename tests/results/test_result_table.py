"""The result table: what its rows say, how it ranks, and what comes back from disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pyneuro.effects import Moments, Response
from pyneuro.errors import InputError
from pyneuro.results import Result, load_result
from pyneuro.sites import ModelShape, NeuronSet

SHAPE = ModelShape(layers=2, hidden=8, heads=2, intermediate=16)
LABELS = ("entailment", "neutral", "contradiction")


def moments(n: int, samples: int = 6, seed: int = 0) -> tuple[Moments, Moments, Moments]:
    """Moments of two treatments and of their contrast, from random logits and differences."""
    rng = np.random.default_rng(seed)
    response = Response("probability", 0)
    first, second, contrast = Moments.zeros(n), Moments.zeros(n), Moments.zeros(n)
    for sample in range(samples):
        logits = rng.standard_normal(3)
        a, b = (response.terms(logits, 0.1 * rng.standard_normal((n, 3))) for _ in range(2))
        for target, terms in ((first, a), (second, b), (contrast, a - b)):
            target.update(terms, LABELS[sample % 3], sample)
    return first, second, contrast


def neuron_result(sites: str | list[str] = "all") -> Result:
    neurons = NeuronSet.parse(sites, SHAPE)
    first, second, contrast = moments(len(neurons))
    return Result.from_moments(neurons, {"HOL": first, "LOL": second}, contrast, {"settings": {"low": 20}})


def set_result() -> Result:
    sets = {"first half": NeuronSet.parse("L0.Q.*", SHAPE), "gaps": NeuronSet(SHAPE, [0, 1, 5, 7, 8])}
    return Result.from_moments(sets, {"HOL": moments(2)[0]}, None, {})


def test_there_is_one_row_a_neuron_and_treatment() -> None:
    frame = neuron_result(["L1.I.3", "L0.Q.2"]).frame()
    assert frame["site"].tolist() == ["L0.Q.2", "L1.I.3"] * 2
    assert frame["layer"].tolist() == [0, 1] * 2
    assert frame["module"].tolist() == ["Q", "I"] * 2
    assert frame["neuron"].tolist() == [2, 3] * 2
    assert frame["treatment"].tolist() == ["HOL", "HOL", "LOL", "LOL"]
    assert frame["n"].tolist() == [6] * 4
    assert {"nie", "se", "ci_low", "ci_high", "log_nie", "diff", "nie_neutral", "n_neutral"} <= set(frame.columns)


def test_the_statistics_are_those_of_the_moments() -> None:
    neurons = NeuronSet.parse("L*.AO.*", SHAPE)
    first, second, contrast = moments(len(neurons))
    result = Result.from_moments(neurons, {"HOL": first, "LOL": second}, contrast, {}, ci=0.5)
    frame = result.frame()
    for treatment, source in (("HOL", first), ("LOL", second)):
        rows = frame[frame["treatment"] == treatment]
        for column, values in source.summary(0.5).items():
            np.testing.assert_array_equal(rows[column].to_numpy(), values)
    np.testing.assert_array_equal(result.contrast()["se"].to_numpy(), contrast.summary(0.5)["se"])
    np.testing.assert_allclose(result.contrast()["nie"], first.summary()["nie"] - second.summary()["nie"], atol=1e-15)
    assert set(result.contrast()["treatment"]) == {"HOL - LOL"}


def test_columns_of_any_other_method_make_a_result_too(tmp_path: Path) -> None:
    neurons = NeuronSet.parse("L0.Q.*", SHAPE)
    first, second, contrast = (m.summary() for m in moments(8))
    tables = {"HOL": {**first, "screen": np.arange(8.0)}, "LOL": {**second, "screen": np.zeros(8)}}
    result = Result.from_columns(neurons, tables, contrast, {}, ci=0.95)
    assert result.top(1, "HOL", by="screen")["site"].tolist() == ["L0.Q.7"]
    pd.testing.assert_frame_equal(load_result(result.save(tmp_path)).frame(), result.frame())
    plain = Result.from_moments(neurons, dict(zip(("HOL", "LOL"), moments(8), strict=False)), None, {})
    pd.testing.assert_frame_equal(plain.frame(), result.frame().drop(columns="screen"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t["LOL"].pop("se"), "'LOL' and 'HOL' differ in the columns se; give both the same"),
        (lambda t: [columns.pop("se") for columns in t.values()], "'HOL' lacks the columns se; fill with nan"),
        (lambda t: [c.update(site=np.zeros(8)) for c in t.values()], r"columns \['site'\] of 'HOL' are written by"),
        (
            lambda t: t["HOL"].update(n=np.zeros(3)),
            r"columns of 'HOL' describe 3 neurons \('n'\) but there are 8 sites",
        ),
    ],
)
def test_columns_that_make_no_table_are_refused(change: Callable[[dict], object], says: str) -> None:
    tables = {name: m.summary() for name, m in zip(("HOL", "LOL"), moments(8), strict=False)}
    change(tables)
    with pytest.raises(InputError, match=says):
        Result.from_columns(NeuronSet.parse("L0.Q.*", SHAPE), tables, None, {})


def test_a_set_is_a_row_with_its_name_and_size_and_keeps_its_members() -> None:
    result = set_result()
    frame = result.frame()
    assert frame["site"].tolist() == ["first half", "gaps"]
    assert frame["size"].tolist() == [8, 5]
    assert frame[["layer", "module", "neuron"]].isna().all(axis=None)
    assert result.sets()["gaps"] == NeuronSet(SHAPE, [0, 1, 5, 7, 8])
    assert result.manifest["result"]["sets"] == {"first half": "0:8", "gaps": "0:2,5:6,7:9"}


def test_the_frame_is_a_copy() -> None:
    result = neuron_result()
    for table in (result.frame(), result.contrast()):
        table["nie"] = 0.0
    assert result.frame()["nie"].abs().max() > 0
    assert result.contrast()["nie"].abs().max() > 0


def test_top_ranks_by_any_column_signed_or_by_magnitude() -> None:
    result = neuron_result()
    values = result.frame().query("treatment == 'LOL'")["nie"]
    assert result.top(3, "LOL")["nie"].tolist() == sorted(values, reverse=True)[:3]
    assert result.top(3, "LOL", ascending=True)["nie"].tolist() == sorted(values)[:3]
    assert result.top(3, "LOL", absolute=True)["nie"].abs().tolist() == sorted(values.abs(), reverse=True)[:3]
    assert result.top(3, "LOL", by="se")["se"].is_monotonic_decreasing
    assert result.top(2, "contrast")["treatment"].tolist() == ["HOL - LOL"] * 2
    assert set(result.top(100_000)["treatment"]) == {"HOL", "LOL"}


def test_ties_keep_the_order_of_the_sites_and_missing_values_come_last() -> None:
    neurons = NeuronSet.parse("L0.Q.*", SHAPE)
    tied = Moments.zeros(8)
    tied.update(Response("probability", 0).terms([0.0, 1.0, 2.0], np.zeros((8, 3))), None, 0)
    empty = Moments.zeros(8)
    result = Result.from_moments(neurons, {"empty": empty, "tied": tied}, None, {})
    top = result.top(10)
    assert top["site"].tolist()[:8] == [f"L0.Q.{i}" for i in range(8)]
    assert top["treatment"].tolist() == ["tied"] * 8 + ["empty"] * 2


@pytest.mark.parametrize("make", [neuron_result, set_result])
def test_what_is_saved_comes_back(make: Callable[[], Result], tmp_path: Path) -> None:
    result = make()
    folder = result.save(tmp_path / "deep" / "folder")
    back = load_result(folder)
    pd.testing.assert_frame_equal(back.frame(), result.frame())
    assert back.has_contrast == result.has_contrast
    if result.has_contrast:
        pd.testing.assert_frame_equal(back.contrast(), result.contrast())
    assert back.manifest == result.manifest
    assert back.shape == SHAPE
    assert back.kind == result.kind
    assert repr(back) == repr(result)
    names = {"neurons.parquet", "manifest.json"} | ({"contrast.parquet"} if result.has_contrast else set())
    assert {path.name for path in folder.iterdir()} == names


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    neuron_result().save(tmp_path)
    set_result().save(tmp_path)
    back = load_result(tmp_path)
    assert back.kind == "sets"
    assert not (tmp_path / "contrast.parquet").exists()


def test_the_manifest_names_versions_machine_settings_and_digests(tmp_path: Path) -> None:
    neuron_result().save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {"python", "numpy", "pandas"} <= set(manifest["versions"])
    assert manifest["machine"]["cpus"] >= 1
    assert manifest["settings"] == {"low": 20}
    assert manifest["result"]["treatments"] == ["HOL", "LOL"]
    assert len(manifest["files"]["neurons.parquet"]["sha256"]) == 64


def damage(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def rewrite_manifest(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def replaced_by_text(folder: Path) -> None:
    """A table that is no Parquet, under a manifest that agrees with it."""
    import hashlib

    (folder / "neurons.parquet").write_text("no parquet")
    digest = hashlib.sha256(b"no parquet").hexdigest()
    rewrite_manifest(lambda m: m["files"]["neurons.parquet"].update(sha256=digest))(folder)  # type: ignore[index]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage("neurons.parquet", lambda b: b[:-100]), r"neurons.parquet' is not the table .*truncated.*search again"),
        (damage("neurons.parquet", lambda b: b[:50] + b"\x00" + b[51:]), "neurons.parquet' is not the table"),
        (damage("contrast.parquet", lambda b: b""), "contrast.parquet' is not the table"),
        (replaced_by_text, "neurons.parquet' is not a readable Parquet file"),
        (lambda folder: (folder / "neurons.parquet").unlink(), "neurons.parquet' cannot be read .No such file"),
        (lambda folder: (folder / "contrast.parquet").unlink(), "contrast.parquet' cannot be read"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json' is missing; pass a folder written by"),
        (damage("manifest.json", lambda b: b[:40]), "manifest.json' is not valid JSON"),
        (damage("manifest.json", lambda b: b"\xff\xfe"), "manifest.json' is not valid JSON"),
        (damage("manifest.json", lambda b: b"[1]"), "manifest.json' holds a list"),
        (damage("manifest.json", lambda b: b"{}"), "lacks what 'result' and 'files' should say"),
        (rewrite_manifest(lambda m: m["result"].update(format=99)), "has format 99, this pyneuro reads 1"),  # type: ignore[attr-defined]
        (rewrite_manifest(lambda m: m["result"].pop("shape")), "lacks shape under 'result'"),  # type: ignore[attr-defined]
        (rewrite_manifest(lambda m: m["files"].update({"neurons.parquet": 1})), "lacks its sha256"),  # type: ignore[attr-defined]
    ],
)
def test_a_damaged_folder_is_refused_by_name(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    neuron_result().save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=says):
        load_result(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*nowhere' is no folder"):
        load_result(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file/out' cannot be written .*choose another folder"):
        neuron_result().save(tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_result_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_result().save(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"neurons.parquet' cannot be written .No space left on device.; free space"):
        neuron_result().save(tmp_path)
    monkeypatch.undo()
    assert load_result(tmp_path).kind == "sets"
    assert not list(tmp_path.glob(".*"))


def build(**changes: object) -> Result:
    given: dict[str, object] = {
        "sites": NeuronSet.parse("L0.Q.*", SHAPE),
        "treatments": {"HOL": Moments.zeros(8), "LOL": Moments.zeros(8)},
        "contrast": Moments.zeros(8),
        "manifest": {},
    }
    return Result.from_moments(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: build(treatments={}), "treatments is empty"),
        (lambda: build(treatments={"HOL": Moments.zeros(8)}), "contrast compares two treatments"),
        (
            lambda: build(treatments={"HOL": Moments.zeros(8), "contrast": Moments.zeros(8)}),
            "cannot be called 'contrast'",
        ),
        (lambda: build(treatments={"HOL": Moments.zeros(8), "LOL": Moments.zeros(7)}), "'LOL' describe 7 .* 8 sites"),
        (lambda: build(contrast=Moments.zeros(7)), "'contrast' describe 7"),
        (lambda: build(manifest={"seed": {1, 2}}), "manifest entry 'seed' = {1, 2} cannot be stored as JSON"),
        (lambda: build(manifest={"files": []}), r"\['files'\] are written by the result itself"),
        (lambda: build(manifest={"seed": float("nan")}), "manifest entry 'seed' = nan"),
        (lambda: build(sites=NeuronSet(SHAPE, [])), "sites is empty"),
        (lambda: build(sites=[]), "sites is empty"),
        (lambda: build(sites=[("a", NeuronSet(SHAPE, [0])), ("a", NeuronSet(SHAPE, [1]))]), "'a'.* more than once"),
        (
            lambda: build(sites=[("a", NeuronSet(SHAPE, [0])), ("b", NeuronSet(ModelShape(1, 4, 1, 4), [0]))]),
            "different shapes",
        ),
        (lambda: build(ci=95), "ci = 95"),
        (lambda: build(contrast=None).contrast(), r"no contrast, only \['HOL', 'LOL'\]"),
        (lambda: build(contrast=None).top(treatment="contrast"), "no contrast"),
        (lambda: build().top(0), "k = 0"),
        (
            lambda: build().top(treatment="HIGH"),
            r"'HIGH' is not in this result; choose one of \['HOL', 'LOL', 'contrast'\]",
        ),
        (lambda: build().top(by="NIE"), "by = 'NIE' is not a column to rank by; choose one of layer, neuron, nie"),
        (lambda: build().top(by="site"), "'site' is not a column to rank by"),
        (lambda: build().sets(), "single neurons, not of sets"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_mend(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()
