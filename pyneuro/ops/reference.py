"""Every operation in plain torch, in any dtype: the definition the kernels are tested against, and the float64 oracle.

Shapes: S tokens, N candidates, d hidden, f intermediate, H heads, e = d / H. Differences are token-major, [S, N, d].
Formulas: docs/method.md, "difference forms".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# |difference| up to which GELU's difference is its series: the first omitted term is then 4e-6 of it in fp32 and 4e-14
# in float64, and beyond it the plain difference is as good.
GELU_SERIES_RADIUS = {torch.float32: 0.1, torch.float64: 1e-3}


def gelu_series(a: Tensor) -> Tensor:
    """Taylor coefficients of GELU (erf form) at a [S, f]: [S, 4, f], the k-th derivative over k!, k = 1..4.

    With φ, Φ the normal density and distribution: Φ + aφ, φ(2 − a²), φ(a³ − 4a), φ(−a⁴ + 7a² − 4).
    """
    density = torch.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    distribution = 0.5 * torch.erfc(-a / math.sqrt(2.0))
    square = a * a
    return torch.stack(
        [
            distribution + a * density,
            density * (2 - square) / 2,
            density * a * (square - 4) / 6,
            density * (-square * square + 7 * square - 4) / 24,
        ],
        dim=-2,
    )


def _gelu(x: Tensor) -> Tensor:
    """x Φ(x) by erfc, which keeps its digits in the left tail."""
    return x * 0.5 * torch.erfc(-x / math.sqrt(2.0))


def delta_gelu(a: Tensor, d: Tensor, series: Tensor) -> Tensor:
    """gelu(a + d) − gelu(a) for a [S, f], d [S, N, f], series [S, 4, f]: the series for small |d|, the plain
    difference beyond."""
    c1, c2, c3, c4 = series.unsqueeze(-3).unbind(-2)
    small = d * (c1 + d * (c2 + d * (c3 + d * c4)))
    base = a.unsqueeze(-2)
    return torch.where(d.abs() > GELU_SERIES_RADIUS[d.dtype], _gelu(base + d) - _gelu(base), small)


def delta_softmax(p: Tensor, ds: Tensor) -> Tensor:
    """Change of softmax probabilities p when the scores move by ds, over the last axis."""
    x = torch.expm1(ds)
    mean = (p * x).sum(-1, keepdim=True)
    near = p * (x - mean) / (1 + mean)
    # Where 1 + mean has lost its digits, or x overflowed, the change is large and may be taken plainly.
    far = (torch.log(p) + ds).softmax(-1) - p
    return torch.where((mean < -0.5) | ~(mean <= 1), far, near)


def patched_key_weights(p: Tensor, rest: Tensor, ds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What moves a query's context when its score against one token, of probability p, moves by ds.

    With rest = 1 − p (summed over the other tokens), x = expm1(ds) and Z = rest + p exp(ds): −p x / Z of the context
    without that token, p x rest / Z of its base value, p exp(ds) / Z of its value's change. All broadcast together.
    """
    ds = ds.clamp(max=80.0)  # one-hot by then, and short of overflow
    inverse = 1 / (rest + p * torch.exp(ds))
    moved = p * torch.expm1(ds) * inverse
    return -moved, moved * rest, p * torch.exp(ds) * inverse


# A stored difference, in fp16 or any other dtype, is the true one over its candidate's unit [N]. Nonlinear operations
# see the true one; linear ones are the same for both.


def true_difference(x: Tensor, unit: Tensor | None) -> Tensor:
    """What x [..., N, d] stands for; fp16 is computed with in fp32."""
    wide = x.float() if x.dtype == torch.float16 else x
    return wide if unit is None else wide * unit.unsqueeze(-1)


