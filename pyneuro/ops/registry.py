"""How an operation is registered with torch: schema, CPU kernel, reference for every other device and dtype, fake for
tracing.

The operations on differences are forward only: they serve sweeps under ``torch.no_grad()``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyneuro.ops import native as _native

LIBRARY = torch.library.Library("pyneuro", "DEF")


def register(
    schema: str,
    *,
    reference: Callable[..., Tensor],
    kernel: Callable[..., Tensor],
    check: Callable[..., tuple[int, ...]],
) -> None:
    """Register ``pyneuro::<name>``.

    Parameters
    ----------
    schema : str
        torch schema, with the name.
    reference : callable
        The definition in plain torch.
    kernel : callable
        Calls the native kernel on contiguous fp32 CPU tensors.
    check : callable
        Takes the op's arguments, raises ValueError naming the one that does not fit, returns the output's shape.
    """

    def on_cpu(*args: Tensor | None) -> Tensor:
        check(*args)
        tensors = [a for a in args if a is not None]
        if not _native.built() or any(t.dtype != torch.float32 for t in tensors if t.dtype != torch.bfloat16):
            return reference(*args)
        return kernel(*(None if a is None else a.contiguous() for a in args))

    def elsewhere(*args: Tensor | None) -> Tensor:
        check(*args)
        return reference(*args)

    def fake(*args: Tensor | None) -> Tensor:
        first = args[0]
        assert first is not None
        return first.new_empty(check(*args))

    define(schema, cpu=on_cpu, elsewhere=elsewhere, fake=fake)


def define(
    schema: str,
    *,
    cpu: Callable[..., Any],
    elsewhere: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: Callable[..., Any] | None = None,
) -> None:
    """Register ``pyneuro::<name>`` by its implementations: on the CPU, on other devices, for tracing, and, where it has
    gradients, one that wraps an ``autograd.Function``."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, cpu, "CPU")
    LIBRARY.impl(name, elsewhere, "CompositeExplicitAutograd")
    if autograd is not None:
        LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"pyneuro::{name}", fake)


def expect(op: str, what: str, tensor: Tensor, *shape: int | None) -> None:
    """Raise ValueError unless the tensor has this shape (None: any size)."""
    fits = tensor.dim() == len(shape) and all(
        want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise ValueError(f"{op}: {what} must be [{wanted}], got {list(tensor.shape)}")
