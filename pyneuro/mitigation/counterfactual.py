"""Counterfactual inference on class probabilities (Udomcharoenchaikit et al. 2022, after Niu et al. 2021).

A main model gives P_m from the text and a bias model P_b from an artifact of it alone. A fusion h makes scores of both;
"no treatment" puts a constant in the place of one: c for the text, u = 1/K for the artifact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from pyneuro.data.probabilities import check_probabilities
from pyneuro.errors import InputError

Float = npt.NDArray[np.float64]
Fusion = Literal["sum", "harmonic", "product", "add"]
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Effects of text and artifact on the scores, [n, K] each; the prediction of each is its argmax.

    Attributes
    ----------
    te : h(P_b, P_m) − h(u, c): total effect.
    nde : h(P_b, c) − h(u, c): of the artifact alone, directly.
    tie_a : te − nde = h(P_b, P_m) − h(P_b, c): what is left without it.
    nie : h(u, P_m) − h(u, c): of the text without artifact.
    int_med : tie_a − nie: how artifact and text act together.
    te_model : P_m − c_te · P_b.
    main : P_m.
    """

    te: Float
    nde: Float
    tie_a: Float
    nie: Float
    int_med: Float
    te_model: Float
    main: Float

    @property
    def changed(self) -> dict[str, int]:
        """How many predictions differ from the main model's, by field."""
        before = self.main.argmax(1)
        return {
            f.name: int((getattr(self, f.name).argmax(1) != before).sum()) for f in fields(self) if f.name != "main"
        }


def counterfactual(
    p_main: npt.ArrayLike,
    p_bias: npt.ArrayLike,
    c: npt.ArrayLike | None = None,
    c_te: npt.ArrayLike | None = None,
    fusion: Fusion = "sum",
) -> Counterfactual:
    """Counterfactual effects from the probabilities of a main and a bias model.

    Parameters
    ----------
    p_main, p_bias : float [n, K]
        Rows in the same order, classes in the same order.
    c : float or [K], optional
        In the place of P_m where the text is not there; ``fit_sharpness(of="tie_a")`` fits it. Default: 1/K.
    c_te : float or [K], optional
        Of ``te_model``; ``fit_sharpness(of="te_model")`` fits it. Default: 1.
    fusion : "sum", "harmonic", "product" or "add"
        h(a, b) = log σ(a + b); log(s / (1 + s)) with s = σ(a) σ(b); log softmax(log a + log b), exponentiated; a + b.

    Raises
    ------
    InputError
        For arrays of different or wrong shape, and rows that are no probabilities.

    Examples
    --------
    >>> found = counterfactual([[0.5, 0.3, 0.2]], [[0.6, 0.2, 0.2]], c=1 / 3)
    >>> found.tie_a.round(6).tolist()
    [[0.044297, -0.012454, -0.051393]]
    """
    main, bias = both_models(p_main, p_bias)
    classes = main.shape[1]
    h = fuse(fusion)
    u = np.full_like(main, 1 / classes)
    absent = np.broadcast_to(constant("c", 1 / classes if c is None else c, classes), main.shape)
    factual, artifact, nothing, text = h(bias, main), h(bias, absent), h(u, absent), h(u, main)
    te, nde, nie = factual - nothing, artifact - nothing, text - nothing
    tie_a = factual - artifact
    te_model = main - constant("c_te", 1.0 if c_te is None else c_te, classes) * bias
    return Counterfactual(te, nde, tie_a, nie, tie_a - nie, te_model, main)


def fuse(fusion: Fusion) -> Callable[[Float, Float], Float]:
    """h(a, b) by name. Raises InputError for an unknown one."""

    def sum_(a: Float, b: Float) -> Float:
        out: Float = special.log_expit(a + b)
        return out

    def harmonic(a: Float, b: Float) -> Float:
        s = special.expit(a) * special.expit(b)
        out: Float = np.log(s) - np.log1p(s)
        return out

    def product(a: Float, b: Float) -> Float:
        tiny = np.finfo(np.float64).tiny
        out: Float = special.softmax(np.log(np.maximum(a, tiny)) + np.log(np.maximum(b, tiny)), axis=-1)
        return out

    def add(a: Float, b: Float) -> Float:
        return a + b

    known: dict[str, Callable[[Float, Float], Float]] = {
        "sum": sum_,
        "harmonic": harmonic,
        "product": product,
        "add": add,
    }
    if fusion not in known:
        raise InputError(f"fusion = {fusion!r} is not one of {', '.join(FUSIONS)}")
    return known[fusion]


def both_models(p_main: npt.ArrayLike, p_bias: npt.ArrayLike) -> tuple[Float, Float]:
    """Checked. Raises InputError where they are no probabilities, or not of the same samples and classes."""
    main, bias = check_probabilities("p_main", p_main), check_probabilities("p_bias", p_bias)
    if main.shape != bias.shape:
        raise InputError(f"p_main is {list(main.shape)} and p_bias {list(bias.shape)}; pass a row a sample in both")
    return main, bias


def constant(what: str, value: npt.ArrayLike, classes: int) -> Float:
    """A scalar or one value a class. Raises InputError for another shape."""
    found = np.asarray(value, dtype=np.float64)
    if found.shape not in ((), (classes,)) or not np.isfinite(found).all():
        raise InputError(f"{what} = {value!r}; pass a number, or one for each of the {classes} classes")
    return found
