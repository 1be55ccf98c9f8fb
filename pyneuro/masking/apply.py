"""Putting masks on a model's linear layers: which ones, and what the scores start from."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from pyneuro.errors import InputError, is_number
from pyneuro.masking.linear import RULES, TAU, FixedMaskLinear, MaskedLinear, Rule, Structure, check_tau, logit
from pyneuro.models.adapter import find_adapter
from pyneuro.models.classifier import Classifier
from pyneuro.sites import MODULES

HEAD_MODULES = ("P", "T")  # pooler and classifier, as Zhao et al. call them
START_DEPTH = 0.02  # of Zhao et al.: how far below 0 a score may start
DEFAULT_SPARSITY: dict[Rule, float] = {"threshold": 0.05, "sigmoid": 0.0, "bernoulli": 0.05}
Start = Literal["uniform", "magnitude", "constant"]
STARTS: tuple[Start, ...] = get_args(Start)


@dataclass(frozen=True)
class Place:
    """A linear layer of a classifier.

    Parameters
    ----------
    name : str
        Dotted name of the module in the HuggingFace model.
    layer : int or None
        Encoder layer, from 0; None for pooler and classifier.
    module : str
        Q, K, V, AO, I or O; P for the pooler, T for the classifier.
    """

    name: str
    layer: int | None
    module: str


def places(
    model: nn.Module | Classifier, modules: str | Sequence[str] = "all", layers: str | Sequence[int] = "all"
) -> list[Place]:
    """Linear layers of a sequence classifier, in the order data passes them.

    Parameters
    ----------
    model : HuggingFace sequence classifier, or Classifier
    modules : sequence of str, or "encoder" (Q, K, V, AO, I, O) or "all" (those, P and T)
    layers : sequence of int, or "all", "top:N" or "bottom:N"
        Encoder layers, from 0. P and T do not depend on it.

    Raises InputError for an unknown module or layer, and for an architecture without an adapter.
    """
    model = model_of(model)
    adapter = find_adapter(model)
    wanted = _modules(modules)
    numbers = _layers(layers, adapter.shape(model).layers)
    names = {module: name for name, module in model.named_modules()}
    found = [
        Place(names[adapter.module(model, number, module, "linear")], number, module)
        for number in numbers
        for module in MODULES
        if module in wanted
    ]
    head = dict(zip(HEAD_MODULES, adapter.head_linears(model), strict=True))
    return found + [Place(names[head[m]], None, m) for m in HEAD_MODULES if m in wanted]


def apply(
    model: nn.Module | Classifier,
    modules: str | Sequence[str] = "all",
    layers: str | Sequence[int] = "all",
    *,
    rule: Rule = "threshold",
    tau: float | None = None,
    sparsity: float | None = None,
    start: Start | None = None,
    structure: Literal["weight", "row", "head"] = "weight",
    mask_bias: bool = False,
    seed: int = 0,
) -> dict[str, MaskedLinear]:
    """Mask linear layers of a classifier, in place, and freeze everything but the scores.

    Parameters
    ----------
    model : HuggingFace sequence classifier, or Classifier
    modules, layers
        As for ``places``.
    rule, mask_bias
        As for ``MaskedLinear``.
    tau : float, optional
        As for ``MaskedLinear``. Default: 0.01 for "threshold", 0.1 for "sigmoid", 0.95 for "topk".
    sparsity : float, optional
        Share of weights masked at the start, in [0, 1): 0.05 is 5 % zeros. Exact to one score a layer. Default: 0.05
        for "threshold" and "bernoulli", 0 for "sigmoid"; "topk" masks 1 − τ and takes none.
    start : "uniform", "magnitude" or "constant", optional
        "uniform" draws scores as Zhao et al. do, from U(−0.02, b) with b such that the asked share lies below τ;
        "magnitude" masks the smallest weights; "constant" masks nothing. Default: "uniform", where anything is masked.
    structure : "weight", "row" or "head"
        What a score decides over. "head": the rows of a head in Q, K and V, the columns in AO; not for other modules.
    seed : int

    Returns
    -------
    dict of str to MaskedLinear
        By the name of the module in the model.

    Raises
    ------
    InputError
        As ``places``, for a sparsity outside [0, 1), and for a model that is masked already.
    """
    model = model_of(model)
    tau, share, start = _settings(rule, tau, sparsity, start)
    chosen = places(model, modules, layers)
    if not chosen:
        raise InputError("no linear layer is chosen; pass at least one module, and a layer for those of the encoder")
    require_unmasked(model)
    generator = torch.Generator().manual_seed(seed)
    heads = find_adapter(model).shape(model).heads
    layers_of: dict[str, MaskedLinear] = {}
    for place in chosen:
        linear = model.get_submodule(place.name)
        assert isinstance(linear, nn.Linear)
        kind, number = _structure(structure, place, heads)
        found = MaskedLinear.from_linear(linear, tau, rule=rule, structure=kind, heads=number, mask_bias=mask_bias)
        if start != "constant":
            found.set_scores(_start(found, start, share, generator))
        layers_of[place.name] = found
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name, found in layers_of.items():
        put(model, name, found)
    return layers_of


def remove(model: nn.Module | Classifier, *, keep_mask: bool = True) -> None:
    """Turn masked linear layers back into ordinary ones, in place; with W ∘ M for weight, or the frozen W itself.

    Parameters stay frozen; call ``model.requires_grad_()`` to train them.
    """
    model = model_of(model)
    for name, layer in list(masked_layers(model).items()):
        weight, bias = layer.effective() if keep_mask else (layer.weight, layer.bias)
        put(model, name, _linear(weight, bias).train(layer.training))


def masked_layers(model: nn.Module | Classifier) -> dict[str, MaskedLinear | FixedMaskLinear]:
    """Masked linear layers by name. Raises InputError where there are none."""
    found = {
        name: module
        for name, module in model_of(model).named_modules()
        if isinstance(module, (MaskedLinear, FixedMaskLinear))
    }
    if not found:
        raise InputError("the model has no masked layers; call pyneuro.masking.apply first")
    return found


@contextmanager
def without(model: nn.Module | Classifier, names: Sequence[str]) -> Iterator[None]:
    """The model with some of its masked layers unmasked, for the length of a ``with`` block."""
    model = model_of(model)
    masked = masked_layers(model)
    layers = {name: masked[name] for name in names}
    try:
        for name, layer in layers.items():
            put(model, name, _linear(layer.weight, layer.bias).train(layer.training))
        yield
    finally:
        for name, layer in layers.items():
            put(model, name, layer)


def require_unmasked(model: nn.Module) -> None:
    """Raises InputError for a model with masked layers."""
    masked = next((n for n, m in model.named_modules() if isinstance(m, (MaskedLinear, FixedMaskLinear))), None)
    if masked is not None:
        raise InputError(f"{masked} is masked already; call pyneuro.masking.remove first, or load the model anew")


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the submodule of this dotted name."""
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def model_of(model: nn.Module | Classifier) -> nn.Module:
    return model.model if isinstance(model, Classifier) else model


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A frozen linear layer of these."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear


