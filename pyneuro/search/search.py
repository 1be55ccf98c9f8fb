"""``search``: the natural indirect effect of every neuron, or of sets of neurons."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch

from pyneuro.effects import Response
from pyneuro.engine.backend import Backend, choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.linear import Depth
from pyneuro.engine.plan import Memory
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_whole
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.results import CONTRAST, Result, TileStore, finished_result
from pyneuro.results.files import exclusive, writable_folder
from pyneuro.search.driver import Sweep
from pyneuro.search.estimate.estimate import Budget, run_estimate
from pyneuro.search.estimate.tolerance import Tolerance, ToleranceOf
from pyneuro.search.evaluator import Evaluator
from pyneuro.search.exact import ExactAtOnce, ExactEvaluator
from pyneuro.search.floor import require_samples
from pyneuro.search.progress import Progress, duration
from pyneuro.search.request import Checked, Request, check_request, describe
from pyneuro.search.targets import Group, Sites
from pyneuro.sites import NeuronSet

METHODS = ("exact", "estimate", "linear")


def search(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None = None,
    *,
    method: str = "exact",
    response: str = "probability",
    target: str = "entailment",
    foil: str | None = None,
    sites: Sites = "all",
    convention: str = "linear",
    backend: str | None = None,
    precision: str = "fp32",
    intervention: str | Intervention = "replace",
    strength: float | None = None,
    token: int | Literal["all"] = 0,
    memory: int | None = None,
    probability_floor: float | None = None,
    ci: float = 0.95,
    bootstrap: int = 0,
    depth: Depth = "planned",
    tolerance: float = 0.5,
    tolerance_of: ToleranceOf = "sampling",
    tolerance_top: int | None = None,
    budget: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> Result:
    """Natural indirect effects of neurons on a response, over samples.

    For each neuron n and treatment with replacement value z: ``NIE(n) = mean_i [r(x_i; a_n := z) / r(x_i) − 1]`` for
    the responses on a ratio scale, ``mean_i [r(x_i; a_n := z) − r(x_i)]`` for the others (Vig et al. 2020; Lim et al.
    2024).

    Parameters
    ----------
    clf : Classifier
        From ``pyneuro.load``. Left as it was.
    pairs : a pair or a sequence of pairs
        Samples of the mean. Anything with ``id``, ``premise``, ``hypothesis`` and ``label``.
    values : Values, optional
        Replacement values by treatment, from ``mean_activations`` or ``Values.from_arrays``; needed by the
        interventions ``replace`` and ``add``, and refused by the others.
    method : "exact", "estimate" or "linear"
        Every (neuron, sample) pair by delta propagation; or a prediction for every pair and exact effects of a random
        few, which make the means unbiased and prove their errors (docs/estimate.md): columns ``design_se, design_low,
        design_high`` say how far they may be from what "exact" would give; or the predictions alone.
    response : str
        "probability", "odds", "log_odds", "logit_difference", "kl" or "flip"; see ``pyneuro.effects.Response``.
    target, foil : str
        Class whose response it is, and, for ``logit_difference``, the class compared with (default: the mean of the
        others).
    sites : "all", names, NeuronSet or mapping of names to NeuronSet
        Neurons, each patched alone; a mapping is of sets, each patched jointly. Names as ``["L3.I.906", "L0.Q.*"]``.
    convention : "linear" or "hook"
        Where a neuron is, see ``pyneuro.sites``.
    backend : "cpu", "reference" or None
        None: ``PYNEURO_BACKEND``, else the best one built.
    precision : "fp32", "bf16" or "float64"
        Of the differences; see ``pyneuro.engine.backend.choose_backend``.
    intervention, strength
        An ``Intervention``, or its kind and strength: "replace", "weaken" (a := strength · a), "negate", "remove"
        (a := 0) or "add" (a := a + strength · z).
    token : int or "all"
        Position patched; 0 is [CLS]. Others go through the general path, which is slower.
    memory : int, optional
        Budget in bytes for the engine's arrays, beside the model and its packed weights.
    probability_floor : float, optional
        Leave out samples whose base probability of the target is below this (Vig et al. use 0.01): a mean of ratios
        is at the mercy of tiny denominators.
    ci : float
        Coverage of the intervals.
    bootstrap : int
        Of "exact": replicates of a bootstrap over samples, from 20; 0 for none. Adds ``boot_se, boot_low, boot_high``
        (``pyneuro.effects.Bootstrap``) at 8 bytes a replicate, neuron, treatment and contrast.
    depth : "planned", "inside" or int
        Of "linear": where the adjoint takes over, see ``pyneuro.engine.linear.LinearEngine.delta_logits``.
    tolerance, tolerance_of, tolerance_top
        Of "estimate": when a neuron has had enough exact pairs, see ``pyneuro.search.estimate.tolerance.Tolerance``. By
        default at half the standard error that the choice of texts leaves anyway.
    budget : int, optional
        Of "estimate": exact pairs at most. What was reached by then is the result.
    seconds : float, optional
        Of "estimate": time at most, about. What is reached depends on the machine.
    seed : int
        Of "estimate": of every draw.
    out : folder, optional
        Where partial results are kept while the search runs and the result is saved at its end. A finished result
        there is never overwritten.
    resume : bool
        Continue the partial results in `out`, or return the finished result there; start where there is neither.
    progress : bool, optional
        Plan and progress on standard error. None: when it is a terminal.

    Returns
    -------
    Result
        One row a neuron (or set) and treatment.

    Raises
    ------
    InputError
        For anything that cannot be used, before any work: pairs, values, sites, options, an unwritable folder.
    ResumeError
        The partial results are of another model, other data or other settings; the message says which.
    BackendError
        The backend is not built here, or lacks the precision.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if bootstrap and method != "exact":
        raise InputError(f"bootstrap = {bootstrap!r} needs the effect of every sample; use method='exact', or 0")
    request = Request(
        response=response,
        target=target,
        foil=foil,
        sites=sites,
        convention=convention,
        intervention=intervention,
        strength=strength,
        token=token,
        probability_floor=probability_floor,
        ci=ci,
        bootstrap=bootstrap,
        out=out,
        resume=resume,
        progress=progress,
    )
    if depth not in ("planned", "inside") and not (is_whole(depth) and depth >= 0):
        raise InputError(f"depth = {depth!r}; pass 'planned', 'inside' or a number of layers from 0")
    if method != "linear" and depth != "planned":
        raise InputError(
            f"depth = {depth!r} has no meaning for method {method!r}; leave it out, or use method='linear'"
        )
    limits = Budget(Tolerance(tolerance, tolerance_of, tolerance_top), budget, seconds, seed)
    if method != "estimate" and limits != Budget(Tolerance(), seed=seed):
        raise InputError(
            "tolerance, tolerance_of, tolerance_top, budget and seconds have no meaning for method "
            f"{method!r}; leave them out, or use method='estimate'"
        )
    chosen = choose_backend(backend, precision)
    room = Memory.of(chosen, memory)
    how: dict[str, Any] = {"method": method, "backend": chosen.name, "precision": chosen.precision}
    if method == "exact":
        return run_search(clf, pairs, values, request, lambda checked: _exact(clf, checked, chosen, room), how)
    how |= {"depth": depth} if method == "linear" else asdict(limits)
    return _finish(
        clf,
        pairs,
        values,
        request,
        lambda checked, settings, store: run_estimate(
            ExactEngine.create(clf, chosen, room), checked, settings, store, depth if method == "linear" else limits
        ),
        how,
    )