def stored_difference(x: Tensor, unit: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x [..., N, d] as it is kept."""
    return (x if unit is None else x / unit.unsqueeze(-1)).to(dtype)


# A candidate's largest entry is stored near this. Above it fp16 has room for 2^12 times more, below it eleven bits down
# to 2^-18 of it.
STORED_SIZE = 16.0


def units(size: Tensor) -> Tensor:
    """Units of candidates whose largest entries have these sizes: float32 [N]. 1 where the size is 0 or not finite."""
    unit = torch.exp2(torch.ceil(torch.log2(size.float()))) / STORED_SIZE
    return torch.where(torch.isfinite(unit) & (unit > 0), unit, torch.ones_like(unit))


def delta_units(true: Tensor) -> tuple[Tensor, Tensor]:
    """True differences [N, d] of row 0 in fp16, and their units [N]."""
    unit = units(true.abs().amax(-1))
    return stored_difference(true, unit, torch.float16), unit


def delta_linear(dx: Tensor, weight: Tensor, packed: Tensor | None = None) -> Tensor:
    """dx Wᵀ for dx [..., in], W [out, in]; operands rounded to bf16 when the packed weight is bf16, to fp16 when the
    differences are."""
    if dx.dtype == torch.float16:
        return (dx.float() @ weight.half().float().T).half()
    if packed is not None and packed.dtype == torch.bfloat16:
        return dx.bfloat16().to(dx.dtype) @ weight.bfloat16().to(dx.dtype).T
    return dx @ weight.T


def delta_layernorm(du: Tensor, centred: Tensor, rstd: Tensor, gamma: Tensor, unit: Tensor | None = None) -> Tensor:
    """LayerNorm difference: du [S, N, d], centred [S, d] = u − mean(u), rstd [S], gamma [d] -> [S, N, d]."""
    dtype = du.dtype
    du = true_difference(du, unit)
    c, r = centred.unsqueeze(1), rstd[:, None, None]
    dc = du - du.mean(-1, keepdim=True)
    q = (dc * (2 * c + dc)).mean(-1, keepdim=True) * r * r
    # Where most of the variance goes away, 1 + q has lost digits: sum the patched variance afresh.
    eps = (1 / (r * r) - c.square().mean(-1, keepdim=True)).clamp(min=0)
    afresh = ((c + dc).square().mean(-1, keepdim=True) + eps) * r * r
    s = torch.sqrt(torch.where(q < -0.75, afresh, 1 + q))
    return stored_difference(gamma * (dc * (r / s) - c * (r * q / (s * (1 + s)))), unit, dtype)


def delta_linear_norm(
    dx: Tensor,
    residual: Tensor,
    weight: Tensor,
    packed: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    """LayerNorm difference of dx Wᵀ + residual: dx [S, N, in], residual [S, N, d] -> [S, N, d]."""
    du = true_difference(delta_linear(dx, weight, packed), unit) + true_difference(residual, unit)
    return stored_difference(delta_layernorm(du, centred, rstd, gamma), unit, dx.dtype)


def delta_entry(
    first: Tensor,
    a: Tensor,
    pick_a: Tensor,
    second: Tensor | None,
    b: Tensor | None,
    pick_b: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    """LayerNorm difference of the rank-two change first[t, n] A[t, pick_a[n]] + second[t, n] B[pick_b[n]].

    first, second [S, N], A [S, ., d] or [1, ., d], B [., d], picks int64 [N] -> [S, N, d]. Where there are units the
    weights are in them and the result is fp16.
    """
    du = first.unsqueeze(-1) * a[:, pick_a]
    if second is not None and b is not None and pick_b is not None:
        du = du + second.unsqueeze(-1) * b[pick_b]
    found = delta_layernorm(true_difference(du, unit), centred, rstd, gamma)
    return found if unit is None else stored_difference(found, unit, torch.float16)


def delta_entry_query(index: Tensor, change: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> Tensor:
    """Context difference of row 0 when neuron index[n] of row 0's query moves by change[n]: int64 [N], [N] -> [N, d],
    zero outside the neuron's head."""
    heads = p.shape[0]
    width = q.shape[1] // heads
    head = index // width
    ds = change[:, None] / math.sqrt(width) * k[:, index].T  # [N, S]
    dp = delta_softmax(p[head, 0], ds)
    values = _heads(v, heads)
    out = change.new_zeros(len(index), heads, width)
    for h in range(heads):  # heads are few, and a product each beats gathering [N, S, e] values
        mine = head == h
        out[mine, h] = dp[mine] @ values[:, h]
    return out.flatten(1)


# The linear method: what patching neuron index[n] by change[n] (float64) changes of its own layer, exactly, times the
# adjoint that begins there. float64 [N, G + 1]: for G differences of logits the change, then the size of what is left
# out, of second order in the change (docs/estimate.md).


def adjoint_query(index: Tensor, change: Tensor, k: Tensor, p: Tensor, along: Tensor, strength: Tensor) -> Tensor:
    """Q: k [S, d], p [H, S, S], along [H, G, S] = what a unit of weight on a token adds, strength [H] of the context's
    adjoint at row 0. Left out: times the variance that the moved score has under the attention."""
    width = k.shape[1] // p.shape[0]
    head = index // width
    row, key = p[head, 0], k[:, index].T  # [N, S]
    dp = delta_softmax(row, (change / math.sqrt(width)).to(k.dtype)[:, None] * key)
    spread = (row * (key - (row * key).sum(-1, keepdim=True)).square()).sum(-1)
    return _with_left_out(torch.einsum("ns,ngs->ng", dp, along[head]), strength[head] * spread, change)


def adjoint_key(
    index: Tensor,
    change: Tensor,
    q: Tensor,
    p: Tensor,
    rest: Tensor,
    along_rest: Tensor,
    along_first: Tensor,
    strength: Tensor,
) -> Tensor:
    """K: q [S, d], p [H, S, S], rest [H, S] = 1 − p[h, t, 0], along_rest and along_first [H, G, S] = the adjoint of a
    token's context times its context without token 0, and times token 0's value; strength [H, S] of that adjoint. Left
    out: times the variance that the moved score has under each query's attention."""
    width = q.shape[1] // p.shape[0]
    head = index // width
    first, query = p[:, :, 0], q[:, index].T  # [N, S]
    ds = (change / math.sqrt(width)).to(q.dtype)[:, None] * query
    by_rest, by_first, _ = patched_key_weights(first[head], rest[head], ds)
    moved = torch.einsum("nt,ngt->ng", by_rest, along_rest[head])
    moved = moved + torch.einsum("nt,ngt->ng", by_first, along_first[head])
    spread = ((strength * first * (1 - first))[head] * query.square()).sum(-1)
    return _with_left_out(moved, spread, change)


def adjoint_norm(
    index: Tensor, change: Tensor, products: Tensor, squares: Tensor, facts: Tensor, hidden: int
) -> Tensor:
    """A change in one direction before a LayerNorm of row 0, of d = `hidden` columns; all float64.

    products [1 + G, W] of the W directions with the centred row and with the G slopes (the adjoint times the
    LayerNorm's weight, centred), squares [W] of the centred directions, facts [2 + G] = the row's reciprocal deviation
    r, the factor of what is left out, and the slopes' products with the row. With r / s the deviation afterwards, the
    slope sees sloped r / s − (slope · row) r q / (s (1 + s)) of the normalised row's change.
    """
    rstd, pulled = facts[0], facts[0] * facts[2:]
    along, square = change * products[0, index], change.square() * squares[index]
    q = rstd.square() * (2 * along + square) / hidden
    s = torch.sqrt(1 + q)
    sloped = change[:, None] * products[1:, index].T
    moved = sloped * (rstd / s)[:, None] - (q / (s * (1 + s)))[:, None] * pulled
    return _with_left_out(moved, facts[1].expand(len(index)), change)


def _with_left_out(moved: Tensor, size: Tensor, change: Tensor) -> Tensor:
    return torch.cat([moved.double(), (size.double() * change.square())[:, None]], dim=1)


def delta_feed_forward(
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
    """Feed-forward block: dx [S, N, d], W_I [f, d], W_O [d, f], pre_gelu [S, f], series [S, 4, f] -> [S, N, d]."""
    inner = true_difference(delta_linear(dx, wi, packed_wi), unit)
    dg = stored_difference(delta_gelu(pre_gelu, inner, series), unit, dx.dtype)
    return delta_linear_norm(dg, dx, wo, packed_wo, centred, rstd, gamma, unit)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def delta_attention(dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None) -> Tensor:
    """Context difference when every row changed: dqkv [S, N, 3d], q, k, v [S, d], p [H, S, S] -> [S, N, d]."""
    heads, dtype = p.shape[0], dqkv.dtype
    q, k, v = (_heads(x, heads) for x in (q, k, v))
    dq, dk, dv = (_heads(x, heads) for x in true_difference(dqkv, unit).chunk(3, -1))
    scale = 1 / math.sqrt(q.shape[-1])
    ds = torch.einsum("tnhe,snhe->nhts", q.unsqueeze(1) + dq, dk) + torch.einsum("tnhe,she->nhts", dq, k)
    dp = delta_softmax(p, ds * scale)
    dctx = torch.einsum("nhts,snhe->tnhe", dp, v.unsqueeze(1) + dv) + torch.einsum("hts,snhe->tnhe", p, dv)
    return stored_difference(dctx.flatten(-2), unit, dtype)


def delta_attention_row0(
    dqkv: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor, unit: Tensor | None = None
) -> Tensor:
    """Context difference of row 0 when only row 0 of the input changed: dqkv [N, 3d] -> [N, d]."""
    heads, dtype = p.shape[0], dqkv.dtype
    q0, k, v = _heads(q[0], heads), _heads(k, heads), _heads(v, heads)
    dq, dk, dv = (_heads(x, heads) for x in true_difference(dqkv, unit).chunk(3, -1))
    ds = torch.einsum("nhe,she->nhs", dq, k)
    ds[..., 0] += ((q0 + dq) * dk).sum(-1)
    dp = delta_softmax(p[:, 0], ds / math.sqrt(k.shape[-1]))
    dctx = torch.einsum("nhs,she->nhe", dp, v) + (p[:, 0, :1] + dp[..., :1]) * dv
    return stored_difference(dctx.flatten(-2), unit, dtype)


def delta_attention_row0_dense(
    dx: Tensor,
    dq0: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    wk: Tensor,
    packed_key_transposed: Tensor | None,
    wv: Tensor,
    packed_value_heads: Tensor | None,
    unit: Tensor | None = None,
) -> Tensor:
    """Context difference of row 0 when every row changed: dx [S, N, d], dq0 [N, d] -> [N, d], without d × d products
    on rows 1 to S − 1."""
    del packed_key_transposed, packed_value_heads
    heads, dtype = p.shape[0], dx.dtype
    dx, dq0 = true_difference(dx, unit), true_difference(dq0, unit)
    q0, k, v, dq = _heads(q[0], heads), _heads(k, heads), _heads(v, heads), _heads(dq0, heads)
    u = torch.einsum("nhe,hed->nhd", q0 + dq, wk.unflatten(0, (heads, -1)))
    ds = torch.einsum("nhd,snd->nhs", u, dx) + torch.einsum("nhe,she->nhs", dq, k)
    dp = delta_softmax(p[:, 0], ds / math.sqrt(k.shape[-1]))
    pooled = torch.einsum("nhs,snd->nhd", p[:, 0] + dp, dx)
    dctx = torch.einsum("nhd,hed->nhe", pooled, wv.unflatten(0, (heads, -1))) + torch.einsum("nhs,she->nhe", dp, v)
    return stored_difference(dctx.flatten(-2), unit, dtype)


def delta_attention_low_rank(
    dqkv: Tensor,
    dx: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    p: Tensor,
    context_rows: Tensor,
    value_row: Tensor,
    wao: Tensor,
    packed_wao: Tensor | None,
    centred: Tensor,
    rstd: Tensor,
    gamma: Tensor,
    unit: Tensor | None = None,
) -> Tensor:
    """Attention block after a change of row 0 alone: dqkv [N, 3d], dx [N, d] -> [S, N, d], after residual and
    LayerNorm.

    context_rows [S, H, d] = W_AO,h (ctx_h[t] − p_h[t, 0] v_h[0]) and value_row [H, d] = W_AO,h v_h[0] belong to the
    base run.
    """
    heads, dtype = p.shape[0], dx.dtype
    dqkv, dx = true_difference(dqkv, unit), true_difference(dx, unit)
    _, dk, dv = (_heads(x, heads) for x in dqkv.chunk(3, -1))
    row0 = delta_attention_row0(dqkv, q, k, v, p) @ wao.T + dx
    p0 = p[:, :, 0].T.unsqueeze(1)  # [S, 1, H]
    rest = p[:, :, 1:].sum(-1).T.unsqueeze(1)
    ds = torch.einsum("she,nhe->snh", _heads(q, heads), dk) / math.sqrt(dk.shape[-1])
    along_context, along_base, along_value = patched_key_weights(p0, rest, ds)
    value_rows = torch.einsum("nhe,dhe->nhd", dv, wao.unflatten(1, (heads, -1)))
    du = torch.einsum("snh,shd->snd", along_context, context_rows)
    du += torch.einsum("snh,hd->snd", along_base, value_row)
    du += torch.einsum("snh,nhd->snd", along_value, value_rows)
    du[0] = row0
    return stored_difference(delta_layernorm(du, centred, rstd, gamma), unit, dtype)


def pack_bits(keep: Tensor) -> Tensor:
    """bool [..., in] -> uint8 [..., ceil(in / 8)]; entry k is bit k % 8 of byte k // 8."""
    padded = torch.nn.functional.pad(keep.to(torch.uint8), (0, -keep.shape[-1] % 8))
    place = torch.arange(8, dtype=torch.uint8, device=keep.device)
    bits: Tensor = (padded.unflatten(-1, (-1, 8)) << place).sum(-1, dtype=torch.uint8)
    return bits


def unpack_bits(bits: Tensor, inner: int) -> Tensor:
    """Inverse of ``pack_bits``: bool [..., in]."""
    place = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits.unsqueeze(-1) >> place) & 1).flatten(-2)[..., :inner].bool()


