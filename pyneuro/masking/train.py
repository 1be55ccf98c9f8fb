"""Training masks, and fine-tuning beside them, by HuggingFace's Trainer."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from pyneuro import evaluation
from pyneuro.data.pairs import Pair
from pyneuro.errors import InputError, ResumeError
from pyneuro.masking.apply import masked_layers, places
from pyneuro.masking.linear import MaskedLinear
from pyneuro.masking.masks import Masks, base_digest
from pyneuro.masking.schedule import ATTENTION, CubicSchedule, SparsityControl, l1
from pyneuro.models.classifier import Classifier
from pyneuro.reweighting import LOSSES, Loss

Known = Mapping[str, npt.ArrayLike]


@dataclass(frozen=True, eq=False)
class Training:
    """What came of a training.

    Attributes
    ----------
    history : DataFrame
        A row an epoch: ``epoch, step, loss`` (mean since the row before), ``accuracy`` (validation; nan without),
        ``sparsity`` (nan without masks).
    accuracy : float
        On the validation pairs, at the end; nan without.
    masks : Masks or None
        As trained.
    seconds : float
        Of this process.
    """

    history: pd.DataFrame
    accuracy: float
    masks: Masks | None
    seconds: float


def train(
    clf: Classifier,
    pairs: Sequence[Pair],
    validation: Sequence[Pair] | None = None,
    *,
    epochs: float = 3,
    lr: float = 1e-3,
    batch_size: int = 32,
    loss: str | Loss = "plain",
    known: Known | None = None,
    tau: CubicSchedule | None = None,
    l1_attention: float = 0.0,
    l1_dense: float = 0.0,
    sparsity: SparsityControl | None = None,
    warmup: float = 0.0,
    max_length: int = 128,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Training:
    """Train the scores of a masked classifier; its weights stay as they are.

    Parameters
    ----------
    clf : Classifier
        Masked by ``pyneuro.masking.apply``.
    pairs, validation : sequences of Pair
        With labels.
    epochs, lr, batch_size
        Adam without weight decay, learning rate falling linearly to 0 after a share `warmup` of the steps.
    loss : "plain", "reweight", "product_of_experts", "confidence_regularisation" or callable
        ``loss(logits [B, C], labels [B], known) -> scalar``; see ``pyneuro.reweighting``.
    known : mapping of str to float array [n, ...], optional
        What a loss wants to know of every pair, as {"bias": probabilities [n, C]}.
    tau : CubicSchedule, optional
        Of the masks' τ. Default: τ stays.
    l1_attention, l1_dense : float
        Penalty on what is kept in Q, K, V, AO and in the other modules; see ``schedule.l1``.
    sparsity : SparsityControl, optional
    max_length : int
        Tokens; longer pairs are truncated.
    seed : int
        Of the order of the pairs, dropout and random masks.
    out : path, optional
        Folder for checkpoints (one an epoch, the last is kept), ``masks.safetensors`` and ``history.csv``.
    resume : bool
        Go on from the last checkpoint in `out`.
    progress : bool, optional
        Default: where standard error is a terminal.

    Raises
    ------
    InputError
        For a model without masks to train, pairs without labels the model has, an unknown loss, `known` of another
        length, or where accelerate is not installed.
    ResumeError
        `resume` without a checkpoint in `out`, or `out` with one and no `resume`.
    """
    layers = {n: m for n, m in masked_layers(clf).items() if isinstance(m, MaskedLinear)}
    if not layers:
        raise InputError(
            "the masks of this model are fixed; call pyneuro.masking.apply on the base model to train some"
        )
    where = {place.name: place for place in places(clf)}
    strength = [l1_attention if where[name].module in ATTENTION else l1_dense for name in layers]
    modules = list(layers.values())

    def penalty() -> Tensor | float:
        total: Tensor | float = 0.0
        if any(strength):
            total = total + l1(modules, strength)
        if sparsity is not None:
            total = total + sparsity.penalty(modules)
        return total

    def at_step(step: int, steps: int) -> None:
        if tau is not None:
            for module in modules:
                module.tau = tau.at(step, steps)

    before = base_digest(clf)
    run = _Run(
        clf, _loss(loss), _checked(clf, pairs, max_length), _known(known, len(pairs)),
        _labelled(clf, validation, max_length), max_length, penalty, at_step, sparsity,
    )  # fmt: skip
    found = run.fit(epochs, lr, 0.0, batch_size, warmup, seed, out, resume, progress)
    if base_digest(clf) != before:
        raise RuntimeError("the frozen weights changed while the masks trained")
    masks = Masks.of(clf, loss=loss if isinstance(loss, str) else getattr(loss, "__name__", "callable"), seed=seed)
    if out is not None:
        masks.save(Path(out) / "masks.safetensors")
    return Training(*found, masks=masks, seconds=run.seconds)


def fine_tune(
    clf: Classifier,
    pairs: Sequence[Pair],
    validation: Sequence[Pair] | None = None,
    *,
    epochs: float = 3,
    lr: float = 5e-5,
    weight_decay: float = 0.0,
    batch_size: int = 32,
    loss: str | Loss = "plain",
    known: Known | None = None,
    warmup: float = 0.1,
    max_length: int = 128,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Training:
    """Train all weights of a classifier, in place: what a mask is compared with. The rest is as for ``train``."""
    clf.model.requires_grad_()
    run = _Run(
        clf, _loss(loss), _checked(clf, pairs, max_length), _known(known, len(pairs)),
        _labelled(clf, validation, max_length), max_length,
    )  # fmt: skip
    found = run.fit(epochs, lr, weight_decay, batch_size, warmup, seed, out, resume, progress)
    return Training(*found, masks=None, seconds=run.seconds)


def accuracy(clf: Classifier, pairs: Sequence[Pair], *, max_length: int | None = 128) -> float:
    """Share of pairs whose largest logit is the gold label's. Raises InputError for pairs without such labels."""
    clf = replace(clf, max_length=_length(clf, max_length))
    return evaluation.accuracy(clf, evaluation.predict(clf, pairs), pairs).accuracy