def _exact(clf: Classifier, checked: Checked, backend: Backend, memory: Memory) -> Evaluator:
    engine = ExactEngine.create(clf, backend, memory)
    joint = not isinstance(checked.sites, NeuronSet)
    plain = ExactEvaluator(engine, checked.request.convention, checked.intervention, checked.request.token, joint)
    if joint:
        return plain
    neurons = [(g.layer, g.module, g.index, g.z) for g in checked.groups if isinstance(g, Group)]
    return ExactAtOnce.of(plain, neurons, checked.encodings) or plain


def run_search(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None,
    request: Request,
    make_evaluator: Callable[[Checked], Evaluator],
    how: dict[str, Any],
    read: Callable[[Response], Response] | None = None,
) -> Result:
    """Check a request, run it through an evaluator, and give the result. ``search`` and the baselines end here.

    Parameters
    ----------
    make_evaluator : callable
        From the checked request to the evaluator.
    how : dict
        What computes, for the manifest; a search resumes only under the same.
    read : callable, optional
        From the response asked for to the one that makes effects of what the evaluator returns, where it is another.
    """
    return _finish(
        clf,
        pairs,
        values,
        request,
        lambda checked, settings, store: _run(checked, make_evaluator, settings, store),
        how,
        read,
    )


def _finish(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None,
    request: Request,
    run: Callable[[Checked, dict[str, Any], TileStore | None], Result],
    how: dict[str, Any],
    read: Callable[[Response], Response] | None = None,
) -> Result:
    """Check a request, run it in its folder, and save the result there."""
    checked = check_request(clf, pairs, values, request)
    if read is not None:
        checked = replace(checked, response=read(checked.response))
    settings = {**describe(checked, clf, values), **how}
    if request.out is None:
        return run(checked, settings, None)
    out = writable_folder(request.out)
    with exclusive(out):
        if (found := finished_result(out, settings, request.ci, request.resume)) is not None:
            return found
        store = TileStore(out, settings, request.resume)
        result = run(checked, settings, store)
        result.save(store.folder)
        store.clear()
        return result


