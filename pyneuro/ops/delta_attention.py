"""delta_attention: the attention's difference when every row of the layer's input changed."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import attention_argument
from pyneuro.ops.delta_layernorm import check_unit
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def check_attention(op: str, hidden: int, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> int:
    """The base run's attention tensors belong together; returns S."""
    expect(op, "q", q, None, hidden)
    tokens = q.shape[0]
    expect(op, "k", k, tokens, hidden)
    expect(op, "v", v, tokens, hidden)
    expect(op, "p", p, None, tokens, tokens)
    if hidden % p.shape[0]:
        raise ValueError(f"{op}: {hidden} columns do not divide into {p.shape[0]} heads")
    return tokens


def _check(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None) -> tuple[int, ...]:
    tokens = check_attention("delta_attention", q.shape[-1], q, k, v, p)
    expect("delta_attention", "dqkv", dqkv, tokens, None, 3 * q.shape[1])
    check_unit("delta_attention", dqkv.shape[1], unit)
    return (*dqkv.shape[:2], q.shape[1])


def _kernel(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
    out = dqkv.new_empty(*dqkv.shape[:2], q.shape[1])
    base = attention_argument(native().module, q, k, v, p)
    native().module.delta_attention(native().isa, dqkv.data_ptr(), base, out.data_ptr(), dqkv.shape[1], threads())
    return out


def _cuda(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None) -> Tensor:
    out = dqkv.new_empty(*dqkv.shape[:2], q.shape[1])
    cuda.launch(
        "delta_attention",
        dqkv,
        dqkv.data_ptr(),
        attention_argument(cuda.cuda_module(), q, k, v, p),
        cuda.address(unit),
        out.data_ptr(),
        cuda.is_half(dqkv),
        dqkv.shape[1],
    )
    return out


register(
    "delta_attention(Tensor dqkv, Tensor q, Tensor k, Tensor v, Tensor p, Tensor? unit=None) -> Tensor",
    reference=reference.delta_attention,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
)
