"""masked_linear: a linear layer whose frozen weight is masked on the fly, with gradients for its input and the mask's
scores; masked_linear_packed: the same for a mask that is fixed; masked_linear_multi: many masks over one weight.

Nothing of the weight's size is kept for the backward but the mask's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyneuro.ops import cuda, reference
from pyneuro.ops.native import built, native, threads
from pyneuro.ops.registry import define, expect


def _check(op: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(f"{op}: weight must be [out, in] and not empty, got {list(weight.shape)}")
    if x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{op}: x must be [..., {weight.shape[1]}] for weight {list(weight.shape)}, got {list(x.shape)}"
        )
    if bias is not None:
        expect(op, "bias", bias, weight.shape[0])
    for what, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise ValueError(f"{op}: {what} is {tensor.dtype} and x is {x.dtype}; convert one of them")


def _check_bits(op: str, weight: Tensor, bits: Tensor, *leading: int | None) -> None:
    expect(op, "bits", bits, *leading, weight.shape[0], -(-weight.shape[1] // 8))
    if bits.dtype != torch.uint8:
        raise ValueError(f"{op}: bits must be uint8, got {bits.dtype}")


def _has_kernel(x: Tensor) -> bool:
    return built() and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and native().bf16))


def _frozen(weight: Tensor) -> Any:
    return native().module.Frozen(weight.data_ptr(), *weight.shape, weight.dtype == torch.bfloat16)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None or not tensor.numel() else tensor.data_ptr()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _output(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _bits(weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape[0], -(-weight.shape[1] // 8), dtype=torch.uint8)


def _run(
    x: Tensor,
    weight: Tensor,
    scores: Tensor | None,
    threshold: float,
    bits: Tensor,
    bias: Tensor | None,
    mask_bias: bool,
) -> Tensor:
    x, weight, bias = x.contiguous(), weight.contiguous(), _contiguous(bias)
    scores = None if scores is None else scores.float().contiguous()
    y = _output(x, weight)
    native().module.masked_linear(
        native().isa,
        _address(x),
        _frozen(weight),
        _address(scores),
        threshold,
        bits.data_ptr(),
        _address(bias),
        mask_bias,
        _address(y),
        y.numel() // weight.shape[0],
        threads(),
    )
    return y


def _implementations(
    check: Callable[..., None],
    kernel: Callable[..., Any],
    on_cuda: Callable[..., Any],
    definition: Callable[..., Any],
) -> dict[str, Callable[..., Any]]:
    """What runs on the CPU, on a CUDA device and elsewhere; the first argument's dtype decides whether there is a
    kernel."""

    def on(has_kernel: Callable[[Tensor], bool], kernel: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any) -> Any:
            check(*args)
            return (kernel if has_kernel(args[0]) else definition)(*args)

        return checked

    return {
        "cpu": on(_has_kernel, kernel),
        "cuda": on(_has_device_kernel, on_cuda),
        "elsewhere": on(lambda x: False, kernel),
    }


# On a CUDA device the masked weight is written once, for the matrix library's product.


def _has_device_kernel(x: Tensor) -> bool:
    return cuda.cuda_built() and x.dtype in (torch.float32, torch.float16, torch.bfloat16)


def _masked_weight(weight: Tensor, bits: Tensor, scores: Tensor | None = None, threshold: float = 0.0) -> Tensor:
    """W ∘ M; where there are scores they decide M, and its bits are written."""
    weight, masked = weight.contiguous(), torch.empty_like(weight, memory_format=torch.contiguous_format)
    scores = None if scores is None else scores.float().contiguous()
    pointers = (weight.data_ptr(), weight.element_size() == 2, cuda.address(scores), threshold)
    cuda.launch("mask_weight", weight, *pointers, bits.data_ptr(), masked.data_ptr(), *weight.shape)
    return masked


def _scored_cuda(
    x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
) -> tuple[Tensor, Tensor]:
    bits = _bits(weight)
    masked = _masked_weight(weight, bits, scores, threshold)
    return F.linear(x, masked, reference.masked_bias(bias, bits, mask_bias)), bits


def _packed_cuda(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> Tensor:
    return F.linear(x, _masked_weight(weight, bits.contiguous()), reference.masked_bias(bias, bits, mask_bias))


def _backward_cuda(
    dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor, of_input: bool, of_scores: bool
) -> tuple[Tensor, Tensor]:
    dx, dscores = _gradients(x, weight, of_input, of_scores)
    if of_input:
        dx = dy @ _masked_weight(weight, bits.contiguous())
    if of_scores:
        left, right = dy.reshape(-1, dy.shape[-1]).T, x.reshape(-1, x.shape[-1])
        product = torch.mm(left, right) if x.dtype == torch.float32 else torch.mm(left, right, torch.float32)
        dscores = product.mul_(weight)
    return dx, dscores


def _multi_cuda(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool, shared: bool) -> Tensor:
    y = _multi_output(x, weight, bits, shared)
    for number, mask in enumerate(bits):
        y[number] = _packed_cuda(x if shared else x[number], weight, mask, bias, mask_bias)
    return y


# masked_linear


def _check_scored(
    x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
) -> None:
    _check("masked_linear", x, weight, bias)
    expect("masked_linear", "scores", scores, *weight.shape)


def _scored(
    x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
) -> tuple[Tensor, Tensor]:
    bits = _bits(weight)
    return _run(x, weight, scores, threshold, bits, bias, mask_bias), bits


def _scored_fake(x: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    _check_scored(x, weight, *rest)
    return _output(x, weight), _bits(weight)


# masked_linear_packed


def _check_packed(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> None:
    _check("masked_linear_packed", x, weight, bias)
    _check_bits("masked_linear_packed", weight, bits)


def _packed(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> Tensor:
    return _run(x, weight, None, 0.0, bits.contiguous(), bias, mask_bias)


def _packed_fake(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    _check_packed(x, weight, *rest)
    return _output(x, weight)


# masked_linear_backward: a gradient that is not wanted comes back empty


def _check_backward(dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor, of_input: bool, of_scores: bool) -> None:
    _check("masked_linear_backward", x, weight, None)
    _check_bits("masked_linear_backward", weight, bits)
    expect("masked_linear_backward", "dy", dy, *x.shape[:-1], weight.shape[0])


def _gradients(x: Tensor, weight: Tensor, of_input: bool, of_scores: bool) -> tuple[Tensor, Tensor]:
    """Empty tensors for them."""
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    dscores = weight.new_empty(weight.shape if of_scores else (0,), dtype=wide)
    return x.new_empty(x.shape if of_input else (0,)), dscores


def _backward(
    dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor, of_input: bool, of_scores: bool
) -> tuple[Tensor, Tensor]:
    dx, dscores = _gradients(x, weight, of_input, of_scores)
    if not dy.numel():
        return dx, dscores.zero_()
    dy, x, weight, bits = (t.contiguous() for t in (dy, x, weight, bits))
    native().module.masked_linear_backward(
        native().isa,
        _address(dy),
        _address(x),
        _frozen(weight),
        bits.data_ptr(),
        _address(dx),
        _address(dscores),
        dy.numel() // weight.shape[0],
        threads(),
    )
    return dx, dscores


def _backward_definition(
    dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor, of_input: bool, of_scores: bool
) -> tuple[Tensor, Tensor]:
    dx, dscores = _gradients(x, weight, of_input, of_scores)
    found = reference.masked_linear_backward(dy, x, weight, bits)
    return (found[0].contiguous() if of_input else dx), (found[1].to(dscores.dtype) if of_scores else dscores)


def _backward_fake(
    dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor, of_input: bool, of_scores: bool
) -> tuple[Tensor, Tensor]:
    _check_backward(dy, x, weight, bits, of_input, of_scores)
    return _gradients(x, weight, of_input, of_scores)


# masked_linear_multi


def _check_multi(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool, shared: bool) -> None:
    _check("masked_linear_multi", x, weight, bias)
    _check_bits("masked_linear_multi", weight, bits, None)
    if not shared and (x.dim() < 2 or x.shape[0] != len(bits)):
        raise ValueError(
            f"masked_linear_multi: x must be [{len(bits)}, ..., in], one input a mask, got {list(x.shape)}"
        )


def _multi(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool, shared: bool) -> Tensor:
    x, weight, bits, bias = x.contiguous(), weight.contiguous(), bits.contiguous(), _contiguous(bias)
    y = _multi_output(x, weight, bits, shared)
    if y.numel():
        native().module.masked_linear_multi(
            native().isa,
            _address(x),
            shared,
            _frozen(weight),
            bits.data_ptr(),
            _address(bias),
            mask_bias,
            _address(y),
            len(bits),
            y[0].numel() // weight.shape[0],
            threads(),
        )
    return y


def _multi_output(x: Tensor, weight: Tensor, bits: Tensor, shared: bool) -> Tensor:
    return x.new_empty(len(bits), *x.shape[0 if shared else 1 : -1], weight.shape[0])


def _multi_fake(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool, shared: bool) -> Tensor:
    _check_multi(x, weight, bits, bias, mask_bias, shared)
    return _multi_output(x, weight, bits, shared)


# Gradients


def _require_frozen(weight: Tensor) -> None:
    if weight.requires_grad:
        raise ValueError(
            "the weight of a masked linear layer is frozen and gets no gradient; call .requires_grad_(False)"
        )


class _Gradients:
    """The backward that a scored and a packed mask share."""

    @staticmethod
    def keep(ctx: Any, x: Tensor, weight: Tensor, bits: Tensor, mask_bias: bool) -> None:
        ctx.save_for_backward(x, weight, bits)
        ctx.mask_bias = mask_bias

    @staticmethod
    def of(ctx: Any, dy: Tensor, of_scores: bool, of_bias: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight, bits = ctx.saved_tensors
        of_input = ctx.needs_input_grad[0]
        dx = dscores = dbias = None
        if of_input or of_scores:
            dx, dscores = torch.ops.pyneuro.masked_linear_backward(dy, x, weight, bits, of_input, of_scores)
        if of_bias:
            dbias = dy.reshape(-1, dy.shape[-1]).sum(0)
            if ctx.mask_bias:
                dbias = dbias * bits.any(-1)
        return dx if of_input else None, dscores if of_scores else None, dbias


class _Scored(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            y, bits = torch.ops.pyneuro.masked_linear(x, weight, scores, threshold, bias, mask_bias)
        _Gradients.keep(ctx, x, weight, bits, mask_bias)
        ctx.scores_dtype = scores.dtype
        ctx.mark_non_differentiable(bits)
        return y, bits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        dx, dscores, dbias = _Gradients.of(ctx, dy, ctx.needs_input_grad[2], ctx.needs_input_grad[4])
        return dx, None, None if dscores is None else dscores.to(ctx.scores_dtype), None, dbias, None


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> Tensor:
        with torch._C._AutoDispatchBelowAutograd():
            y: Tensor = torch.ops.pyneuro.masked_linear_packed(x, weight, bits, bias, mask_bias)
        _Gradients.keep(ctx, x, weight, bits, mask_bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx, _, dbias = _Gradients.of(ctx, dy, False, ctx.needs_input_grad[3])
        return dx, None, None, dbias, None


def _scored_autograd(
    x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
) -> tuple[Tensor, Tensor]:
    _require_frozen(weight)
    y, bits = _Scored.apply(x, weight, scores, threshold, bias, mask_bias)  # type: ignore[no-untyped-call]
    return y, bits


def _packed_autograd(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> Tensor:
    _require_frozen(weight)
    y: Tensor = _Packed.apply(x, weight, bits, bias, mask_bias)  # type: ignore[no-untyped-call]
    return y


define(
    "masked_linear(Tensor x, Tensor weight, Tensor scores, float threshold, Tensor? bias, bool mask_bias) "
    "-> (Tensor, Tensor)",
    **_implementations(_check_scored, _scored, _scored_cuda, reference.masked_linear),
    fake=_scored_fake,
    autograd=_scored_autograd,
)
define(
    "masked_linear_packed(Tensor x, Tensor weight, Tensor bits, Tensor? bias, bool mask_bias) -> Tensor",
    **_implementations(_check_packed, _packed, _packed_cuda, reference.masked_linear_packed),
    fake=_packed_fake,
    autograd=_packed_autograd,
)
define(
    "masked_linear_backward(Tensor dy, Tensor x, Tensor weight, Tensor bits, bool of_input, bool of_scores) "
    "-> (Tensor, Tensor)",
    **_implementations(_check_backward, _backward, _backward_cuda, _backward_definition),
    fake=_backward_fake,
)
define(
    "masked_linear_multi(Tensor x, Tensor weight, Tensor bits, Tensor? bias, bool mask_bias, bool shared) -> Tensor",
    **_implementations(_check_multi, _multi, _multi_cuda, reference.masked_linear_multi),
    fake=_multi_fake,
)
