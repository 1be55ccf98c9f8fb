"""delta_feed_forward: the feed-forward block of a difference, W_I, GELU, W_O, residual and LayerNorm in one pass."""

from __future__ import annotations

from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.arguments import norm_argument, packed_or_pack, weight_argument
from pyneuro.ops.delta_layernorm import check_norm, check_unit, norm_into
from pyneuro.ops.native import native, threads
from pyneuro.ops.registry import expect, register


def _check(
    dx: Tensor,
    wi: Tensor,
    packed_wi: Tensor | None,
    wo: Tensor,
    packed_wo: Tensor | None,
    pre_gelu: Tensor,
    series: Tensor,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> tuple[int, ...]:
    op = "delta_feed_forward"
    expect(op, "dx", dx, None, None, None)
    tokens, _, hidden = dx.shape
    expect(op, "wi", wi, None, hidden)
    inner = wi.shape[0]
    expect(op, "wo", wo, hidden, inner)
    expect(op, "pre_gelu", pre_gelu, tokens, inner)
    expect(op, "series", series, tokens, 4, inner)
    check_norm(op, tokens, hidden, centred, rstd, gamma)
    check_unit(op, dx.shape[1], unit)
    return tuple(dx.shape)


def _kernel(
    dx: Tensor,
    wi: Tensor,
    packed_wi: Tensor | None,
    wo: Tensor,
    packed_wo: Tensor | None,
    pre_gelu: Tensor,
    series: Tensor,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
) -> Tensor:
    out = dx.new_empty(dx.shape)
    kept_wi, kept_wo = packed_or_pack(wi, packed_wi), packed_or_pack(wo, packed_wo)
    native().module.delta_feed_forward(
        native().isa,
        dx.data_ptr(),
        weight_argument(kept_wi, *wi.shape),
        weight_argument(kept_wo, *wo.shape),
        pre_gelu.data_ptr(),
        series.data_ptr(),
        norm_argument(native().module, centred, rstd, gamma),
        out.data_ptr(),
        dx.shape[0],
        dx.shape[1],
        threads(),
    )
    return out


def gelu_linear(dx: Tensor, weight: Tensor, pre_gelu: Tensor, series: Tensor, unit: Tensor | None) -> Tensor:
    """GELU difference of dx Wᵀ: in the product's epilogue where there is a kernel, else in a second pass."""
    base = (pre_gelu.data_ptr(), series.data_ptr(), cuda.address(unit))
    if (architecture := cuda.product_epilogue(dx, weight, pre_gelu, series)) is not None:
        out = dx.new_empty(*dx.shape[:-1], weight.shape[0])
        sizes = (*dx.shape, weight.shape[0])
        kernel = f"delta_gelu_linear_{architecture}"
        cuda.launch(kernel, dx, dx.data_ptr(), weight.data_ptr(), *base, out.data_ptr(), *sizes)
        return out
    out = dx @ weight.T
    cuda.launch("delta_gelu", out, out.data_ptr(), *base, cuda.is_half(out), *out.shape)
    return out


def _cuda(
    dx: Tensor,
    wi: Tensor,
    packed_wi: Tensor | None,
    wo: Tensor,
    packed_wo: Tensor | None,
    pre_gelu: Tensor,
    series: Tensor,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    inner = gelu_linear(dx, cuda.weight_for(dx, wi, packed_wi), pre_gelu, series, unit)
    du = inner @ cuda.weight_for(dx, wo, packed_wo).T
    return norm_into(du, du, dx, centred, rstd, gamma, unit)


register(
    "delta_feed_forward(Tensor dx, Tensor wi, Tensor? packed_wi, Tensor wo, Tensor? packed_wo, Tensor pre_gelu, "
    "Tensor series, Tensor centred, Tensor rstd, Tensor gamma, Tensor? unit=None) -> Tensor",
    reference=reference.delta_feed_forward,
    kernel=_kernel,
    cuda=_cuda,
    check=_check,
)
