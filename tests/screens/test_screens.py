"""Screens against finite differences, closed forms and gradients taken by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyneuro import baselines, screens
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models import Classifier, wrap
from pyneuro.models.weights import LayerWeights, head_forward
from pyneuro.results import Result
from pyneuro.sites import CONVENTIONS, MODULES, NeuronSet
from tests.baselines.by_hand import random_values
from tests.tiny import PAIRS, make_tiny, tiny_model, tiny_tokenizer

SIZES = {"layers": 3, "hidden": 12, "heads": 2, "intermediate": 20}


@cache
def small(arch: str = "bert") -> Classifier:
    return make_tiny(arch, dtype=torch.float64, **SIZES)


def altered(alter: Callable[[str, Tensor], None], **sizes: object) -> Classifier:
    """A float64 classifier whose parameters `alter` has changed in place."""
    model = tiny_model(**{**SIZES, **sizes}).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            alter(name, p)
    return wrap(model, tiny_tokenizer())


def linear_tail(name: str, p: Tensor) -> None:
    """LayerNorms that do not scale (with eps = 1e12), a GELU far to the right and a pooler near 0: linear all."""
    if "LayerNorm.weight" in name:
        p.mul_(1e6)
    elif "intermediate.dense.bias" in name:
        p.fill_(100.0)
    elif ".output.dense.weight" in name and "attention" not in name:
        p.mul_(0.01)
    elif "pooler" in name:
        p.mul_(1e-6)
    elif "classifier.weight" in name:
        p.mul_(1e6)


def linear_from_attention(**sizes: object) -> Classifier:
    return altered(linear_tail, eps=1e12, **sizes)


def column(result: Result, name: str = "nie") -> np.ndarray:
    return result.frame()[name].to_numpy(dtype=float)


def far(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


FIRST_ORDER = {
    "response": screens.attribution_patching,
    "plain": partial(screens.attribution_patching, form="plain"),
    "exp": partial(screens.attribution_patching, form="exp"),
    "integrated_gradients": partial(screens.integrated_gradients, steps=2),
    "qk_fix": screens.qk_fix,
}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("token", [0, 2, "all"])
@pytest.mark.parametrize("screen", FIRST_ORDER.values(), ids=FIRST_ORDER)
def test_estimates_become_exact_as_the_change_becomes_small(
    screen: Callable[..., Result], token: int | str, convention: str
):
    values = random_values(small(), convention=convention)
    how = {"intervention": "add", "convention": convention, "token": token}

    def error(strength: float, **more: object) -> float:
        found, exact = (
            column(f(small(), PAIRS[:2], values, strength=strength, **how, **more))
            for f in (screen, baselines.neurons_in_batch)
        )
        return far(found, exact)

    # The error is proportional to the change, or smaller.
    assert error(1e-4) < min(1e-3, 0.2 * error(1e-3))
    assert error(1e-5, response="odds") < 1e-3


@pytest.mark.parametrize("intervention", ["replace", "weaken", "negate", "remove", "add"])
def test_every_intervention_moves_activations_as_the_exact_one_does(intervention: str):
    """O of the last layer in the hook convention goes into the head alone, here a linear one."""

    def alter(name: str, p: Tensor) -> None:
        if "pooler" in name or "classifier.weight" in name:
            p.mul_(1e-6 if "pooler" in name else 1e6)

    clf = altered(alter)
    values = random_values(clf, convention="hook") if intervention in ("replace", "add") else None
    how = {"convention": "hook", "sites": ["L2.O.*"], "intervention": intervention, "response": "log_odds"}
    how |= {"strength": 0.3} if intervention in ("weaken", "add") else {}
    exact = column(baselines.neurons_in_batch(clf, PAIRS[:3], values, **how))
    for screen in (screens.attribution_patching, screens.integrated_gradients, screens.qk_fix):
        np.testing.assert_allclose(column(screen(clf, PAIRS[:3], values, **how)), exact, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("response", ["probability", "odds", "log_odds", "logit_difference"])
def test_the_plain_form_is_proportional_to_the_change_and_the_exp_form_its_exponential(response: str):
    def run(form: str, strength: float = 1.0) -> Result:
        how = {"intervention": "add", "strength": strength, "response": response, "form": form}
        return screens.attribution_patching(small(), PAIRS[0], random_values(small()), **how)

    plain = column(run("plain"))
    np.testing.assert_allclose(column(run("plain", 3.0)), 3 * plain, rtol=1e-10, atol=1e-14)
    if response in ("probability", "odds"):
        np.testing.assert_allclose(column(run("exp")), np.expm1(plain), rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(column(run("exp"), "log_nie"), plain)
    else:
        with pytest.raises(InputError, match=rf"form='exp' is of effects .* response '{response}' has none"):
            run("exp")


def test_the_plain_form_of_the_probability_is_the_gradient_of_log_p_times_the_change():
    clf, pair, values = small(), PAIRS[0], random_values(small())
    found = screens.attribution_patching(clf, pair, values, intervention="add", form="plain").frame()
    seen: list[Tensor] = []
    handle = clf.model.bert.encoder.layer[1].output.dense.register_forward_hook(lambda _, __, out: seen.append(out))
    inputs = clf.tokenizer(pair.premise, pair.hypothesis, return_tensors="pt")
    log_p = torch.log_softmax(clf.model(**inputs).logits[0], -1)[0]
    handle.remove()
    (gradient,) = torch.autograd.grad(log_p, seen)
    rows = found[(found["layer"] == 1) & (found["module"] == "O")]
    np.testing.assert_allclose(rows["nie"], gradient[0, 0].numpy() * values.array("HOL", 1, "O"), rtol=1e-9)


@pytest.mark.parametrize("response", ["kl", "flip"])
def test_responses_without_a_first_order_are_refused_before_any_work(response: str, tmp_path):
    for screen in (FIRST_ORDER["plain"], screens.grad_drop):
        with pytest.raises(InputError, match=f"response '{response}' does not change to first order"):
            screen(small(), PAIRS[0], random_values(small()), response=response, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unknown_forms_and_steps_are_refused():
    with pytest.raises(InputError, match="form 'cubic' is not one of response, plain, exp"):
        screens.attribution_patching(small(), PAIRS[0], random_values(small()), form="cubic")
    for steps in (0, 2.5, True):
        with pytest.raises(InputError, match=r"steps = .*; pass a positive integer"):
            screens.integrated_gradients(small(), PAIRS[0], random_values(small()), steps=steps)


@pytest.mark.parametrize(("site", "convention"), [((0, "V"), "linear"), ((1, "Q"), "linear"), ((0, "O"), "hook")])
def test_integrated_gradients_sum_to_the_joint_effect_with_an_error_that_falls_as_the_square_of_the_steps(
    site: tuple[int, str], convention: str
):
    layer, module = site
    values = random_values(small(), convention=convention, scale=0.5)
    how = {"response": "logit_difference", "convention": convention}
    whole = NeuronSet.parse(f"L{layer}.{module}.*", small().shape)
    (joint,) = column(baselines.neurons_in_batch(small(), PAIRS[0], values, sites={"whole": whole}, **how))
    error = [
        abs(column(screens.integrated_gradients(small(), PAIRS[0], values, sites=whole, steps=m, **how)).sum() - joint)
        for m in (20, 40)
    ]
    assert error[1] < 1e-3 * abs(joint)
    assert error[1] < 0.3 * error[0]


def test_integrated_gradients_of_a_neuron_do_not_depend_on_what_else_is_searched():
    values = random_values(small(), "HOL", "LOL")
    some = screens.integrated_gradients(small(), PAIRS[:2], values, sites=["L1.I.3", "L1.I.7"]).frame()
    every = screens.integrated_gradients(small(), PAIRS[:2], values, sites=["L1.*.*"]).frame()
    wanted = every[every["site"].isin(["L1.I.3", "L1.I.7"])]
    np.testing.assert_allclose(some["nie"], wanted["nie"], rtol=1e-12)


@pytest.mark.parametrize("token", [0, 3, "all"])
def test_the_qk_fix_is_exact_where_all_after_the_softmax_is_linear(token: int | str):
    clf = linear_from_attention(layers=1)
    values = random_values(clf, scale=3.0)
    how = {"sites": ["L0.Q.*", "L0.K.*"], "response": "logit_difference", "token": token}
    exact, fixed, plain = (
        column(f(clf, PAIRS[:3], values, **how))
        for f in (baselines.neurons_in_batch, screens.qk_fix, screens.attribution_patching)
    )
    assert far(fixed, exact) < 1e-5
    assert far(plain, exact) > 0.05


def test_the_qk_fix_leaves_other_modules_as_they_are():
    values = random_values(small(), "HOL", "LOL")
    fixed, plain = (f(small(), PAIRS[:2], values).frame() for f in (screens.qk_fix, screens.attribution_patching))
    others = ~plain["module"].isin(["Q", "K"])
    np.testing.assert_allclose(fixed["nie"][others], plain["nie"][others], rtol=1e-10, atol=1e-14)
    assert not np.allclose(fixed["nie"][~others], plain["nie"][~others], rtol=1e-2)


def grad_drop_by_hand(clf: Classifier, pair: object, values: Values, layer: int, convention: str) -> np.ndarray:
    """Mean over the other layers of |∂log p · δa| with that layer's branches detached, for O of one layer."""
    w, heads = clf.weights(torch.float64), clf.shape.heads
    scores = []
    for dropped in set(range(clf.shape.layers)) - {layer}:
        x = clf.embed(clf.encode(pair), torch.float64)
        for number, one in enumerate(w.layers):
            x = x.detach().requires_grad_() if number == layer else x  # nothing below the site matters
            x1 = norm(attention(one, x, heads), x, one.ln1_weight, one.ln1_bias, one.eps, number == dropped)
            o = F.linear(F.gelu(F.linear(x1, one.wi, one.bi)), one.wo, one.bo)
            after = norm(o, x1, one.ln2_weight, one.ln2_bias, one.eps, number == dropped)
            if number == layer:
                site = after if convention == "hook" else o
            x = after
        log_p = torch.log_softmax(head_forward(w.head, x[0]), -1)[0]
        (gradient,) = torch.autograd.grad(log_p, site)
        scores.append(np.abs(gradient[0].numpy() * values.array("HOL", layer, "O")))
    return np.mean(scores, axis=0)


