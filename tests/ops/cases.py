"""Random but consistent arguments for every operation, in float64; e = d / H."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import reference

# Which arguments of an operation are differences, where not the first alone.
_DIFFERENCES = {
    "delta_linear_norm": (0, 1),
    "delta_attention_row0_dense": (0, 1),
    "delta_attention_low_rank": (0, 1),
    "delta_entry": (0, 3),
    "delta_entry_query": (1,),
}


def differences(name: str) -> tuple[int, ...]:
    """Numbers of the arguments that are differences."""
    return _DIFFERENCES.get(name, (0,))


def arguments(
    tokens: int, candidates: int, hidden: int, heads: int, intermediate: int, *, seed: int = 0, size: float = 0.05
) -> dict[str, tuple[Tensor | None, ...]]:
    """{operation: arguments}; `size` scales the differences."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) * scale

    s, n, d, h, f = tokens, candidates, hidden, heads, intermediate
    wi, wo = draw(f, d, scale=d**-0.5), draw(d, f, scale=f**-0.5)
    wao, wk, wv, wqkv = (draw(rows, d, scale=d**-0.5) for rows in (d, d, d, 3 * d))
    q, k, v = draw(s, d), draw(s, d), draw(s, d)
    by_head = [x.view(s, h, d // h) for x in (q, k, v)]
    p = (torch.einsum("she,the->hst", by_head[0], by_head[1]) * (d // h) ** -0.5).softmax(-1)
    context = torch.einsum("hst,the->she", p, by_head[2])
    wao_heads = wao.view(d, h, d // h)
    context_rows = torch.einsum("she,dhe->shd", context - p[:, :, 0].T.unsqueeze(-1) * by_head[2][0], wao_heads)
    value_row = torch.einsum("he,dhe->hd", by_head[2][0], wao_heads)
    u = draw(s, d)
    centred = u - u.mean(-1, keepdim=True)
    norm = (centred, (centred.square().mean(-1) + 1e-12).rsqrt(), 1 + draw(d, scale=0.1))
    pre_gelu = draw(s, f)
    dx, dctx, dqkv = draw(s, n, d, scale=size), draw(s, n, d, scale=size), draw(s, n, 3 * d, scale=size)
    attention = (q, k, v, p)
    index = torch.randint(d, (n,), generator=generator)
    head, change = index // (d // h), draw(n, scale=size)
    first, second = draw(s, n, scale=size), draw(s, n, scale=size)
    return {
        "delta_linear": (dx, wqkv, None),
        "delta_layernorm": (dx, *norm),
        "delta_linear_norm": (dctx, dx, wao, None, *norm),
        "delta_feed_forward": (dx, wi, None, wo, None, pre_gelu, reference.gelu_series(pre_gelu), *norm),
        "delta_attention": (dqkv, *attention),
        "delta_attention_row0": (dqkv[0], *attention),
        "delta_attention_row0_dense": (dx, dqkv[0, :, :d], *attention, wk, None, wv, None),
        "delta_attention_low_rank": (dqkv[0], dx[0], *attention, context_rows, value_row, wao, None, *norm),
        "delta_entry": (first, context_rows, head, second, value_row, head, *norm),
        "delta_entry_query": (index, change, *attention),
    }


def to32(args: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(a if a is None or not a.is_floating_point() else a.float() for a in args)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Relative L2 distance; 0 where both are empty or zero."""
    size = float(want.norm())
    return float((got.double() - want).norm()) / size if size else float(got.double().abs().sum())