def masked_bias(bias: Tensor | None, keep: Tensor, mask_bias: bool) -> Tensor | None:
    """The bias [out] under a mask, bool or bits [out, .]: with `mask_bias` an entry counts where its row has any."""
    return bias * keep.any(-1) if mask_bias and bias is not None else bias


def masked_linear(
    x: Tensor, weight: Tensor, scores: Tensor, threshold: float, bias: Tensor | None, mask_bias: bool
) -> tuple[Tensor, Tensor]:
    """x (W ∘ M)ᵀ + b with M = [scores > threshold], and M's bits; with `mask_bias` an entry of b counts where its row
    of M has any (nn_pruning)."""
    bits = pack_bits(scores > threshold)
    return masked_linear_packed(x, weight, bits, bias, mask_bias), bits


def masked_linear_packed(x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool) -> Tensor:
    """x (W ∘ M)ᵀ + b with M given by its bits."""
    keep = unpack_bits(bits, weight.shape[1])
    return torch.nn.functional.linear(x, weight * keep, masked_bias(bias, keep, mask_bias))


def masked_linear_backward(dy: Tensor, x: Tensor, weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, dy (W ∘ M), and of the scores, straight through the threshold: (dyᵀ x) ∘ W."""
    keep = unpack_bits(bits, weight.shape[1])
    rows = dy.reshape(-1, dy.shape[-1])
    return dy @ (weight * keep), (rows.T @ x.reshape(-1, x.shape[-1])) * weight


def masked_linear_multi(
    x: Tensor, weight: Tensor, bits: Tensor, bias: Tensor | None, mask_bias: bool, shared: bool
) -> Tensor:
    """``masked_linear_packed`` for T masks, bits [T, out, ceil(in / 8)]: [T, ..., out]. x is [..., in] for all of them
    where it is `shared`, else [T, ..., in]."""
    inputs = [x] * len(bits) if shared else x
    each = [masked_linear_packed(a, weight, b, bias, mask_bias) for a, b in zip(inputs, bits, strict=True)]
    return torch.stack(each) if each else x.new_empty(0, *x.shape[0 if shared else 1 : -1], weight.shape[0])


def delta_head(pooler: Tensor, pooled: Tensor, classifier: Tensor) -> Tensor:
    """Pooler and classifier: W_P dx [N, d], float64 tanh output of the base run [d], float64 W_C [C, d] -> float64
    [N, C]."""
    tau = torch.tanh(pooler.double())
    return (tau * (1 - pooled * pooled) / (1 + pooled * tau)) @ classifier.T