def attention(w: LayerWeights, x: Tensor, heads: int) -> Tensor:
    q, k, v = (F.linear(x, a, b).unflatten(-1, (heads, -1)) for a, b in ((w.wq, w.bq), (w.wk, w.bk), (w.wv, w.bv)))
    p = torch.einsum("the,she->hts", q, k).div(q.shape[-1] ** 0.5).softmax(-1)
    return F.linear(torch.einsum("hts,she->the", p, v).flatten(1), w.wao, w.bao)


def norm(branch: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dropped: bool) -> Tensor:
    return F.layer_norm((branch.detach() if dropped else branch) + x, weight.shape, weight, bias, eps)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_grad_drop_is_the_mean_magnitude_over_the_other_layers_left_out(layer: int, convention: str):
    values = random_values(small(), convention=convention)
    how = {"intervention": "add", "convention": convention, "sites": [f"L{layer}.O.*"]}
    found = screens.grad_drop(small(), PAIRS[3], values, **how)
    np.testing.assert_allclose(
        column(found), grad_drop_by_hand(small(), PAIRS[3], values, layer, convention), rtol=1e-9
    )


def test_grad_drop_averages_magnitudes_not_effects_over_samples():
    values = random_values(small(), "HOL", "LOL")
    both = screens.grad_drop(small(), PAIRS[:2], values)
    each = [column(screens.grad_drop(small(), pair, values)) for pair in PAIRS[:2]]
    assert (column(both) >= 0).all()
    np.testing.assert_allclose(column(both), np.mean(each, axis=0), rtol=1e-9, atol=1e-15)