def _modules(modules: str | Sequence[str]) -> set[str]:
    known = (*MODULES, *HEAD_MODULES)
    if isinstance(modules, str):
        if modules in ("all", "encoder"):
            return set(known if modules == "all" else MODULES)
        modules = [modules]
    if not isinstance(modules, Iterable):
        raise InputError(f"modules = {modules!r}; pass 'all', 'encoder', or some of {', '.join(known)}")
    for module in modules:
        if module not in known:
            raise InputError(f"module {module!r} is not one of {', '.join(known)}, nor 'encoder' or 'all'")
    return set(modules)


def _layers(layers: str | Sequence[int], count: int) -> list[int]:
    if isinstance(layers, str):
        if layers == "all":
            return list(range(count))
        side, _, number = layers.partition(":")
        if side not in ("top", "bottom") or not number.isdecimal() or int(number) > count:
            raise InputError(f"layers = {layers!r}; pass 'all', 'top:N' or 'bottom:N' with N up to {count}, or numbers")
        n = int(number)
        return list(range(count - n, count) if side == "top" else range(n))
    try:
        numbers = {operator.index(layer) for layer in layers}
    except TypeError:
        raise InputError(f"layers = {layers!r}; pass numbers, 'all', 'top:N' or 'bottom:N'") from None
    if odd := [layer for layer in numbers if not 0 <= layer < count]:
        raise InputError(f"layer {odd[0]} does not exist: the model has layers 0 to {count - 1}")
    return sorted(numbers)


