"""Bias models that are neural classifiers, kept shallow: trained on little, or small."""

from __future__ import annotations

import copy
import importlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from pyneuro.data import Pair, Pairs
from pyneuro.data.draw import check_seed, sample
from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier
from pyneuro.models.quiet import no_bars
from pyneuro.reweighting.predictions import BiasPredictions

PREDICTED_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ShallowBias:
    """Made by ``ShallowModel.fit``.

    Attributes
    ----------
    clf : Classifier
        Trained.
    seen : tuple of str
        Ids of the pairs that it was trained on.
    """

    clf: Classifier
    seen: tuple[str, ...] = field(repr=False)

    def predict(self, pairs: Sequence[Pair]) -> BiasPredictions:
        """Class probabilities of pairs, whose ids differ. Batched by length; truncated as in training."""
        encodings = [self.clf.encode(pair) for pair in pairs]
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i]))
        table = np.empty((len(pairs), len(self.clf.label_index)))
        for start in range(0, len(order), PREDICTED_AT_ONCE):
            part = order[start : start + PREDICTED_AT_ONCE]
            logits = self.clf.logits([encodings[i] for i in part]).double()
            table[part] = torch.softmax(logits, -1).cpu().numpy()
        return BiasPredictions([pair.id for pair in pairs], self.clf.label_index, table)


@dataclass(frozen=True, eq=False)
class ShallowModel:
    """A classifier trained on few samples, several times over: it learns what is learnt first, the shortcut.

    A tiny model is the same from another start, with ``samples=None``.

    Parameters
    ----------
    start : Classifier
        Untrained, as ``pyneuro.masking.classifier_on`` makes it; copies of it are trained, it stays as it is.
    samples : int or None
        Pairs to train on, drawn at random; None takes all.
    epochs, lr, weight_decay, batch_size
        AdamW, learning rate falling linearly to 0.
    max_length : int
        Tokens; longer pairs are truncated.
    seed : int
        Of the draw, the order and dropout.

    References
    ----------
    Utama, Moosavi and Gurevych, "Towards Debiasing NLU Models from Unknown Biases", EMNLP 2020: 2,000 samples, 5
    epochs.
    """

    start: Classifier
    samples: int | None = 2000
    epochs: float = 5
    lr: float = 5e-5
    weight_decay: float = 0.0
    batch_size: int = 32
    max_length: int = 128
    seed: int = 0

    def fit(self, pairs: Sequence[Pair]) -> ShallowBias:
        """Train a copy.

        Raises InputError where accelerate is not installed, for fewer pairs than samples, and for pairs without a label
        of the model's.
        """
        transformers = _transformers()
        chosen = self._chosen(pairs)
        length = min(self.max_length, self.start.max_positions)
        clf = replace(self.start, model=copy.deepcopy(self.start.model), max_length=length)
        rows = [_row(clf, pair) for pair in chosen]
        with tempfile.TemporaryDirectory() as folder, no_bars():
            arguments = transformers.TrainingArguments(
                folder,
                num_train_epochs=self.epochs,
                learning_rate=self.lr,
                weight_decay=self.weight_decay,
                per_device_train_batch_size=self.batch_size,
                lr_scheduler_type="linear",
                seed=self.seed,
                data_seed=self.seed,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                use_cpu=clf.device.type == "cpu",
            )
            trainer = transformers.Trainer(
                model=clf.model,
                args=arguments,
                data_collator=transformers.DataCollatorWithPadding(clf.tokenizer),
                train_dataset=rows,
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        clf.model.eval()
        return ShallowBias(clf, tuple(pair.id for pair in chosen))

    def _chosen(self, pairs: Sequence[Pair]) -> Sequence[Pair]:
        if self.samples is None:
            return pairs
        if self.samples < 1 or len(pairs) < self.samples:
            raise InputError(
                f"samples = {self.samples!r} of {len(pairs)} pairs; pass more pairs, a number from 1 to {len(pairs)}, "
                "or None for all"
            )
        whole, seed = Pairs(pairs), check_seed(self.seed)
        drawn = sample(whole, range(len(whole)), self.samples, replacement=False, seed=seed, purpose="shallow")
        return whole.subset(drawn)


def _row(clf: Classifier, pair: Pair) -> dict[str, Any]:
    if pair.label is None or pair.label not in clf.label_index:
        raise InputError(
            f"pair {pair.id!r} has label {pair.label!r} and the model has {', '.join(clf.label_index)}; drop the pair"
        )
    encoded = clf.tokenizer(pair.premise, pair.hypothesis, truncation=True, max_length=clf.max_length)
    return {**encoded, "labels": clf.label_index[pair.label]}


def _transformers() -> Any:
    try:
        importlib.import_module("accelerate")
    except ImportError as error:
        raise InputError("training needs accelerate; pip install 'pyneuro[train]'") from error
    return importlib.import_module("transformers")
