"""Gradient unlearning (Lim et al. 2024): chosen neurons are trained away from what they do on biased samples.

The rows of W, and the entries of b, that compute the chosen neurons get their gradient reversed, everything else gets
none; the samples are those on which the model falls for the bias.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pyneuro.data import Pair
from pyneuro.data.probabilities import check_probabilities
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.sites import NeuronSet

Rows = Literal["reverse", "zero", "keep"]
ROWS: tuple[Rows, ...] = get_args(Rows)
Rest = Literal["freeze", "keep"]
RESTS: tuple[Rest, ...] = get_args(Rest)
_FACTOR = {"reverse": -1.0, "zero": 0.0, "keep": 1.0, "freeze": 0.0}


@contextmanager
def unlearning(clf: Classifier, neurons: NeuronSet, *, rows: Rows = "reverse", rest: Rest = "freeze") -> Iterator[None]:
    """Edit the gradients of a model's parameters as they are computed, for the length of a ``with`` block.

    By hooks on the parameters, before a gradient is added to ``.grad``: any loop that calls ``backward`` and an
    optimiser trains so, ``pyneuro.masking.fine_tune`` and HuggingFace's Trainer too. A neuron is a row of a linear
    layer here, at every token, whatever the convention: coordinate i of AO and O is row i of their dense layers.

    ====================  ==================================================================================
    rows, rest            what is trained
    ====================  ==================================================================================
    "reverse", "freeze"   the rows alone, up the gradient of the loss (Lim et al. 2024, after PCGU)
    "keep", "freeze"      the rows alone, down the gradient
    "zero", "keep"        everything but the rows
    "reverse", "keep"     everything, the rows up the gradient
    ====================  ==================================================================================

    An optimiser may move parameters without gradient, by weight decay or by momentum from before: use a fresh one, with
    weight decay 0. What was to stay is compared at the end of the block. Lim et al.'s code trains on
    ``advantaged_samples`` with learning rate 2e-6.

    Parameters
    ----------
    clf : Classifier
        Its parameters train; hooks and ``requires_grad`` are as before after the block, also after an error.
    neurons : NeuronSet
    rows : "reverse", "zero" or "keep"
        What becomes of the gradient of the chosen rows.
    rest : "freeze" or "keep"
        What becomes of all other gradients.

    Raises
    ------
    InputError
        For no neurons or those of another shape, unknown or pointless options, and layers that are masked; at the end
        of the block, where something moved that was to stay.
    """
    _check(clf, neurons, rows, rest)
    chosen = _rows(clf, neurons)
    names = {id(parameter): name for name, parameter in clf.model.named_parameters()}
    still = _Still(clf.model, chosen, rows, rest)
    with ExitStack() as undo:
        for parameter in clf.model.parameters():
            index = chosen.get(names[id(parameter)])
            if index is None and rest == "keep":
                continue
            # What is to stay is hooked as well, not only frozen: a trainer may unfreeze the whole model.
            undo.callback(parameter.requires_grad_, parameter.requires_grad)
            parameter.requires_grad_()
            undo.callback(parameter.register_hook(_hook(index, _FACTOR[rows], _FACTOR[rest])).remove)
        yield
    still.check()


def advantaged_samples(
    clf: Classifier,
    p_main: npt.ArrayLike,
    p_bias: npt.ArrayLike,
    pairs: Sequence[Pair],
    label: str = "entailment",
) -> npt.NDArray[np.bool_]:
    """Samples on which the model is wrong and a bias model predicts a class: bool [n] (Lim et al. 2024).

    Parameters
    ----------
    clf : Classifier
        The model that is to unlearn.
    p_main : float [n, K]
        Its probabilities, as ``pyneuro.evaluation.predict`` gives them.
    p_bias : float [n, K]
        Of a bias model, classes in the same order: ``BiasPredictions.for_pairs(pairs, clf.label_index)``.
    pairs : sequence of Pair [n]
        With labels of the model's.
    label : str
        The class that the bias speaks for.

    Raises
    ------
    InputError
        For arrays of another shape or that are no probabilities, and for labels that the model has not.
    """
    main, bias = check_probabilities("p_main", p_main), check_probabilities("p_bias", p_bias)
    wanted = (len(pairs), len(clf.label_index))
    for name, table in (("p_main", main), ("p_bias", bias)):
        if table.shape != wanted:
            raise InputError(f"{name} is {list(table.shape)} for {wanted[0]} pairs and {wanted[1]} classes")
    for pair in pairs:
        if pair.label not in clf.label_index:
            raise InputError(f"pair {pair.id!r} has label {pair.label!r}, and the model {', '.join(clf.label_index)}")
    gold = np.array([clf.label_index[str(pair.label)] for pair in pairs])
    return np.asarray((main.argmax(1) != gold) & (bias.argmax(1) == clf.target_index(label)))


def _check(clf: Classifier, neurons: NeuronSet, rows: str, rest: str) -> None:
    if neurons.shape != clf.shape:
        raise InputError(f"the neurons are of a model of {neurons.shape} and this one is {clf.shape}")
    if not len(neurons):
        raise InputError("no neurons to unlearn; pass at least one")
    for name, value, known in (("rows", rows, ROWS), ("rest", rest, RESTS)):
        if value not in known:
            raise InputError(f"{name} = {value!r} is not one of {', '.join(known)}")
    if (rows, rest) in (("zero", "freeze"), ("keep", "keep")):
        raise InputError(f"rows = {rows!r} with rest = {rest!r} trains {'nothing' if rows == 'zero' else 'as ever'}")


def _rows(clf: Classifier, neurons: NeuronSet) -> dict[str, Tensor]:
    """Indices int64 of the chosen rows, by the name of the parameter."""
    names = {id(parameter): name for name, parameter in clf.model.named_parameters()}
    out = {}
    for (layer, module), index in neurons.groups():
        linear = clf.adapter.module(clf.model, layer, module, "linear")
        if not isinstance(linear, nn.Linear):
            raise InputError(
                f"L{layer}.{module} is a {type(linear).__name__}, whose weights do not train; call "
                "pyneuro.masking.remove first"
            )
        for parameter in (linear.weight, linear.bias):
            if parameter is not None:
                out[names[id(parameter)]] = torch.tensor(index, device=parameter.device)
    return out


def _hook(index: Tensor | None, rows: float, rest: float) -> Callable[[Tensor], Tensor]:
    def hook(gradient: Tensor) -> Tensor:
        out = gradient * rest
        if index is not None:
            out[index] = gradient[index] * rows
        return out

    return hook


class _Still:
    """Digest of the parameters that are not to move."""

    def __init__(self, model: nn.Module, chosen: dict[str, Tensor], rows: str, rest: str) -> None:
        self._model, self._chosen = model, chosen
        self._rows, self._rest = rows == "zero", rest == "freeze"
        self._before = self._digest()

    def _digest(self) -> str:
        h = hashlib.sha256()
        for name, parameter in self._model.named_parameters():
            values, index = parameter.detach(), self._chosen.get(name)
            inside = torch.zeros(len(values), dtype=torch.bool, device=values.device) if values.dim() else None
            if inside is not None and index is not None:
                inside[index] = True
            if self._rest:
                self._add(h, values if inside is None else values[~inside])
            if self._rows and inside is not None:
                self._add(h, values[inside])
        return h.hexdigest()

    @staticmethod
    def _add(h: hashlib._Hash, values: Tensor) -> None:
        h.update(values.contiguous().cpu().flatten().view(torch.uint8).numpy().data)

    def check(self) -> None:
        if self._digest() != self._before:
            raise InputError(
                "parameters moved that get no gradient here; train with a fresh optimiser and weight_decay=0, and load "
                "the model anew"
            )
