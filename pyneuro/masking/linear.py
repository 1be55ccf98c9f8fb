"""Linear layers under a mask: one whose mask is decided by scores and trained, and one whose mask is fixed bits.

Both hold a frozen weight under the names that ``torch.nn.Linear`` gives, so its checkpoint loads with ``strict=False``.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pyneuro import ops  # noqa: F401 (registers the operations)
from pyneuro.errors import InputError, is_number, is_whole
from pyneuro.ops.reference import pack_bits, unpack_bits

Rule = Literal["threshold", "sigmoid", "topk", "bernoulli"]
RULES: tuple[Rule, ...] = get_args(Rule)
Structure = Literal["weight", "row", "head_rows", "head_columns"]
STRUCTURES: tuple[Structure, ...] = get_args(Structure)
TAU = 0.01  # of Zhao et al. 2020
DEFAULT_TAU: dict[Rule, float] = {"threshold": TAU, "sigmoid": 0.1, "topk": 0.95, "bernoulli": 0.5}


class MaskedLinear(nn.Module):
    """``y = x (W ∘ M)ᵀ + b`` with a frozen W and a mask decided by trainable scores S.

    ===========  =======================================================  =======================================
    rule         M                                                        gradient of S
    ===========  =======================================================  =======================================
    threshold    S > τ (Zhao et al. 2020)                                 that of M (straight through)
    sigmoid      sigmoid(S) > τ (Sanh et al. 2020; Meissner et al. 2022)  that of M (straight through)
    topk         the largest share τ of S                                 that of M (straight through)
    bernoulli    1 with probability sigmoid(S) in training, else > ½      that of the probability
    ===========  =======================================================  =======================================

    Nothing of the weight's size is kept for the backward but the mask's bits; the gradient of S is (dyᵀ x) ∘ W. The
    weight and the bias get none.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    rule : "threshold", "sigmoid", "topk" or "bernoulli"
    tau : float, optional
        τ as the rule takes it: see above. Default: 0.01, 0.1, 0.95; not used by "bernoulli". May be changed between
        steps, as schedules do. Neither it nor the rule is part of ``state_dict``.
    structure : "weight", "row", "head_rows" or "head_columns"
        What a score decides over: one weight; a neuron (row of W); the rows, or the columns, of an attention head.
    heads : int, optional
        Number of heads, for the last two.
    mask_bias : bool
        An entry of b counts where its row keeps any weight (nn_pruning). A masked neuron is then 0, not b.

    Attributes
    ----------
    weight : Parameter [out, in]
    bias : Parameter [out] or None
    scores : Parameter, fp32
        [out, in]; [out, 1] for rows, [heads, 1] for rows of heads, [1, heads] for columns of heads.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rule: Rule = "threshold",
        tau: float | None = None,
        structure: Structure = "weight",
        heads: int | None = None,
        mask_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise InputError(f"rule = {rule!r} is not one of {', '.join(RULES)}")
        if structure not in STRUCTURES:
            raise InputError(f"structure = {structure!r} is not one of {', '.join(STRUCTURES)}")
        self.in_features, self.out_features = in_features, out_features
        self.rule, self.structure, self.mask_bias = rule, structure, bool(mask_bias)
        self.tau = check_tau(rule, tau)
        weight = torch.empty(out_features, in_features, device=device, dtype=dtype)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias: nn.Parameter | None
        self.register_parameter(
            "bias", nn.Parameter(torch.empty_like(weight[:, 0]), requires_grad=False) if bias else None
        )
        shape = _scores_shape(structure, out_features, in_features, heads)
        keeping = keeping_score(rule, self.tau)
        self.scores = nn.Parameter(torch.full(shape, keeping, device=device, dtype=torch.float32))
        with torch.no_grad():
            nn.Linear.reset_parameters(self)  # type: ignore[arg-type]

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        tau: float | None = None,
        scores: Tensor | None = None,
        *,
        rule: Rule = "threshold",
        structure: Structure = "weight",
        heads: int | None = None,
        mask_bias: bool = False,
    ) -> MaskedLinear:
        """Of a linear layer, whose parameters it shares and freezes. Without scores everything is kept.

        Raises InputError for a module that is not a linear layer, and for scores of another shape or with NaN.
        """
        weight, bias = getattr(linear, "weight", None), getattr(linear, "bias", None)
        if not isinstance(linear, nn.Linear) or not isinstance(weight, Tensor):
            raise InputError(f"{type(linear).__name__} is no torch.nn.Linear and cannot be masked")
        options = {"rule": rule, "tau": tau, "structure": structure, "heads": heads, "mask_bias": mask_bias}
        masked = cls(linear.in_features, linear.out_features, bias is not None, device="meta", **options)  # type: ignore[arg-type]
        masked.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            masked.bias = nn.Parameter(bias.detach(), requires_grad=False)
        masked.scores = nn.Parameter(
            torch.full_like(masked.scores, keeping_score(rule, masked.tau), device=weight.device)
        )
        masked.train(linear.training)
        if scores is not None:
            masked.set_scores(scores)
        return masked

    def set_scores(self, scores: Tensor) -> None:
        """Raises InputError for another shape, or where a score is NaN."""
        scores = torch.as_tensor(scores)
        if tuple(scores.shape) != tuple(self.scores.shape):
            raise InputError(
                f"scores are {list(scores.shape)} and the layer needs {list(self.scores.shape)} (weight "
                f"{list(self.weight.shape)}, structure {self.structure!r})"
            )
        if bool(torch.isnan(scores).any()):
            raise InputError(f"{int(torch.isnan(scores).sum())} scores are NaN; a mask cannot be decided from them")
        with torch.no_grad():
            self.scores.copy_(scores)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        scores, threshold = self._decided()
        x, weight, bias = _autocast(x, self.weight, self.bias)
        y: Tensor = torch.ops.pyneuro.masked_linear(x, weight, self._spread(scores), threshold, bias, self.mask_bias)[0]
        return y

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that it computes with, in eval mode: W ∘ M, and b or its part that counts."""
        return _effective(self)

    def _apply(self, fn: Any, recurse: bool = True) -> MaskedLinear:
        """Conversions leave scores in fp32: rounding them would change the mask."""

        def keeping(tensor: Tensor) -> Tensor:
            moved: Tensor = fn(tensor)
            if tensor is self.scores or tensor is self.scores.grad:
                return tensor.to(moved.device) if moved.dtype != tensor.dtype else moved
            return moved

        super()._apply(keeping, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def mask(self) -> Tensor:
        """bool [out, in]: what counts, as in eval mode."""
        with torch.no_grad():
            return self._spread(self._kept_scores())

    @property
    def bits(self) -> Tensor:
        """The mask packed: uint8 [out, ceil(in / 8)]."""
        return pack_bits(self.mask)

    @property
    def sparsity(self) -> float:
        """Share of weights masked."""
        with torch.no_grad():
            return 1 - float(self._kept_scores().double().mean())

    def soft_sparsity(self) -> Tensor:
        """Share of weights masked, with the mask's straight-through gradient: for penalties."""
        kept = torch.sigmoid(self.scores).mean() if self.rule == "bernoulli" else self.scores.mean()
        return self.sparsity - (kept - kept.detach())

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"rule={self.rule}, tau={self.tau:.4g}, structure={self.structure}"
            + ("" if self.scores.is_meta else f", sparsity={self.sparsity:.4f}")
        )

    def _decided(self) -> tuple[Tensor, float]:
        """Scores and the threshold they have to exceed."""
        match self.rule:
            case "threshold":
                return self.scores, self.tau
            case "sigmoid":
                return self.scores, logit(self.tau)
            case "topk":
                return self.scores, largest(self.scores.detach(), self.tau)
        if not self.training:
            return self.scores, 0.0
        return torch.sigmoid(self.scores) - torch.rand_like(self.scores), 0.0

    def _kept_scores(self) -> Tensor:
        threshold = 0.0 if self.rule == "bernoulli" else self._decided()[1]
        return self.scores > threshold

    def _spread(self, scores: Tensor) -> Tensor:
        """A score a weight: [out, in]."""
        out, inner = self.weight.shape
        if self.structure == "head_rows":
            scores = scores.repeat_interleave(out // scores.shape[0], 0)
        elif self.structure == "head_columns":
            scores = scores.repeat_interleave(inner // scores.shape[1], 1)
        return scores.expand(out, inner)


class FixedMaskLinear(nn.Module):
    """``y = x (W ∘ M)ᵀ + b`` for a mask that is done with training, kept as bits. Nothing in it trains; x gets its
    gradient.

    Attributes
    ----------
    weight : Parameter [out, in]
    bias : Parameter [out] or None
    bits : uint8 buffer [out, ceil(in / 8)]
    """

    bits: Tensor
    bias: nn.Parameter | None

    def __init__(self, linear: nn.Module, bits: Tensor, mask_bias: bool = False) -> None:
        super().__init__()
        weight, bias = linear.weight, linear.bias
        assert isinstance(weight, Tensor)
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.register_parameter(
            "bias", nn.Parameter(bias.detach(), requires_grad=False) if isinstance(bias, Tensor) else None
        )
        self.register_buffer("bits", bits.to(weight.device))
        self.mask_bias = mask_bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        x, weight, bias = _autocast(x, self.weight, self.bias)
        y: Tensor = torch.ops.pyneuro.masked_linear_packed(x, weight, self.bits, bias, self.mask_bias)
        return y

    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias that it computes with: W ∘ M, and b or its part that counts."""
        return _effective(self)

    @property
    def mask(self) -> Tensor:
        """bool [out, in]: what counts."""
        return unpack_bits(self.bits, self.in_features)


def logit(probability: float) -> float:
    """Inverse of the sigmoid; infinite at and beyond 0 and 1."""
    if probability <= 0:
        return -math.inf
    return math.inf if probability >= 1 else math.log(probability / (1 - probability))


def largest(scores: Tensor, share: float) -> float:
    """A threshold that the largest `share` of the scores exceed, and those that tie with the last of them."""
    kept = round(share * scores.numel())
    if not kept:
        return math.inf
    last = scores.flatten().kthvalue(scores.numel() - kept + 1).values
    return float(torch.nextafter(last, torch.full_like(last, -math.inf)))


def keeping_score(rule: Rule, tau: float) -> float:
    """A score that keeps its weight; 0 where that does, for the rule "sigmoid", as Meissner et al. start."""
    match rule:
        case "threshold":
            return tau + TAU
        case "sigmoid":
            return max(0.0, logit(tau) + TAU) if tau >= 0.5 else 0.0
        case "topk":
            return 0.0
    return 5.0


def check_tau(rule: Rule, tau: float | None) -> float:
    """τ of a rule, its default for None. Raises InputError for one that no mask can be decided by."""
    tau = DEFAULT_TAU[rule] if tau is None else tau
    if not is_number(tau) or not math.isfinite(tau):
        raise InputError(f"tau = {tau!r}; pass a number")
    if rule == "sigmoid" and tau >= 1:
        raise InputError(f"tau = {tau!r}; for the rule 'sigmoid' it is a probability below 1")
    if rule == "topk" and not 0 < tau <= 1:
        raise InputError(f"tau = {tau!r}; for the rule 'topk' it is the share that is kept, in (0, 1]")
    return float(tau)


def _effective(layer: MaskedLinear | FixedMaskLinear) -> tuple[Tensor, Tensor | None]:
    keep, weight = layer.mask, layer.weight.detach()
    if layer.bias is None:
        return weight * keep, None
    bias = layer.bias.detach()
    return weight * keep, bias * keep.any(-1) if layer.mask_bias else bias


def _autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """As autocast would have a linear layer's arguments."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


def _scores_shape(structure: Structure, out: int, inner: int, heads: int | None) -> tuple[int, int]:
    if structure in ("weight", "row"):
        return (out, inner if structure == "weight" else 1)
    split = out if structure == "head_rows" else inner
    if not is_whole(heads) or heads < 1 or split % heads:
        raise InputError(f"structure {structure!r} needs the number of heads, a divisor of {split}; got {heads!r}")
    return (heads, 1) if structure == "head_rows" else (1, heads)
