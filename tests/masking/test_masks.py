"""Masks apart from a model: on disk, put on, merged, exported, compared; and masks of located neurons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import pyneuro as pn
from pyneuro import masking
from pyneuro.errors import InputError
from pyneuro.masking import Masks
from pyneuro.models import Classifier
from pyneuro.sites import NeuronSet
from tests.tiny import make_tiny


def fresh() -> Classifier:
    return make_tiny(layers=2, hidden=24, heads=3, intermediate=40)


@pytest.fixture
def masks(clf: Classifier) -> Masks:
    masking.apply(clf, sparsity=0.3, seed=1)
    return Masks.of(clf)


def test_a_file_holds_one_bit_a_weight(masks: Masks, tmp_path: Path) -> None:
    path = masks.save(tmp_path / "m" / "masks.safetensors")
    found = Masks.load(path)
    assert found.base == masks.base and dict(found.settings) == {"rule": "threshold", "tau": 0.01}
    assert list(found) == sorted(masks) or set(found) == set(masks)
    for name, layer in masks.items():
        assert torch.equal(found[name].mask, layer.mask)
        assert (found[name].layer, found[name].module) == (layer.layer, layer.module)
    weights = sum(m.weights for m in masks.values())
    assert masks.nbytes == weights // 8 == found.nbytes
    assert path.stat().st_size < masks.nbytes + 8000
    assert masks.sparsity == pytest.approx(0.3, abs=0.01)


def test_masks_put_on_merged_and_exported_compute_alike(
    clf: Classifier, masks: Masks, pairs: list[pn.data.Pair], tmp_path: Path
) -> None:
    encodings = [clf.encode(p) for p in pairs[:4]]
    want = clf.logits(encodings)
    put, merged, base = fresh(), fresh(), fresh()
    masks.put_on(put)
    torch.testing.assert_close(put.logits(encodings), want)
    assert not any(
        p.requires_grad for n, p in put.model.named_parameters() if n.startswith("bert.encoder.layer.0.inter")
    )
    masks.merge_into(merged)
    torch.testing.assert_close(merged.logits(encodings), want)
    before = base.logits(encodings)
    masks.export(base, tmp_path / "model")
    torch.testing.assert_close(base.logits(encodings), before)
    torch.testing.assert_close(pn.load(tmp_path / "model").logits(encodings), want)


def test_masks_of_another_model_are_refused(masks: Masks) -> None:
    other = make_tiny(layers=2, hidden=24, heads=3, intermediate=40, seed=5)
    for use in (masks.put_on, masks.merge_into, lambda model: masks.export(model, "nowhere")):
        with pytest.raises(InputError, match="belong to a model with digest"):
            use(other)


def test_files_that_hold_no_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read masks"):
        Masks.load(tmp_path / "none")
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="cannot read masks"):
        Masks.load(tmp_path / "text")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="holds no masks"):
        Masks.load(tmp_path / "other.safetensors")


def test_rates_by_layer_and_module(clf: Classifier) -> None:
    masking.apply(clf, ["Q", "O", "T"], [1], sparsity=0.25)
    rates = Masks.of(clf).rates()
    assert list(rates.columns) == ["Q", "O", "T"] and list(rates.index) == [1, "head"]
    assert rates.loc[1, "Q"] == pytest.approx(0.25) and np.isnan(rates.loc["head", "Q"])


def test_overlap_against_chance(clf: Classifier, masks: Masks) -> None:
    same = masks.overlap(masks)
    assert (same["jaccard"] == 1).all()
    control = Masks.random(masks, seed=3)
    assert [m.masked for m in control.values()] == [m.masked for m in masks.values()]
    chance = masks.overlap(control)
    big = chance["masked"] > 100
    np.testing.assert_allclose(chance["jaccard"][big], chance["expected_jaccard"][big], atol=0.08)
    square = masking.agreement([masks, masks, control])
    assert square.iloc[0, 1] == 1.0 and square.iloc[0, 2] == square.iloc[2, 0] < 0.35
    masking.remove(clf, keep_mask=False)
    masking.apply(clf, ["Q"])
    with pytest.raises(InputError, match="different layers"):
        masks.overlap(Masks.of(clf))


def test_masking_a_neuron_is_its_zero_ablation(clf: Classifier, pairs: list[pn.data.Pair]) -> None:
    """The row of W and the bias at 0, at every token: what ``search`` computes for zero ablation of all tokens."""
    sites = ["L0.Q.3", "L0.I.17", "L1.V.5", "L1.AO.20", "L1.O.0"]
    some = pairs[:3]
    table = pn.search(
        clf,
        some,
        sites=sites,
        intervention="remove",
        token="all",
        method="exact",
        precision="float64",
        backend="reference",
    ).frame()
    encodings = [clf.encode(p) for p in some]
    entailment = clf.target_index("entailment")

    def probabilities(model: Classifier) -> np.ndarray:
        return model.logits(encodings).double().softmax(-1)[:, entailment].numpy()

    before = probabilities(clf)
    for site, nie in zip(table["site"], table["nie"], strict=True):
        one = fresh()
        Masks.of_neurons(one, NeuronSet.parse([site], one.shape)).put_on(one)
        assert (probabilities(one) / before - 1).mean() == pytest.approx(nie, rel=2e-2, abs=1e-6)


def test_from_a_search_to_a_mask_in_one_call(clf: Classifier, pairs: list[pn.data.Pair]) -> None:
    values = pn.mean_activations(clf, {"HOL": pairs[:6], "LOL": pairs[6:12]})
    result = pn.search(clf, pairs[:2], values, sites=["L1.I.*", "L0.AO.*"], method="exact")
    masks = Masks.of_search(clf, result, 5, treatment="HOL")
    top = result.top(5, treatment="HOL")["site"].tolist()
    rows = {
        f"L{m.layer}.{m.module}.{i}" for m in masks.values() for i in torch.nonzero(~m.mask.any(1)).flatten().tolist()
    }
    assert rows == set(top) and masks.mask_bias


def test_published_rates_are_flat_and_fall_at_the_top() -> None:
    rates = masking.published_rates()
    assert rates.shape == (12, 6) and (rates.loc[:6].mean(axis=1) > rates.loc[11].mean()).all()


def test_rates_beside_published_ones(masks: Masks) -> None:
    table = masking.compare_rates(masks)
    assert len(table) == 12 and set(table["depth"]) == {0.0, 1.0}
    first = table[(table["layer"] == 0) & (table["module"] == "Q")]["published"].item()
    assert first == pytest.approx(masking.published_rates().loc[0, "Q"])


def test_a_heat_map_is_written(masks: Masks, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert masking.save_rates_figure(masks, tmp_path / "rates.png").stat().st_size > 1000


def test_effects_of_each_layers_mask(clf: Classifier, pairs: list[pn.data.Pair]) -> None:
    plain = masking.accuracy(clf, pairs)
    masking.apply(clf, sparsity=0.6)
    masked = masking.accuracy(clf, pairs)
    table = masking.layer_effects(clf, pairs).set_index("layer")
    assert list(table.index) == ["all", 0, 1, "head"]
    assert table.loc["all", "without"] == plain and table.loc["all", "alone"] == masked
    assert isinstance(table, pd.DataFrame) and masking.accuracy(clf, pairs) == masked


@pytest.mark.parametrize("way", ["apply", "put_on"])
def test_a_masked_model_is_searched_as_what_it_computes(pairs: list[pn.data.Pair], way: str) -> None:
    clf, merged = fresh(), fresh()
    plain = clf.digest
    masking.apply(clf, sparsity=0.3, mask_bias=True)
    masks = Masks.of(clf)
    if way == "put_on":
        clf = fresh()
        masks.put_on(clf)
    masks.merge_into(merged)
    sets = {"HOL": pairs[:6], "LOL": pairs[6:12]}
    options = {"sites": ["L0.I.*", "L1.AO.*"], "method": "exact"}
    found = pn.search(clf, pairs[:3], pn.mean_activations(clf, sets), **options).frame()
    want = pn.search(merged, pairs[:3], pn.mean_activations(merged, sets), **options).frame()
    np.testing.assert_allclose(found["nie"], want["nie"], rtol=1e-3, atol=1e-7)
    assert clf.digest != plain
    with pytest.raises(InputError, match="make them again"):
        pn.search(clf, pairs[:3], pn.mean_activations(fresh(), sets), **options)


def test_a_model_saved_with_its_masks_on_is_not_taken_for_the_base(masks: Masks, tmp_path: Path) -> None:
    put = fresh()
    masks.put_on(put)
    put.model.save_pretrained(tmp_path / "raw")
    put.tokenizer.save_pretrained(tmp_path / "raw")
    with pytest.raises(InputError):
        pn.load(tmp_path / "raw")
    assert "classifier.bits" in put.model.state_dict()


def test_a_masked_model_exports_too(clf: Classifier, masks: Masks, pairs: list[pn.data.Pair], tmp_path: Path) -> None:
    encodings = [clf.encode(p) for p in pairs[:3]]
    masks.export(clf, tmp_path / "model")
    torch.testing.assert_close(pn.load(tmp_path / "model").logits(encodings), clf.logits(encodings))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        masks.export(clf, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts, bits: facts.pop("base"), "damaged: KeyError"),
        (lambda facts, bits: facts["layers"]["classifier"].update({"in": "x"}), "damaged"),
        (lambda facts, bits: bits.pop("classifier"), "damaged"),
        (lambda facts, bits: bits.update(classifier=bits["classifier"].float()), "damaged"),
        (lambda facts, bits: bits.update(classifier=bits["classifier"][:, :1].contiguous()), "damaged"),
    ],
)
def test_damaged_files_are_refused(masks: Masks, tmp_path: Path, change: object, message: str) -> None:
    import safetensors
    from safetensors.torch import save_file

    path = masks.save(tmp_path / "m.safetensors")
    with safetensors.safe_open(path, "pt") as file:
        facts, bits = json.loads(file.metadata()["pyneuro"]), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    change(facts, bits)
    save_file(bits, path, {"pyneuro": json.dumps(facts)})
    with pytest.raises(InputError, match=message):
        Masks.load(path)


def test_settings_may_hold_numpys_numbers(clf: Classifier, tmp_path: Path) -> None:
    masking.apply(clf, "Q")
    path = Masks.of(clf, seed=np.int64(3), why={"a": np.float32(0.5)}).save(tmp_path / "m.safetensors")
    assert Masks.load(path).settings["seed"] == 3


def test_neurons_of_another_shape_are_refused(clf: Classifier) -> None:
    with pytest.raises(InputError, match="the neurons are of a model of"):
        Masks.of_neurons(clf, NeuronSet.parse("L0.Q.1", make_tiny(layers=1, hidden=12, heads=2, intermediate=20).shape))


def test_scores_that_are_nan_make_no_masks(clf: Classifier) -> None:
    layers = masking.apply(clf, "Q")
    with torch.no_grad():
        next(iter(layers.values())).scores[0, 0] = float("nan")
    with pytest.raises(InputError, match="are NaN"):
        Masks.of(clf)
