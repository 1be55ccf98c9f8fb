"""``MaskedLinear`` and ``apply``: rules, structures, starts, what is frozen, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import pyneuro as pn
from pyneuro import masking
from pyneuro.errors import InputError
from pyneuro.masking.linear import RULES, largest
from pyneuro.models import Classifier
from tests.tiny import make_tiny


def linear(inner: int = 12, out: int = 9) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inner, out)


def test_without_scores_it_is_the_linear_layer() -> None:
    for rule in RULES:
        tau = {"sigmoid": 0.1, "topk": 1.0}.get(rule, 0.01)
        masked = pn.MaskedLinear.from_linear(dense := linear(), tau, rule=rule).eval()
        x = torch.randn(2, 3, 12)
        torch.testing.assert_close(masked(x), dense(x))
        assert masked.sparsity == 0.0


def test_a_checkpoint_of_one_loads_into_the_other() -> None:
    masked = pn.MaskedLinear(12, 9)
    missing, unexpected = masked.load_state_dict(linear().state_dict(), strict=False)
    assert missing == ["scores"] and not unexpected
    assert torch.equal(masked.weight, linear().weight)
    assert {n for n, p in masked.named_parameters() if p.requires_grad} == {"scores"}


@pytest.mark.parametrize("rule", ["threshold", "sigmoid", "topk"])
def test_masks_and_gradients_of_a_rule(rule: str) -> None:
    tau = {"threshold": 0.1, "sigmoid": 0.4, "topk": 0.25}[rule]
    scores = torch.randn(9, 12)
    dense, x, dy = linear(), torch.randn(5, 12), torch.randn(5, 9)
    masked = pn.MaskedLinear.from_linear(dense, tau, scores, rule=rule)
    if rule == "threshold":
        want = scores > tau
    elif rule == "sigmoid":
        want = torch.sigmoid(scores) > tau
    else:
        want = scores >= scores.flatten().sort(descending=True).values[27 - 1]
    assert torch.equal(masked.mask, want)
    y = masked(x)
    torch.testing.assert_close(y, nn.functional.linear(x, dense.weight * want, dense.bias))
    y.backward(dy)
    torch.testing.assert_close(masked.scores.grad, (dy.T @ x) * dense.weight.detach())
    assert masked.weight.grad is None and masked.bias.grad is None
    assert masked.sparsity == pytest.approx(1 - float(want.float().mean()))


def test_bernoulli_masks_follow_their_probabilities_and_their_gradient_is_the_expectations() -> None:
    dense, x = linear(), torch.randn(4, 12)
    masked = pn.MaskedLinear.from_linear(dense, rule="bernoulli", scores=torch.full((9, 12), math.log(3.0)))
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([masked(x) for _ in range(4000)]).mean(0)
    expected = nn.functional.linear(x, 0.75 * dense.weight, dense.bias)
    assert (mean - expected).abs().max() < 0.1 * dense.weight.abs().max() * x.abs().max()
    masked(x).sum().backward()
    slope = 0.75 * 0.25
    torch.testing.assert_close(masked.scores.grad, slope * x.sum(0) * dense.weight.detach())
    torch.testing.assert_close(masked.eval()(x), dense(x))


@pytest.mark.parametrize("structure", ["row", "head_rows", "head_columns"])
def test_structures_mask_whole_neurons_and_heads(structure: str) -> None:
    masked = pn.MaskedLinear.from_linear(linear(12, 12), structure=structure, heads=3)
    assert tuple(masked.scores.shape) == {"row": (12, 1), "head_rows": (3, 1), "head_columns": (1, 3)}[structure]
    scores = torch.ones_like(masked.scores)
    scores.view(-1)[1] = -1.0
    masked.set_scores(scores)
    want = torch.ones(12, 12, dtype=torch.bool)
    if structure == "row":
        want[1] = False
    elif structure == "head_rows":
        want[4:8] = False
    else:
        want[:, 4:8] = False
    assert torch.equal(masked.mask, want)
    x, dy = torch.randn(5, 12), torch.randn(5, 12)
    masked(x).backward(dy)
    whole = (dy.T @ x) * masked.weight.detach()
    summed = {
        "row": whole.sum(1, keepdim=True),
        "head_rows": whole.view(3, 4, 12).sum((1, 2))[:, None],
        "head_columns": whole.view(12, 3, 4).sum((0, 2))[None],
    }[structure]
    torch.testing.assert_close(masked.scores.grad, summed)


def test_a_penalty_on_sparsity_pulls_the_scores() -> None:
    masked = pn.MaskedLinear.from_linear(linear(), scores=torch.randn(9, 12))
    soft = masked.soft_sparsity()
    assert float(soft.detach()) == pytest.approx(masked.sparsity)
    soft.backward()
    torch.testing.assert_close(masked.scores.grad, torch.full((9, 12), -1 / 108))


def test_the_largest_share() -> None:
    scores = torch.arange(10.0)
    assert [int((scores > largest(scores, s)).sum()) for s in (0.0, 0.3, 0.95, 1.0)] == [0, 3, 10, 10]


@pytest.mark.parametrize(
    ("scores", "message"),
    [(torch.zeros(3, 3), r"scores are \[3, 3\] and the layer needs \[9, 12\]"), (torch.full((9, 12), math.nan), "NaN")],
)
def test_scores_that_cannot_decide_are_refused(scores: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pn.MaskedLinear.from_linear(linear(), scores=scores)


@pytest.mark.parametrize("rule", ["threshold", "sigmoid", "bernoulli"])
@pytest.mark.parametrize("sparsity", [0.03, 0.05, 0.5, 0.9])
def test_exactly_the_asked_share_is_masked_at_the_start(clf: Classifier, rule: str, sparsity: float) -> None:
    layers = masking.apply(clf, rule=rule, sparsity=sparsity)
    assert len(layers) == 2 * 6 + 2
    for layer in layers.values():
        assert layer.sparsity == pytest.approx(round(sparsity * layer.scores.numel()) / layer.scores.numel())


def test_scores_start_uniform_as_zhao_et_al_do(clf: Classifier) -> None:
    """U(−0.02, 0.58) for 5 %."""
    scores = torch.cat([layer.scores.flatten() for layer in masking.apply(clf, sparsity=0.05).values()]).detach()
    assert scores.min() >= -0.02 and scores.max() <= 0.58
    counts = torch.histc(scores, bins=6, min=-0.02, max=0.58) / len(scores)
    torch.testing.assert_close(counts, torch.full((6,), 1 / 6), atol=0.02, rtol=0)


def test_magnitude_masks_the_smallest_weights(clf: Classifier) -> None:
    for layer in masking.apply(clf, "I", sparsity=0.2, start="magnitude").values():
        size = layer.weight.abs()
        assert size[~layer.mask].max() <= size[layer.mask].min()
        assert layer.scores.unique().tolist() == pytest.approx([0.0, 0.02])


def test_topk_masks_the_rest(clf: Classifier) -> None:
    for layer in masking.apply(clf, rule="topk", tau=0.8).values():
        assert layer.sparsity == pytest.approx(0.2, abs=1 / layer.scores.numel())


def test_a_seed_gives_one_start(clf: Classifier) -> None:
    first = masking.apply(clf, seed=3)["classifier"].scores.detach().clone()
    masking.remove(clf)
    assert torch.equal(masking.apply(clf, seed=3)["classifier"].scores, first)
    masking.remove(clf)
    assert not torch.equal(masking.apply(clf, seed=4)["classifier"].scores, first)


@pytest.mark.parametrize("arch", ["bert", "roberta"])
def test_layers_are_chosen_by_number_side_and_module(arch: str) -> None:
    clf = make_tiny(arch, layers=4, hidden=24, heads=3, intermediate=40)
    assert [p.layer for p in masking.places(clf, ["Q"], "top:2")] == [2, 3]
    assert [p.layer for p in masking.places(clf, ["Q"], "bottom:1")] == [0]
    assert [(p.layer, p.module) for p in masking.places(clf, ["T", "I"], [1])] == [(1, "I"), (None, "T")]
    assert len(masking.places(clf)) == 26 and len(masking.places(clf, "encoder")) == 24
    assert all(isinstance(clf.model.get_submodule(p.name), nn.Linear) for p in masking.places(clf))


def test_only_scores_train_and_the_model_computes_with_masked_weights(
    clf: Classifier, pairs: list[pn.data.Pair]
) -> None:
    batch = clf.batch([clf.encode(p) for p in pairs[:3]])
    digest = masking.base_digest(clf)
    layers = masking.apply(clf, sparsity=0.3)
    assert masking.base_digest(clf) == digest
    assert {n for n, p in clf.model.named_parameters() if p.requires_grad} == {f"{n}.scores" for n in layers}
    found = clf.model(**batch).logits
    found.sum().backward()
    assert all(layer.scores.grad is not None for layer in layers.values())
    masking.remove(clf)
    torch.testing.assert_close(clf.model(**batch).logits, found)
    assert masking.base_digest(clf) != digest


def test_taking_masks_off_gives_the_model_back(clf: Classifier, pairs: list[pn.data.Pair]) -> None:
    before = clf.logits([clf.encode(pairs[0])])
    masking.apply(clf, sparsity=0.5)
    assert not torch.allclose(clf.logits([clf.encode(pairs[0])]), before)
    masking.remove(clf, keep_mask=False)
    torch.testing.assert_close(clf.logits([clf.encode(pairs[0])]), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": "X"}, "module 'X' is not one of Q, K, V, AO, I, O, P, T"),
        ({"modules": []}, "no linear layer is chosen"),
        ({"layers": [2]}, "layer 2 does not exist: the model has layers 0 to 1"),
        ({"layers": "top:3"}, "'top:N'"),
        ({"sparsity": 1.0}, r"sparsity = 1.0; pass the share of weights to mask, in \[0, 1\)"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"sparsity": math.nan}, "sparsity"),
        ({"rule": "guess"}, "rule = 'guess'"),
        ({"rule": "topk", "sparsity": 0.1}, "leave sparsity out"),
        ({"start": "guess"}, "start = 'guess'"),
        ({"start": "constant", "sparsity": 0.1}, "masks nothing"),
        ({"structure": "guess"}, "structure = 'guess'"),
        ({"structure": "head"}, "only Q, K, V and AO have heads"),
    ],
)
def test_what_cannot_be_masked_is_refused_and_nothing_is_changed(
    clf: Classifier, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        masking.apply(clf, **options)
    assert not any(isinstance(m, pn.MaskedLinear) for m in clf.model.modules())
    assert all(p.requires_grad for p in clf.model.parameters())


def test_a_masked_model_is_not_masked_again(clf: Classifier) -> None:
    masking.apply(clf)
    with pytest.raises(InputError, match="masked already"):
        masking.apply(clf)


def test_a_model_without_masks_has_none(clf: Classifier) -> None:
    with pytest.raises(InputError, match="no masked layers"):
        masking.masked_layers(clf)


def test_a_layer_that_masks_nothing_starts_as_torch_starts_a_linear_layer() -> None:
    torch.manual_seed(0)
    masked = pn.MaskedLinear(12, 9)
    torch.manual_seed(0)
    assert torch.equal(masked.weight, nn.Linear(12, 9).weight)


def test_tied_scores_are_kept_together() -> None:
    assert pn.MaskedLinear.from_linear(linear(), 0.5, rule="topk").sparsity == 0.0


def test_conversions_leave_scores_and_mask() -> None:
    scores = torch.full((9, 12), 0.01 + 1e-7)
    masked = pn.MaskedLinear.from_linear(linear(), 0.01, scores)
    before = masked.mask
    masked.to(torch.bfloat16)
    assert masked.scores.dtype == torch.float32 and torch.equal(masked.mask, before)
    y = masked(torch.randn(3, 12, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert masked.scores.grad.dtype == torch.float32
    assert masked.double().weight.dtype == torch.float64


def test_autocast_is_followed_as_by_a_linear_layer() -> None:
    model = nn.Sequential(linear(), pn.MaskedLinear.from_linear(linear(9, 5), scores=torch.randn(5, 9)))
    with torch.autocast("cpu", torch.bfloat16):
        y = model(torch.randn(4, 12))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert model[0].weight.grad is not None and model[1].scores.grad is not None


@pytest.mark.parametrize(
    ("rule", "tau"), [("threshold", math.nan), ("topk", 1.2), ("topk", -0.5), ("sigmoid", "a"), ("sigmoid", 1.0)]
)
def test_a_tau_that_decides_nothing_is_refused(rule: str, tau: object) -> None:
    with pytest.raises(InputError, match="tau = "):
        pn.MaskedLinear.from_linear(linear(), tau, rule=rule)


def test_numbers_may_be_numpys(clf: Classifier) -> None:
    layers = masking.apply(clf, ["Q"], np.arange(1), sparsity=np.float32(0.25))
    assert len(layers) == 1 and next(iter(layers.values())).sparsity == 0.25


@pytest.mark.parametrize("options", [{"layers": 3}, {"layers": None}, {"modules": None}, {"layers": [0.5]}])
def test_what_is_no_list_of_layers_or_modules_is_refused(clf: Classifier, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="pass"):
        masking.apply(clf, **options)


def test_masks_are_not_mixed(clf: Classifier) -> None:
    masking.apply(clf, "Q")
    masks = masking.Masks.of(clf)
    with pytest.raises(InputError, match="masked already"):
        masking.apply(clf, "K")
    with pytest.raises(InputError, match="masked already"):
        masks.put_on(clf)


@pytest.mark.parametrize(("rule", "tau"), [("threshold", 0.5), ("threshold", -3.0), ("sigmoid", 0.9)])
def test_without_scores_nothing_is_masked_whatever_tau(clf: Classifier, rule: str, tau: float) -> None:
    assert pn.MaskedLinear.from_linear(linear(), tau, rule=rule).sparsity == 0.0
    assert all(layer.sparsity == 0.0 for layer in masking.apply(clf, rule=rule, tau=tau, sparsity=0).values())