def test_grad_drop_of_one_layer_is_refused():
    clf = make_tiny(layers=1, hidden=12, heads=2, intermediate=20)
    with pytest.raises(InputError, match="averages over the other layers and this model has one"):
        screens.grad_drop(clf, PAIRS[0], random_values(clf))


def uniform_attention(name: str, p: Tensor) -> None:
    linear_tail(name, p)
    if ".query." in name or ".key." in name:
        p.zero_()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_relevance_is_the_gradient_where_its_rules_change_nothing(convention: str):
    """And, everything being linear, the exact effect."""
    clf = altered(uniform_attention, eps=1e12)
    values = random_values(clf, convention=convention)
    how = {"response": "logit_difference", "convention": convention, "token": "all", "intervention": "add"}
    found, gradient, exact = (
        column(f(clf, PAIRS[:2], values, **how))
        for f in (screens.relp, screens.attribution_patching, baselines.neurons_in_batch)
    )
    assert far(found, gradient) < 1e-5
    assert far(found, exact) < 1e-5


def test_relevance_is_the_gradient_of_a_forward_with_its_constants_frozen():
    """By hand for V of the last layer: pattern, LayerNorm scales, GELU's and tanh's factors are numbers."""
    clf, pair = small(), PAIRS[3]
    values, w, last = random_values(clf), clf.weights(torch.float64), clf.shape.layers - 1
    x, one = clf.embed(clf.encode(pair), torch.float64), clf.weights(torch.float64).layers[last]
    for before in w.layers[:last]:
        x1 = norm(attention(before, x, 2), x, before.ln1_weight, before.ln1_bias, before.eps, False)
        o = F.linear(F.gelu(F.linear(x1, before.wi, before.bi)), before.wo, before.bo)
        x = norm(o, x1, before.ln2_weight, before.ln2_bias, before.eps, False)
    v = F.linear(x, one.wv, one.bv)

    def run(v0: Tensor) -> Tensor:
        moved = torch.cat([v0[None], v[1:]])
        q, k = F.linear(x, one.wq, one.bq).unflatten(-1, (2, -1)), F.linear(x, one.wk, one.bk).unflatten(-1, (2, -1))
        p = torch.einsum("the,she->hts", q, k).div(6**0.5).softmax(-1)
        context = torch.einsum("hts,she->the", p, moved.unflatten(-1, (2, -1))).flatten(1)
        return F.linear(context, one.wao, one.bao) + x

    def centred(u: Tensor) -> Tensor:
        return u - u.mean(-1, keepdim=True)

    base1 = run(v[0])
    scale1 = torch.rsqrt(centred(base1).square().mean(-1, keepdim=True) + one.eps)
    i = F.linear(centred(base1) * scale1 * one.ln1_weight + one.ln1_bias, one.wi, one.bi)
    factor = F.gelu(i) / i

    def second(v0: Tensor) -> Tensor:
        x1 = centred(run(v0)) * scale1 * one.ln1_weight + one.ln1_bias
        return F.linear(F.linear(x1, one.wi, one.bi) * factor, one.wo, one.bo) + x1

    scale2 = torch.rsqrt(centred(second(v[0])).square().mean(-1, keepdim=True) + one.eps)

    def pooled(v0: Tensor) -> Tensor:
        x2 = centred(second(v0)) * scale2 * one.ln2_weight + one.ln2_bias
        return F.linear(x2[0], w.head.pooler_weight, w.head.pooler_bias)

    ratio = torch.tanh(pooled(v[0])) / pooled(v[0])
    slope = torch.autograd.functional.jacobian(lambda v0: (pooled(v0) * ratio) @ w.head.classifier_weight.T, v[0])
    change = slope * torch.tensor(values.array("HOL", last, "V"))  # [C, d]
    wanted = change[0] - change[1:].mean(0)
    how = {"intervention": "add", "response": "logit_difference", "sites": [f"L{last}.V.*"]}
    np.testing.assert_allclose(column(screens.relp(clf, pair, values, **how)), wanted, rtol=1e-9)


