"""A classifier with neurons under an intervention, in every forward of the HuggingFace model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier
from pyneuro.sites import CONVENTIONS, NeuronSet


@contextmanager
def intervened(
    clf: Classifier,
    neurons: NeuronSet,
    intervention: Intervention,
    *,
    convention: str = "linear",
    token: Literal[0, "all"] = 0,
    values: Values | None = None,
    treatment: str | None = None,
) -> Iterator[None]:
    """Patch neurons jointly in every forward of ``clf.model``, for the length of a ``with`` block.

    By forward hooks, so that gradients flow through it and any code that runs the model meets it. ``pyneuro.search``
    does not: it reads the weights; search with ``sites={name: neurons}`` and the same intervention instead. The hooks
    are gone after the block, also after an error. Blocks may stand within each other: the inner one patches last.

    Parameters
    ----------
    clf : Classifier
    neurons : NeuronSet
        None of them changes nothing.
    intervention : Intervention
    convention : "linear" or "hook"
        Where a neuron is, see ``pyneuro.sites``.
    token : 0 or "all"
        [CLS] alone, or every token; in a batch, padding too, which nothing attends to.
    values : Values, optional
        Replacement values, for ``replace`` and ``add``.
    treatment : str, optional
        Whose values; needed where there are several.

    Raises
    ------
    InputError
        For neurons of another model's shape, values of another model or convention, values that are missing or not
        taken, a treatment that is not clear, and another token.
    """
    if neurons.shape != clf.shape:
        raise InputError(f"the neurons are of a model of {neurons.shape} and this one is {clf.shape}")
    if convention not in CONVENTIONS:
        raise InputError(f"convention {convention!r} is not one of {', '.join(CONVENTIONS)}")
    if token not in (0, "all"):
        raise InputError(f"token = {token!r}; pass 0, the position of [CLS], or 'all'")
    named = _treatment(clf, neurons, intervention, convention, values, treatment)
    with ExitStack() as hooks:
        for (layer, module), index in neurons.groups():
            z = None
            if values is not None and named is not None:
                z = torch.tensor(values.array(named, layer, module)[index], device=clf.device)
            editor = _editor(torch.tensor(index, device=clf.device), z, intervention, token)
            place = clf.adapter.module(clf.model, layer, module, convention)
            hooks.callback(place.register_forward_hook(editor).remove)
        yield


def _treatment(
    clf: Classifier,
    neurons: NeuronSet,
    intervention: Intervention,
    convention: str,
    values: Values | None,
    treatment: str | None,
) -> str | None:
    """Whose values are used, if any."""
    if not intervention.needs_values:
        if values is not None or treatment is not None:
            raise InputError(f"intervention {intervention.kind!r} takes no values; leave values and treatment out")
        return None
    if values is None:
        raise InputError(f"intervention {intervention.kind!r} needs replacement values; pass mean_activations(...)")
    values.check(clf, convention, [site for site, _ in neurons.groups()])
    if treatment is None and len(values.treatments) > 1:
        raise InputError(f"whose values? pass treatment, one of {', '.join(values.treatments)}")
    if treatment is not None and treatment not in values.treatments:
        raise InputError(f"treatment {treatment!r} is not one of {', '.join(values.treatments)}")
    return treatment or values.treatments[0]


def _editor(
    index: Tensor, z: Tensor | None, intervention: Intervention, token: Literal[0, "all"]
) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    tokens = slice(None) if token == "all" else slice(1)

    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        out = output.clone()  # the module may keep its own for the backward
        a = output[:, tokens][..., index].double()
        out[:, tokens, index] = (a + intervention.change(a, z)).to(output.dtype)
        return out

    return hook