def _structure(structure: str, place: Place, heads: int) -> tuple[Structure, int | None]:
    match structure:
        case "weight":
            return "weight", None
        case "row":
            return "row", None
        case "head" if place.module in ("Q", "K", "V"):
            return "head_rows", heads
        case "head" if place.module == "AO":
            return "head_columns", heads
        case "head":
            raise InputError(
                f"structure 'head' and module {place.module}: only Q, K, V and AO have heads; choose modules"
            )
    raise InputError(f"structure = {structure!r} is not one of weight, row, head")


def _settings(rule: Rule, tau: float | None, sparsity: float | None, start: Start | None) -> tuple[float, float, Start]:
    """τ, the share masked at the start, and what it starts from."""
    if rule not in RULES:
        raise InputError(f"rule = {rule!r} is not one of {', '.join(RULES)}")
    tau = check_tau(rule, tau)
    if start not in (None, *STARTS):
        raise InputError(f"start = {start!r} is not one of {', '.join(STARTS)}")
    if rule == "topk":
        if sparsity is not None:
            raise InputError(f"rule 'topk' masks 1 - tau = {1 - tau:.3g} of the weights; leave sparsity out")
        return tau, 1 - tau, start or "uniform"
    share = DEFAULT_SPARSITY[rule] if sparsity is None else sparsity
    if not is_number(share) or not 0 <= share < 1:
        raise InputError(f"sparsity = {sparsity!r}; pass the share of weights to mask, in [0, 1): 0.05 is 5 % zeros")
    start = start or ("uniform" if share else "constant")
    if start == "constant" and share:
        raise InputError(f"start 'constant' masks nothing, and sparsity is {share}; pass sparsity=0")
    return tau, float(share), start


def _start(layer: MaskedLinear, start: Start, sparsity: float, generator: torch.Generator) -> Tensor:
    """Scores of which the asked share is masked."""
    total, masked = layer.scores.numel(), round(sparsity * layer.scores.numel())
    bar = {"threshold": layer.tau, "sigmoid": logit(layer.tau)}.get(layer.rule, 0.0)
    if start == "magnitude":
        scores = torch.full((total,), bar + TAU)
        scores[_size(layer).flatten().argsort(stable=True).cpu()[:masked]] = bar - TAU
    else:
        low = -START_DEPTH if layer.rule == "threshold" and bar > -START_DEPTH else bar - START_DEPTH
        high = (bar - low) / max(sparsity, 0.01) + low  # a share `sparsity` of U(low, high) lies below the bar
        draw = torch.rand(total, generator=generator)
        scores = high - (high - bar) * draw  # (bar, high]
        below = torch.randperm(total, generator=generator)[:masked]
        scores[below] = low + (bar - low) * draw[below]
    return scores.view(layer.scores.shape).to(layer.scores.device)


def _size(layer: MaskedLinear) -> Tensor:
    """|W|, summed over what a score decides over."""
    size = layer.weight.detach().abs().float()
    rows, columns = layer.scores.shape
    return size.view(rows, size.shape[0] // rows, columns, size.shape[1] // columns).sum((1, 3))
