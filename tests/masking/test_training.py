"""Training masks: what moves and what does not, schedules, losses, checkpoints and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import pyneuro as pn
from pyneuro import masking
from pyneuro.errors import InputError, ResumeError
from pyneuro.masking import CubicSchedule, SparsityControl
from pyneuro.models import Classifier
from tests.tiny import make_tiny

pytest.importorskip("accelerate")
Pairs = list[pn.data.Pair]
FAST = {"batch_size": 8, "lr": 3e-2}


def test_masks_learn_and_weights_stay(clf: Classifier, pairs: Pairs) -> None:
    digest = masking.base_digest(clf)
    masking.apply(clf, sparsity=0.05)
    start = masking.Masks.of(clf)
    done = masking.train(clf, pairs, pairs, epochs=6, **FAST)
    assert masking.base_digest(clf) == digest
    assert list(done.history["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert done.history["loss"].iloc[-1] < done.history["loss"].iloc[0] - 0.02
    assert done.accuracy == masking.accuracy(clf, pairs) >= done.history["accuracy"].iloc[0]
    assert done.masks is not None and (done.masks.overlap(start)["jaccard"] < 1).any()
    assert not clf.model.training


def test_fine_tuning_is_there_to_compare_with(clf: Classifier, pairs: Pairs) -> None:
    done = masking.fine_tune(clf, pairs, pairs, epochs=6, batch_size=8, lr=5e-3)
    assert done.masks is None and np.isnan(done.history["sparsity"]).all()
    assert done.history["loss"].iloc[-1] < done.history["loss"].iloc[0] - 0.05


def test_a_seed_gives_one_training(pairs: Pairs) -> None:
    found = []
    for seed in (0, 0, 1):
        clf = make_tiny(layers=2, hidden=24, heads=3, intermediate=40)
        masking.apply(clf, seed=seed)
        found.append(masking.train(clf, pairs, epochs=1, seed=seed, **FAST).masks)
    assert (found[0].overlap(found[1])["jaccard"] == 1).all()
    assert (found[0].overlap(found[2])["jaccard"] < 1).any()


def test_tau_follows_its_schedule(clf: Classifier, pairs: Pairs) -> None:
    layers = masking.apply(clf, rule="sigmoid", tau=0.0)
    done = masking.train(clf, pairs, epochs=2, tau=CubicSchedule(0.0, 0.6), **FAST)
    assert next(iter(layers.values())).tau == pytest.approx(0.6)
    assert (
        done.history["sparsity"].is_monotonic_increasing and done.history["sparsity"].iloc[-1] > 0.9
    )  # S stays near 0


def test_the_cubic_schedule() -> None:
    schedule = CubicSchedule(1.0, 0.2, warmup=10, cooldown=20)
    assert [schedule.at(s, 130) for s in (0, 10, 60, 110, 130)] == pytest.approx([1.0, 1.0, 0.3, 0.2, 0.2])


def test_l1_empties_a_mask_that_nothing_needs(clf: Classifier, pairs: Pairs) -> None:
    sparsities = []
    for strength in (0.0, 2000.0):
        masking.apply(clf, rule="sigmoid", tau=0.48)
        done = masking.train(clf, pairs, epochs=2, l1_attention=strength, l1_dense=strength, **FAST)
        sparsities.append(done.masks.sparsity)
        masking.remove(clf, keep_mask=False)
    assert sparsities[1] > sparsities[0] + 0.2


def test_a_target_sparsity_is_approached(clf: Classifier, pairs: Pairs) -> None:
    masking.apply(clf, sparsity=0.05)
    control = SparsityControl(0.3, lr=1e4, multiplier=1e3)
    done = masking.train(clf, pairs, epochs=8, batch_size=8, lr=5e-3, sparsity=control)
    assert abs(done.masks.sparsity - 0.3) < 0.1
    assert control.multiplier > 1e3


def test_a_loss_may_be_any_callable(clf: Classifier, pairs: Pairs) -> None:
    seen = []

    def loss(logits: torch.Tensor, labels: torch.Tensor, known: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append((logits.shape[0], known["number"].tolist(), labels.tolist()))
        return torch.nn.functional.cross_entropy(logits, labels)

    masking.apply(clf)
    masking.train(clf, pairs, epochs=1, loss=loss, known={"number": np.arange(len(pairs))}, **FAST)
    gold = [clf.label_index[p.label] for p in pairs]
    numbers = [int(i) for _, numbers, _ in seen for i in numbers]
    assert sorted(numbers) == list(range(len(pairs)))
    assert [gold[i] for i in numbers] == [g for _, _, labels in seen for g in labels]


@pytest.mark.parametrize("loss", ["reweight", "product_of_experts", "confidence_regularisation"])
def test_debiasing_losses_take_a_biased_models_probabilities(clf: Classifier, pairs: Pairs, loss: str) -> None:
    masking.apply(clf)
    known = {"bias": np.full((len(pairs), 3), 1 / 3), "teacher": np.full((len(pairs), 3), 1 / 3)}
    assert np.isfinite(masking.train(clf, pairs, epochs=1, loss=loss, known=known, **FAST).history["loss"]).all()
    with pytest.raises(InputError, match="probabilities of a"):
        masking.train(clf, pairs, epochs=1, loss=loss, **FAST)


def test_a_stopped_training_goes_on(pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(folder: Path, resume: bool = False, stop: int | None = None) -> masking.Training:
        clf = make_tiny(layers=2, hidden=24, heads=3, intermediate=40)
        masking.apply(clf)
        calls = 0

        def loss(logits: torch.Tensor, labels: torch.Tensor, known: object) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return torch.nn.functional.cross_entropy(logits, labels)

        control = SparsityControl(0.2, lr=10.0)
        return masking.train(
            clf, pairs, pairs, epochs=4, loss=loss, out=folder, resume=resume, sparsity=control, **FAST
        )

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part", stop=15)
    with pytest.raises(ResumeError, match="holds a training already"):
        run(tmp_path / "part")
    found = run(tmp_path / "part", resume=True)
    assert (found.masks.overlap(whole.masks)["jaccard"] == 1).all()
    assert found.history["accuracy"].tolist() == whole.history["accuracy"].tolist()
    assert found.history["epoch"].tolist() == [1, 2, 3, 4]
    kept = masking.Masks.load(tmp_path / "part" / "masks.safetensors")
    assert (kept.overlap(whole.masks)["jaccard"] == 1).all()
    assert (tmp_path / "part" / "history.csv").exists()
    with pytest.raises(ResumeError, match="no checkpoint"):
        run(tmp_path / "empty", resume=True)


@pytest.mark.parametrize(
    ("masks", "options", "message"),
    [
        ({"rule": "sigmoid"}, {}, "masks = "),
        ({"sparsity": 0.4}, {}, "masks = "),
        ({"seed": 3}, {}, "scores = "),
        ({}, {"lr": 0.5}, "lr = 0.03, not 0.5"),
        ({}, {"loss": "reweight", "known": {"bias": np.full((48, 3), 1 / 3)}}, "loss = 'plain', not 'reweight'"),
    ],
)
def test_only_the_same_training_goes_on(
    pairs: Pairs, tmp_path: Path, masks: dict[str, object], options: dict[str, object], message: str
) -> None:
    def clf(**how: object) -> Classifier:
        made = make_tiny(layers=2, hidden=24, heads=3, intermediate=40)
        masking.apply(made, **how)
        return made

    masking.train(clf(), pairs, epochs=1, out=tmp_path, **FAST)
    kept = (tmp_path / "masks.safetensors").read_bytes()
    with pytest.raises(ResumeError, match=message):
        masking.train(clf(**masks), pairs, out=tmp_path, resume=True, **{"epochs": 1, **FAST, **options})
    assert (tmp_path / "masks.safetensors").read_bytes() == kept
    with pytest.raises(ResumeError, match="pairs = "):
        masking.train(clf(), pairs[:40], epochs=1, out=tmp_path, resume=True, **FAST)


def test_a_loss_that_is_nan_stops_the_training(clf: Classifier, pairs: Pairs) -> None:
    masking.apply(clf)
    with pytest.raises(InputError, match="the loss is nan at step 0"):
        masking.train(clf, pairs, epochs=1, loss=lambda logits, labels, known: logits.sum() * float("nan"), **FAST)


def test_a_masked_model_is_not_fine_tuned(clf: Classifier, pairs: Pairs) -> None:
    masking.apply(clf)
    with pytest.raises(InputError, match="masked already"):
        masking.fine_tune(clf, pairs)
    assert {n for n, p in clf.model.named_parameters() if p.requires_grad} == {
        f"{n}.scores" for n in masking.masked_layers(clf)
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs = 0; pass a number above 0"),
        ({"epochs": float("nan")}, "epochs"),
        ({"lr": -1}, "lr = -1"),
        ({"batch_size": 0}, "batch_size = 0; pass a whole number from 1"),
        ({"warmup": 2}, "warmup = 2; pass a number from 0 to 1"),
        ({"max_length": 1}, "max_length = 1"),
        ({"seed": -1}, "seed = -1"),
        ({"tau": 0.5}, "tau = 0.5; pass a pyneuro.masking.CubicSchedule"),
        ({"sparsity": 0.3}, "SparsityControl"),
        ({"known": 3}, "known is int"),
        ({"known": {"bias": np.full((48, 2), 0.5)}}, "has 2 classes and the model 3"),
        ({"known": {"bias": np.full((48, 3), 5.0)}}, "no probabilities"),
    ],
)
def test_bad_options_are_named(clf: Classifier, pairs: Pairs, options: dict[str, object], message: str) -> None:
    masking.apply(clf)
    with pytest.raises(InputError, match=message):
        masking.train(clf, pairs, **options)
    with pytest.raises(InputError, match="finite"):
        CubicSchedule(0.1, float("nan"))


def test_bad_input_is_named(clf: Classifier, pairs: Pairs) -> None:
    with pytest.raises(InputError, match="no masked layers"):
        masking.train(clf, pairs)
    masking.apply(clf)
    with pytest.raises(InputError, match="no pairs"):
        masking.train(clf, [])
    odd = [*pairs, pn.data.Pair("odd", "A dog runs.", "A dog.", None)]
    with pytest.raises(InputError, match="pair 'odd' has label None"):
        masking.train(clf, odd)
    with pytest.raises(InputError, match="loss = 'guess'"):
        masking.train(clf, pairs, loss="guess")
    with pytest.raises(InputError, match=r"known\['bias'\] is \[3\] for 48 pairs"):
        masking.train(clf, pairs, known={"bias": [0.1, 0.2, 0.7]})
    with pytest.raises(InputError, match="NaN"):
        masking.train(clf, pairs, known={"bias": np.full(48, np.nan)})
    with pytest.raises(InputError, match="target sparsity"):
        SparsityControl(1.0)
    masks = masking.Masks.of(clf)
    masking.remove(clf, keep_mask=False)
    masks.put_on(clf)
    with pytest.raises(InputError, match="fixed"):
        masking.train(clf, pairs)


def test_an_encoder_gets_a_fresh_head(clf: Classifier, tmp_path: Path) -> None:
    clf.model.bert.save_pretrained(tmp_path)
    clf.tokenizer.save_pretrained(tmp_path)
    first, same, other = (masking.classifier_on(tmp_path, seed=s) for s in (0, 0, 1))
    clf.model.save_pretrained(tmp_path / "whole")
    clf.tokenizer.save_pretrained(tmp_path / "whole")
    anew = masking.classifier_on(tmp_path / "whole").model.classifier
    assert not torch.equal(anew.weight, clf.model.classifier.weight) and not anew.bias.any()
    assert list(first.label_index) == ["entailment", "neutral", "contradiction"]
    assert torch.equal(first.model.classifier.weight, same.model.classifier.weight)
    assert not torch.equal(first.model.classifier.weight, other.model.classifier.weight)
    assert torch.equal(
        first.model.bert.encoder.layer[0].output.dense.weight, clf.model.bert.encoder.layer[0].output.dense.weight
    )
    with pytest.raises(InputError, match="cannot load an encoder"):
        masking.classifier_on(tmp_path / "none")