@dataclass
class _Run:
    """One training by HuggingFace's Trainer."""

    clf: Classifier
    loss: Loss
    samples: list[dict[str, Any]]
    known: Mapping[str, Tensor]
    validation: Sequence[Pair] | None
    max_length: int
    penalty: Callable[[], Tensor | float] = lambda: 0.0
    at_step: Callable[[int, int], None] = lambda step, steps: None
    control: SparsityControl | None = None
    seconds: float = 0.0

    def fit(
        self,
        epochs: float,
        lr: float,
        weight_decay: float,
        batch_size: int,
        warmup: float,
        seed: int,
        out: str | os.PathLike[str] | None,
        resume: bool,
        progress: bool | None,
    ) -> tuple[pd.DataFrame, float]:
        """History and final accuracy."""
        transformers = _require_trainer()
        if progress is None:
            progress = os.isatty(2)
        with _folder(out) as folder:
            checkpoint = _checkpoint(folder, resume)
            steps = -(-len(self.samples) // batch_size)
            arguments = transformers.TrainingArguments(
                str(folder),
                num_train_epochs=epochs,
                learning_rate=lr,
                weight_decay=weight_decay,
                per_device_train_batch_size=batch_size,
                warmup_steps=round(warmup * steps * epochs),
                lr_scheduler_type="linear",
                max_grad_norm=0.0,
                seed=seed,
                data_seed=seed,
                save_strategy="no" if out is None else "epoch",
                save_total_limit=1,
                logging_strategy="epoch",
                report_to=[],
                remove_unused_columns=False,
                disable_tqdm=not progress,
                dataloader_pin_memory=False,
                use_cpu=self.clf.device.type == "cpu",
            )
            history: list[dict[str, float]] = []
            trainer = _trainer(transformers, self, history)(
                model=self.clf.model,
                args=arguments,
                data_collator=_Collator(self.clf.tokenizer),
                train_dataset=[{**s, "known": i} for i, s in enumerate(self.samples)],
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.add_callback(_callback(transformers, self, history, progress))
            started = time.perf_counter()
            was = self.clf.model.training
            try:
                trainer.train(resume_from_checkpoint=checkpoint)
            finally:
                self.clf.model.train(was)
                self.seconds = time.perf_counter() - started
            table = pd.DataFrame(history, columns=["epoch", "step", "loss", "accuracy", "sparsity"])
            if out is not None:
                table.to_csv(Path(out) / "history.csv", index=False)
        return table, float(table["accuracy"].iloc[-1]) if len(table) else float("nan")

    def measured(self) -> tuple[float, float]:
        """Accuracy and sparsity as they stand."""
        found = (
            float("nan") if self.validation is None else accuracy(self.clf, self.validation, max_length=self.max_length)
        )
        layers = [m for m in self.clf.model.modules() if isinstance(m, MaskedLinear)]
        total = sum(m.weight.numel() for m in layers)
        sparsity = sum(m.sparsity * m.weight.numel() for m in layers) / total if layers else float("nan")
        return found, sparsity


def _trainer(transformers: Any, run: _Run, history: list[dict[str, float]]) -> Any:
    class MaskTrainer(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
        ) -> Any:
            labels, number = inputs.pop("labels"), inputs.pop("known").cpu()
            outputs = model(**inputs)
            known = {name: values[number].to(labels.device) for name, values in run.known.items()}
            loss = run.loss(outputs.logits, labels, known) + run.penalty()
            return (loss, outputs) if return_outputs else loss

    return MaskTrainer


def _callback(transformers: Any, run: _Run, history: list[dict[str, float]], progress: bool) -> Any:
    from transformers.trainer_callback import ExportableState

    class Follow(transformers.TrainerCallback, ExportableState):  # type: ignore[misc]
        """Moves τ, measures every epoch, and keeps both and λ in checkpoints."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            kept = state.stateful_callbacks.get("Follow")
            if kept and state.global_step:
                history[:] = kept["attributes"]["history"]
                if run.control is not None:
                    run.control.multiplier = kept["attributes"]["multiplier"]

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.at_step(state.global_step, state.max_steps)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run.at_step(state.global_step, state.max_steps)
            accuracy, sparsity = run.measured()
            row = {"epoch": float(state.epoch), "step": state.global_step, "loss": float("nan")}
            history.append({**row, "accuracy": accuracy, "sparsity": sparsity})
            if progress:
                print(f"epoch {state.epoch:.2f}: accuracy {accuracy:.4f}, sparsity {sparsity:.4f}", flush=True)
            state.stateful_callbacks["Follow"] = self.state()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs and history:
                history[-1]["loss"] = float(logs["loss"])
                state.stateful_callbacks["Follow"] = self.state()

        def state(self) -> dict[str, Any]:
            multiplier = None if run.control is None else run.control.multiplier
            return {"args": {}, "attributes": {"history": [dict(row) for row in history], "multiplier": multiplier}}

    return Follow()


@dataclass(frozen=True)
class _Collator:
    """Pads a batch at the right."""

    tokenizer: Any

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        names = [n for n in ("input_ids", "attention_mask", "token_type_ids") if n in rows[0]]
        padded = self.tokenizer.pad([{n: row[n] for n in names} for row in rows], return_tensors="pt")
        batch = {n: padded[n] for n in names}
        return batch | {n: torch.tensor([row[n] for row in rows]) for n in ("labels", "known") if n in rows[0]}


def _checked(clf: Classifier, pairs: Sequence[Pair], max_length: int | None) -> list[dict[str, Any]]:
    """Tokens and gold class of every pair."""
    if not len(pairs):
        raise InputError("no pairs; pass at least one")
    length = _length(clf, max_length)
    out = []
    for pair in pairs:
        if pair.label is None or pair.label not in clf.label_index:
            raise InputError(
                f"pair {pair.id!r} has label {pair.label!r} and the model has {', '.join(clf.label_index)}; drop the "
                "pair"
            )
        tokens = clf.tokenizer(pair.premise, pair.hypothesis, truncation=True, max_length=length)
        out.append({**tokens, "labels": clf.label_index[pair.label]})
    return out


def _labelled(clf: Classifier, pairs: Sequence[Pair] | None, max_length: int) -> Sequence[Pair] | None:
    """Pairs that accuracy can be measured on, or None."""
    if pairs is not None:
        _checked(clf, pairs, max_length)
    return pairs


def _length(clf: Classifier, max_length: int | None) -> int:
    return clf.max_positions if max_length is None else min(max_length, clf.max_positions)


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"loss = {loss!r} is not one of {', '.join(LOSSES)}, nor a callable")
    return LOSSES[loss]


def _known(known: Known | None, n: int) -> dict[str, Tensor]:
    tensors = {name: torch.as_tensor(np.asarray(values, dtype=np.float32)) for name, values in (known or {}).items()}
    for name, values in tensors.items():
        if values.dim() < 1 or len(values) != n:
            raise InputError(f"known[{name!r}] is {list(values.shape)} for {n} pairs; pass one row a pair")
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"known[{name!r}] holds NaN or infinite values")
    return tensors


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        yield Path(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _checkpoint(folder: Path, resume: bool) -> str | None:
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    if found and not resume:
        raise ResumeError(f"{folder} holds a training already; pass resume=True to go on, or another folder")
    if resume and not found:
        raise ResumeError(f"{folder} holds no checkpoint to go on from; leave resume out")
    return str(found[-1]) if found else None


def _require_trainer() -> Any:
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise InputError("training needs the package accelerate; run pip install 'pyneuro[train]'") from error
    import transformers

    return transformers
