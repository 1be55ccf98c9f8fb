"""Training masks, and fine-tuning beside them: what goes in is checked here, ``trainer`` runs it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from pyneuro.data.pairs import Pair, pairs_digest
from pyneuro.data.probabilities import check_probabilities
from pyneuro.errors import InputError
from pyneuro.masking.apply import masked_layers, places, require_unmasked
from pyneuro.masking.linear import MaskedLinear
from pyneuro.masking.masks import Masks, base_digest
from pyneuro.masking.schedule import ATTENTION, CubicSchedule, SparsityControl, l1
from pyneuro.masking.trainer import Options, Run, longest_sample
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
    loss : str or callable
        One of ``pyneuro.reweighting.LOSSES`` by name, or ``loss(logits [B, C], labels [B], known) -> scalar``.
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
        `resume` without a checkpoint in `out`, or with one of a training that was made of something else; `out` with a
        checkpoint and no `resume`.
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

    for name, value, kind in (("tau", tau, CubicSchedule), ("sparsity", sparsity, SparsityControl)):
        if value is not None and not isinstance(value, kind):
            raise InputError(f"{name} = {value!r}; pass a pyneuro.masking.{kind.__name__}")
    if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
        raise InputError(
            f"loss = {type(loss).__name__} has parameters that learn, and nothing but scores is trained here; freeze "
            "them, or use pyneuro.masking.fine_tune"
        )
    before = base_digest(clf)
    about: dict[str, Any] = {
        "masks": {n: m.extra_repr() for n, m in layers.items()},
        "scores": _digest(m.scores for m in modules),
    }
    about |= {"tau": repr(tau), "l1": [l1_attention, l1_dense], "control": repr(sparsity)}
    options = Options(epochs, lr, 0.0, batch_size, warmup, max_length, seed)
    run = _run(clf, pairs, validation, options, loss, known, {"base": before, **about}, penalty, at_step, sparsity)
    found = run.fit(out, resume, progress)
    if base_digest(clf) != before:
        raise RuntimeError("the frozen weights changed while the masks trained")
    masks = Masks.of(clf, loss=_name(loss), seed=seed)
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
    require_unmasked(clf.model)
    options = Options(epochs, lr, weight_decay, batch_size, warmup, max_length, seed)
    run = _run(clf, pairs, validation, options, loss, known, {"base": base_digest(clf)})
    clf.model.requires_grad_()
    found = run.fit(out, resume, progress)
    return Training(*found, masks=None, seconds=run.seconds)


def _run(
    clf: Classifier,
    pairs: Sequence[Pair],
    validation: Sequence[Pair] | None,
    options: Options,
    loss: str | Loss,
    known: Known | None,
    about: dict[str, Any],
    *hooks: Any,
) -> Run:
    """A training whose input is checked, with what it is made of: only the same goes on from its checkpoints."""
    samples = _checked(clf, pairs, options.max_length)
    table = _known(known, len(pairs), loss, len(clf.label_index))
    settings = {
        **about,
        **asdict(options),
        "loss": _name(loss),
        "pairs": pairs_digest(pairs),
        "validation": None if validation is None else pairs_digest(validation),
        "known": {name: _digest([values]) for name, values in table.items()},
    }
    if validation is not None:
        _gold(clf, validation)
    return Run(clf, _loss(loss), samples, table, validation, options, settings, *hooks)


def _name(loss: str | Loss) -> str:
    return loss if isinstance(loss, str) else getattr(loss, "__name__", "callable")


def _digest(tensors: Iterable[Tensor]) -> str:
    h = hashlib.sha256()
    for tensor in tensors:
        h.update(tensor.detach().cpu().contiguous().numpy().data)
    return h.hexdigest()[:16]


def _checked(clf: Classifier, pairs: Sequence[Pair], max_length: int | None) -> list[dict[str, Any]]:
    """Tokens and gold class of every pair."""
    gold = _gold(clf, pairs)
    options = {"truncation": True, "max_length": longest_sample(clf, max_length)}
    return [
        {**clf.tokenizer(pair.premise, pair.hypothesis, **options), "labels": label}
        for pair, label in zip(pairs, gold, strict=True)
    ]


def _gold(clf: Classifier, pairs: Sequence[Pair]) -> list[int]:
    """Gold class of every pair. Raises InputError for no pairs, and for one without a label of the model's."""
    if not len(pairs):
        raise InputError("no pairs; pass at least one")
    for pair in pairs:
        if pair.label is None or pair.label not in clf.label_index:
            raise InputError(
                f"pair {pair.id!r} has label {pair.label!r} and the model has {', '.join(clf.label_index)}; drop the "
                "pair"
            )
    return [clf.label_index[str(pair.label)] for pair in pairs]


def _loss(loss: str | Loss) -> Loss:
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise InputError(f"loss = {loss!r} is not one of {', '.join(LOSSES)}, nor a callable")
    return LOSSES[loss]


def _known(known: Known | None, n: int, loss: str | Loss, classes: int) -> dict[str, Tensor]:
    if known is not None and not isinstance(known, Mapping):
        raise InputError(f"known is {type(known).__name__}; pass a mapping such as {{'bias': probabilities}}")
    tensors = {name: torch.as_tensor(np.asarray(values, dtype=np.float32)) for name, values in (known or {}).items()}
    for name, values in tensors.items():
        if values.dim() < 1 or len(values) != n:
            raise InputError(f"known[{name!r}] is {list(values.shape)} for {n} pairs; pass one row a pair")
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"known[{name!r}] holds NaN or infinite values")
        if (
            isinstance(loss, str)
            and name != "weight"
            and check_probabilities(f"known[{name!r}]", values).shape[1] != classes
        ):
            raise InputError(f"known[{name!r}] has {values.shape[1]} classes and the model {classes}")
    return tensors
