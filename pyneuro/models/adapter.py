"""What pyneuro asks of a HuggingFace architecture, and the register of those it knows.

Adding one
----------
The engine analyses post-LayerNorm encoders with layers
``x1 = LN(x + AO(attention(x)))``, ``x2 = LN(x1 + O(gelu(I(x1))))`` and the head ``classifier(tanh(pooler(x2[0])))``;
``pyneuro.models.weights.forward`` is the exact statement. An architecture that computes this, whatever it calls its
parts, needs one small class:

1. write a class with the attributes and methods of ``Adapter`` below (``bert.py`` is the shortest example;
   ``roberta.py`` changes only the head and the number of positions);
2. call ``register_adapter(MyAdapter())``;
3. load a model. ``verify`` runs two probe pairs through ``embed`` and ``weights`` and through the model itself, and
   compares the logits and every site's value seen by a hook on ``module(...)``: an adapter that is wrong anywhere is
   refused with the site that differs.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.models.weights import Encoding, ModelWeights
from pyneuro.sites import ModelShape


class Adapter(Protocol):
    """One architecture. Stateless: the model is passed to every method."""

    name: str
    """The ``model_type`` of the HuggingFace config this adapter serves, such as ``"bert"``."""

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is this architecture's sequence classifier."""

    def shape(self, model: nn.Module) -> ModelShape: ...

    def max_positions(self, model: nn.Module) -> int:
        """The most tokens a sample may have."""

    def weights(self, model: nn.Module) -> ModelWeights:
        """Views of the model's parameters (detached, same storage, same dtype)."""

    def embed(self, model: nn.Module, encoding: Encoding) -> Tensor:
        """Embedding output [S, d] after its LayerNorm, in the model's dtype. Called with dropout off."""

    def module(self, model: nn.Module, layer: int, module: str, convention: str) -> nn.Module:
        """The submodule whose output, one tensor [B, S, width], is the site's value in the convention given."""

    def encoder_layer(self, model: nn.Module, layer: int) -> nn.Module:
        """The submodule that is encoder layer `layer`."""

    def head_linears(self, model: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The linear layers of the head: pooler and classifier."""


_REGISTERED: dict[str, Adapter] = {}


def register_adapter(adapter: Adapter) -> Adapter:
    """Make an architecture known to ``load`` and ``wrap``. A later adapter of the same name replaces the earlier."""
    _REGISTERED[adapter.name] = adapter
    return adapter


def adapter_names() -> tuple[str, ...]:
    """Names of the architectures known, sorted."""
    return tuple(sorted(_REGISTERED))


def find_adapter(model: nn.Module) -> Adapter:
    """The adapter that matches `model`. Raises InputError listing the architectures known."""
    for adapter in reversed(_REGISTERED.values()):
        if adapter.matches(model):
            return adapter
    raise unsupported(type(model).__name__)


def unsupported(what: Any) -> InputError:
    """The error for an architecture without an adapter."""
    return InputError(
        f"no adapter for architecture {what!r}; pyneuro knows sequence classifiers of {', '.join(adapter_names())}; "
        "to add an encoder of the same layer form, write one class and call register_adapter, as the docstring of "
        "pyneuro.models.adapter says"
    )