def test_no_relevance_reaches_queries_and_keys():
    found = screens.relp(small(), PAIRS[0], random_values(small()), sites=["L0.Q.*", "L2.K.*"])
    assert (column(found) == 0).all()


def test_costs_are_counted_in_forwards():
    values, how = random_values(small(), "HOL", "LOL"), {"sites": ["L0.Q.*", "L2.I.1"]}

    def cost(screen: Callable[..., Result], **more: object) -> float:
        return screen(small(), PAIRS[:2], values, **how, **more).manifest["run"]["forward_equivalents"]

    once = 1 + 2 * 3
    assert cost(screens.attribution_patching) == cost(screens.qk_fix) == cost(screens.relp) == once
    assert cost(screens.grad_drop) == 3 * once
    assert cost(screens.integrated_gradients, steps=4) == pytest.approx(1 + 2 * 4 * (1 + 1 / 3) * once)
    exact = baselines.suffix_only(small(), PAIRS[:2], values, sites=["L0.Q.0"])
    assert "forward_equivalents" not in exact.manifest["run"]


@pytest.mark.parametrize("token", [0, "all"])
@pytest.mark.parametrize("arch", ["bert", "roberta"])
@pytest.mark.parametrize("name", screens.__all__)
def test_padding_and_batch_size_do_not_matter(name: str, arch: str, token: int | str):
    screen, values = getattr(screens, name), random_values(small(arch))
    how = {"sites": [f"L1.{module}.*" for module in MODULES], "token": token}
    one, three = (column(screen(small(arch), PAIRS[:4], values, batch_size=size, **how)) for size in (1, 3))
    np.testing.assert_allclose(three, one, rtol=1e-7, atol=1e-13)
