"""How an operation is registered with torch: schema, CPU and CUDA kernels, reference for every other device and dtype,
fake for tracing.

The operations on differences are forward only: they serve sweeps under ``torch.no_grad()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyneuro.ops import cuda as _cuda
from pyneuro.ops import native as _native

LIBRARY = torch.library.Library("pyneuro", "DEF")
# What an operation does on a CUDA device, by name; tests call it with kernels that run on the host.
ON_CUDA: dict[str, Callable[..., Any]] = {}


def register(
    schema: str,
    *,
    reference: Callable[..., Tensor],
    kernel: Callable[..., Tensor],
    cuda: Callable[..., Tensor],
    check: Callable[..., tuple[int, ...]],
    dtype: Callable[..., torch.dtype] | None = None,
) -> None:
    """Register ``pyneuro::<name>``.

    Parameters
    ----------
    schema : str
        torch schema, with the name.
    reference : callable
        The definition in plain torch.
    kernel : callable
        Calls the native kernel on contiguous fp32 CPU tensors. The CPU knows no units: it gets every argument but that.
    cuda : callable
        Calls the device kernels on contiguous tensors of a CUDA device; fp32, or differences in fp16.
    check : callable
        Takes the op's arguments, raises ValueError naming the one that does not fit, returns the output's shape.
    dtype : callable, optional
        Takes the op's arguments, returns the output's dtype; the first argument's where it is not given.
    """

    arguments = schema.partition("->")[0]
    in_units, arity = "Tensor? unit" in arguments, arguments.count(",") + 1

    def on_cpu(*args: Tensor | None) -> Tensor:
        check(*args)
        given, unit = (args[: arity - 1], args[arity - 1 :]) if in_units else (args, ())
        known = _dtypes(args) <= {torch.float32, torch.bfloat16, torch.int64}
        if not (_native.built() and known) or any(u is not None for u in unit):
            return reference(*args)
        return kernel(*_contiguous(given))

    def fake(*args: Tensor | None) -> Tensor:
        first = args[0]
        assert first is not None
        return first.new_empty(check(*args), dtype=first.dtype if dtype is None else dtype(*args))

    def on_cuda(*args: Tensor | None) -> Tensor:
        shape = check(*args)
        if not _cuda.cuda_built() or not _dtypes(args) <= {torch.float32, torch.float16, torch.int64}:
            return reference(*args)
        if 0 in shape:
            return fake(*args)
        return cuda(*_contiguous(args))

    def elsewhere(*args: Tensor | None) -> Tensor:
        check(*args)
        return reference(*args)

    define(schema, cpu=on_cpu, cuda=on_cuda, elsewhere=elsewhere, fake=fake)


def _dtypes(args: Sequence[Tensor | None]) -> set[torch.dtype]:
    return {a.dtype for a in args if a is not None}


def _contiguous(args: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    return (None if a is None else a.contiguous() for a in args)


def define(
    schema: str,
    *,
    cpu: Callable[..., Any],
    cuda: Callable[..., Any],
    elsewhere: Callable[..., Any],
    fake: Callable[..., Any],
    autograd: Callable[..., Any] | None = None,
) -> None:
    """Register ``pyneuro::<name>`` by its implementations: on the CPU, on a CUDA device, on other devices, for tracing,
    and, where it has gradients, one that wraps an ``autograd.Function``."""
    name = schema.partition("(")[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, cpu, "CPU")
    LIBRARY.impl(name, cuda, "CUDA")
    ON_CUDA[name] = cuda
    LIBRARY.impl(name, elsewhere, "CompositeExplicitAutograd")
    if autograd is not None:
        LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"pyneuro::{name}", fake)


def expect(op: str, what: str, tensor: Tensor, *shape: int | None) -> None:
    """Raise ValueError unless the tensor has this shape (None: any size)."""
    got = tensor.shape
    if len(got) != len(shape) or any(want is not None and want != size for want, size in zip(shape, got, strict=True)):
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise ValueError(f"{op}: {what} must be [{wanted}], got {list(got)}")
