"""Sharpness control: the constant c that makes "no text" as sharp as the prediction that it is held against.

The paper's objective and the one that its released code minimises differ; both are here. Its code fits c with Adam for
a fixed number of steps, which on the released objective stops far from the optimum: "published" repeats that, "exact"
and "grid" find the optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special

from pyneuro.errors import InputError
from pyneuro.mitigation.counterfactual import Float, Fusion, both_models, fuse

Rows = slice | npt.NDArray[np.int64]
Loss = Callable[..., Float]
Of = Literal["tie_a", "te_model"]
Objective = Literal["paper", "released"]
Solver = Literal["exact", "grid", "published"]
OFS: tuple[Of, ...] = get_args(Of)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
SOLVERS: tuple[Solver, ...] = get_args(Solver)

BOUNDS = {"tie_a": (-10.0, 10.0), "te_model": (0.0, 50.0)}
GRID = 201
# The released settings.
LEARNING_RATE, BATCH, EPOCHS, SEED = 1e-4, 64, 16, 42


@dataclass(frozen=True, eq=False)
class Sharpness:
    """Made by ``fit_sharpness``.

    Attributes
    ----------
    c : float or float [K]
    loss : float
        The objective at c.
    curve : DataFrame
        ``c, loss`` for a scalar c between the bounds of the search: look whether the optimum is one.
    settings : dict
        Of the fit.
    """

    c: float | Float
    loss: float
    curve: pd.DataFrame
    settings: dict[str, object]


def fit_sharpness(
    p_main: npt.ArrayLike,
    p_bias: npt.ArrayLike,
    *,
    of: Of = "tie_a",
    objective: Objective = "paper",
    per_class: bool = False,
    solver: Solver = "exact",
    fusion: Fusion = "sum",
) -> Sharpness:
    """Fit c on one split, to be used on another.

    Parameters
    ----------
    p_main, p_bias : float [n, K]
        As for ``counterfactual``.
    of : "tie_a" or "te_model"
        Which effect c is for.
    objective : "paper" or "released"
        =========  ==================================================  ===========================================
        objective  of "tie_a"                                          of "te_model"
        =========  ==================================================  ===========================================
        paper      mean KL(softmax h(P_b, P_m) ‖ softmax h(P_b, c))    mean KL(P_m ‖ softmax(c P_b))
        released   mean KL(P_b ‖ softmax log σ(c + h(P_b, P_m))) / K   mean KL(P_b ‖ softmax log σ(c + P_m)) / K
        =========  ==================================================  ===========================================
    per_class : bool
        One c a class instead of a scalar.
    solver : "exact", "grid" or "published"
        Brent's method (a scalar) or L-BFGS (one a class) between bounds; the best of 201 values (a scalar); Adam from
        1/K with the released learning rate, batches, epochs and seed.
    fusion
        As for ``counterfactual``.

    Raises
    ------
    InputError
        As ``counterfactual``, for unknown options, and for a grid of one c a class.
    """
    main, bias = both_models(p_main, p_bias)
    for name, chosen, known in (("of", of, OFS), ("objective", objective, OBJECTIVES), ("solver", solver, SOLVERS)):
        if chosen not in known:
            raise InputError(f"{name} = {chosen!r} is not one of {', '.join(known)}")
    if per_class and solver == "grid":
        raise InputError("a grid of one c a class grows beyond use; choose solver='exact', or per_class=False")
    loss = objective_of(main, bias, of, objective, fusion)
    low, high = BOUNDS[of]
    grid = np.linspace(low, high, GRID)
    curve = pd.DataFrame({"c": grid, "loss": [float(loss(np.asarray(c)).mean()) for c in grid]})
    start = np.full(main.shape[1] if per_class else (), 1 / main.shape[1])
    match solver:
        case "grid":
            found = np.asarray(grid[curve["loss"].to_numpy().argmin()])
        case "published":
            found = _adam(loss, start, len(main))
        case _ if per_class:
            result = optimize.minimize(
                lambda c: float(loss(c).mean()), start, method="L-BFGS-B", bounds=[(low, high)] * len(start)
            )
            found = np.asarray(result.x)
        case _:
            near = int(curve["loss"].to_numpy().argmin())  # of the grid, since the objective need not be convex
            between = grid[max(near - 1, 0)], grid[min(near + 1, GRID - 1)]
            result = optimize.minimize_scalar(
                lambda c: float(loss(np.asarray(c)).mean()), bounds=between, method="bounded", options={"xatol": 1e-10}
            )
            found = np.asarray(result.x)
    settings: dict[str, object] = {
        "of": of,
        "objective": objective,
        "per_class": per_class,
        "solver": solver,
        "fusion": fusion,
        "samples": len(main),
    }
    value = float(found) if found.ndim == 0 else found
    return Sharpness(value, float(loss(found).mean()), curve, settings)


def objective_of(main: Float, bias: Float, of: Of, objective: Objective, fusion: Fusion) -> Loss:
    """Loss of every sample, or of some rows, as a function of c."""
    h = fuse(fusion)
    factual = h(bias, main)
    target = {
        ("tie_a", "paper"): special.softmax(factual, axis=1),
        ("te_model", "paper"): main,
    }.get((of, objective), bias)

    def scores(c: Float, rows: Rows) -> Float:
        if objective == "paper":
            own = bias[rows]
            return h(own, np.broadcast_to(c, own.shape)) if of == "tie_a" else np.asarray(c * own)
        out: Float = special.log_expit(c + (factual if of == "tie_a" else main)[rows])
        return out

    def loss(c: Float, rows: Rows = slice(None)) -> Float:
        log_q = special.log_softmax(scores(c, rows), axis=1)
        kl: Float = (special.xlogy(target[rows], target[rows]) - target[rows] * log_q).sum(1)
        return kl / main.shape[1] if objective == "released" else kl

    return loss


def _adam(loss: Loss, start: Float, samples: int) -> Float:
    """Adam's first moments .9, second .999, ε 1e-8, on shuffled batches; slopes by central differences."""
    c = np.array(start, dtype=np.float64)
    first, second = np.zeros_like(c), np.zeros_like(c)
    generator = np.random.default_rng(SEED)
    step = 0
    for _ in range(EPOCHS):
        order = generator.permutation(samples)
        for begin in range(0, samples, BATCH):
            part = order[begin : begin + BATCH]
            slope = _slope(loss, c, part)
            step += 1
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope**2
            c = c - LEARNING_RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return c


def _slope(loss: Loss, c: Float, part: npt.NDArray[np.int64]) -> Float:
    width = 1e-5
    unit = width * (np.ones(()) if c.ndim == 0 else np.eye(len(c)))
    each = [(loss(c + e, part).mean() - loss(c - e, part).mean()) / (2 * width) for e in np.atleast_1d(unit)]
    return np.array(each).reshape(c.shape)
