"""The training loop: HuggingFace's Trainer on a classifier's samples."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pyneuro import evaluation
from pyneuro.data.manifest import write_json
from pyneuro.data.pairs import Pair
from pyneuro.errors import InputError, ResumeError, is_number, is_whole
from pyneuro.masking.linear import MaskedLinear
from pyneuro.masking.schedule import SparsityControl
from pyneuro.models.classifier import Classifier
from pyneuro.models.quiet import no_bars
from pyneuro.results.files import writable_folder
from pyneuro.reweighting import Loss

SETTINGS_FILE = "training.json"


@dataclass(frozen=True)
class Options:
    """Of the optimiser and its data. Raises InputError for numbers that mean nothing."""

    epochs: float
    lr: float
    weight_decay: float
    batch_size: int
    warmup: float
    max_length: int
    seed: int

    def __post_init__(self) -> None:
        def number(name: str, whole: bool, low: float, high: float, open_low: bool = False) -> None:
            value = getattr(self, name)
            good = (is_whole if whole else is_number)(value) and math.isfinite(value)
            if not good or value < low or value > high or (open_low and value == low):
                what = "a whole number" if whole else "a number"
                bounds = f"{'above' if open_low else 'from'} {low:g}" + ("" if high == math.inf else f" to {high:g}")
                raise InputError(f"{name} = {value!r}; pass {what} {bounds}")

        number("epochs", False, 0, math.inf, open_low=True)
        number("lr", False, 0, math.inf, open_low=True)
        number("weight_decay", False, 0, math.inf)
        number("batch_size", True, 1, math.inf)
        number("warmup", False, 0, 1)
        number("max_length", True, 8, math.inf)
        number("seed", True, 0, 2**32 - 1)


def longest_sample(clf: Classifier, max_length: int | None) -> int:
    """Tokens that a sample may have."""
    return clf.max_positions if max_length is None else min(max_length, clf.max_positions)


def accuracy(clf: Classifier, pairs: Sequence[Pair], *, max_length: int | None = 128) -> float:
    """Share of pairs whose largest logit is the gold label's. Raises InputError for pairs without such labels."""
    clf = replace(clf, max_length=longest_sample(clf, max_length))
    return evaluation.accuracy(clf, evaluation.predict(clf, pairs), pairs).accuracy


@dataclass
class Run:
    """One training by HuggingFace's Trainer."""

    clf: Classifier
    loss: Loss
    samples: list[dict[str, Any]]
    known: Mapping[str, Tensor]
    validation: Sequence[Pair] | None
    options: Options
    settings: dict[str, Any]
    penalty: Callable[[], Tensor | float] = lambda: 0.0
    at_step: Callable[[int, int], None] = lambda step, steps: None
    control: SparsityControl | None = None
    seconds: float = 0.0

    def fit(
        self, out: str | os.PathLike[str] | None, resume: bool, progress: bool | None
    ) -> tuple[pd.DataFrame, float]:
        """History and final accuracy."""
        transformers = _require_trainer()
        if progress is None:
            progress = os.isatty(2)
        o = self.options
        with _folder(out) as folder, nullcontext() if progress else no_bars():
            checkpoint = find_checkpoint(folder, resume)
            if out is not None:
                _record(folder, self.settings, checkpoint is not None)
            steps = -(-len(self.samples) // o.batch_size)
            arguments = transformers.TrainingArguments(
                str(folder),
                num_train_epochs=o.epochs,
                learning_rate=o.lr,
                weight_decay=o.weight_decay,
                per_device_train_batch_size=o.batch_size,
                warmup_steps=round(o.warmup * steps * o.epochs),
                lr_scheduler_type="linear",
                max_grad_norm=0.0,
                seed=o.seed,
                data_seed=o.seed,
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
            trainer = _trainer(transformers, self)(
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
        found = float("nan")
        if self.validation is not None:
            found = accuracy(self.clf, self.validation, max_length=self.options.max_length)
        layers = [m for m in self.clf.model.modules() if isinstance(m, MaskedLinear)]
        total = sum(m.weight.numel() for m in layers)
        sparsity = sum(m.sparsity * m.weight.numel() for m in layers) / total if layers else float("nan")
        return found, sparsity


def _trainer(transformers: Any, run: Run) -> Any:
    class MaskTrainer(transformers.Trainer):  # type: ignore[misc]
        def compute_loss(
            self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
        ) -> Any:
            labels, number = inputs.pop("labels"), inputs.pop("known").cpu()
            outputs = model(**inputs)
            known = {name: values[number].to(labels.device) for name, values in run.known.items()}
            loss = run.loss(outputs.logits, labels, known) + run.penalty()
            if not bool(torch.isfinite(loss)):
                raise InputError(
                    f"the loss is {float(loss.detach())} at step {self.state.global_step}; look at the loss, its "
                    "penalties and what it knows, or lower the learning rate"
                )
            return (loss, outputs) if return_outputs else loss

    return MaskTrainer


def _callback(transformers: Any, run: Run, history: list[dict[str, float]], progress: bool) -> Any:
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
                print(
                    f"epoch {state.epoch:.2f}: accuracy {accuracy:.4f}, sparsity {sparsity:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
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


def _record(folder: Path, settings: dict[str, Any], resumes: bool) -> None:
    """Keep what a training is made of, or check that it goes on as it began: ResumeError names what differs."""
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps(settings, default=str))
    if not resumes or not path.exists():
        write_json(settings, path)
        return
    before = json.loads(path.read_text())
    for name, value in settings.items():
        if before.get(name) != value:
            raise ResumeError(
                f"{folder} holds a training with {name} = {before.get(name)!r}, not {value!r}; pass the same, or "
                "another folder"
            )


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    if out is not None:
        yield writable_folder(out)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def find_checkpoint(folder: str | os.PathLike[str], resume: bool) -> str | None:
    """The last whole checkpoint in a folder, or None. Raises ResumeError where `resume` does not fit what is there."""
    whole = [p.parent for p in Path(folder).glob("checkpoint-*/trainer_state.json")]
    found = sorted((p for p in whole if p.name[11:].isdecimal()), key=lambda p: int(p.name[11:]))
    if found and not resume:
        raise ResumeError(f"{folder} holds a training already; pass resume=True (--resume) to go on, or another folder")
    if resume and not found:
        raise ResumeError(f"{folder} holds no checkpoint to go on from; leave resume (--resume) out")
    return str(found[-1]) if found else None


def _require_trainer() -> Any:
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise InputError("training needs the package accelerate; run pip install 'pyneuro[train]'") from error
    import transformers

    return transformers