def _run(
    checked: Checked, make_evaluator: Callable[[Checked], Evaluator], settings: dict[str, Any], store: TileStore | None
) -> Result:
    request = checked.request
    evaluator = make_evaluator(checked)
    evaluator.admit(max(map(len, checked.encodings)))
    progress = Progress.asked(request.progress)
    sweep = Sweep(
        evaluator,
        checked.encodings,
        checked.groups,
        checked.treatments,
        checked.response,
        request.probability_floor,
        store,
        progress,
        request.bootstrap,
    )
    restored = sweep.restore()
    _announce(sweep, checked.sites, restored)
    total = sum(sweep.work(s, g) for g in sweep.groups for s in range(len(sweep.encodings)))
    done = sum(sweep.work(s, g) for g in sweep.groups for s in range(sweep.states[g.name].done))
    progress.start(total, done)
    try:
        sweep.run()
    except KeyboardInterrupt:
        progress.close()
        if store is not None:
            progress.say(
                f"stopped; finished tiles are kept in {store.folder}: run again with resume=True (--resume) to go on"
            )
        raise
    finally:
        progress.close()
    return _collect(sweep, checked, {"settings": settings, "ids": [e.id for e in checked.encodings]})


def _announce(sweep: Sweep, sites: NeuronSet | dict[str, NeuronSet], restored: int) -> None:
    progress = sweep.progress
    if not progress.shown:
        return
    what = "neurons" if isinstance(sites, NeuronSet) else "sets"
    runs = len(sites) * len(sweep.encodings) * len(sweep.treatments)
    seconds = sweep.calibrate()
    progress.say(
        f"plan: {len(sites):,} {what} x {len(sweep.encodings):,} samples x {len(sweep.treatments)} treatments "
        f"({', '.join(sweep.treatments)}) = {runs:,} patched runs"
    )
    if restored:
        progress.say(f"resuming: {restored:,} of {len(sweep.groups) * len(sweep.encodings):,} tiles are done")
    if seconds is not None:
        progress.say(f"about {duration(seconds)}, from a short calibration")


def _collect(sweep: Sweep, checked: Checked, manifest: dict[str, Any]) -> Result:
    left_out = sweep.left_out()
    require_samples(len(sweep.encodings) - len(left_out), checked.request.probability_floor)
    states = [sweep.states[g.name] for g in sweep.groups]
    parts = {name: [s.columns(name, checked.request.ci) for s in states] for name in states[0].names}
    tables = {name: {c: np.concatenate([part[c] for part in p]) for c in p[0]} for name, p in parts.items()}
    manifest["run"] = {
        "patched_runs": int(sweep.patched_runs),
        "seconds": float(sweep.seconds),
        "threads": torch.get_num_threads(),
        "left_out_below_floor": left_out,
    }
    if (cost := getattr(sweep.evaluator, "forward_equivalents", None)) is not None:
        manifest["run"]["forward_equivalents"] = float(cost)  # a sample
    contrast = tables.pop(CONTRAST, None)
    return Result.from_columns(checked.sites, tables, contrast, manifest, checked.request.ci)
