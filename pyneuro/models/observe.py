"""Reading sites off a HuggingFace forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pyneuro.models.classifier import Classifier
from pyneuro.sites import Module


@contextmanager
def observe(
    clf: Classifier, convention: str, *, token: int | None = None
) -> Iterator[dict[tuple[int, Module], Tensor]]:
    """Watch every site for the length of a ``with`` block.

    Yields a dict that each forward of ``clf.model`` fills, keyed (layer, module), with that site's output [B, S,
    width], detached; or, with `token`, with a copy of that token's rows [B, width] alone, so that a large batch does
    not stay in memory once for every site. The hooks are gone after the block, also after an error.
    """
    seen: dict[tuple[int, Module], Tensor] = {}
    handles = []

    def watcher(site: tuple[int, Module]) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            seen[site] = output.detach() if token is None else output.detach()[:, token].clone()

        return hook

    try:
        for site in clf.shape.groups():
            module = clf.adapter.module(clf.model, *site, convention)
            handles.append(module.register_forward_hook(watcher(site)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
