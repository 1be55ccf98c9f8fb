"""``search``: the natural indirect effect of every neuron, or of sets of neurons."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from pyneuro.data.pairs import LABELS, pairs_digest
from pyneuro.effects import Moments, Response
from pyneuro.engine.backend import Backend, choose_backend
from pyneuro.engine.exact import ExactEngine
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.plan import Memory
from pyneuro.engine.values import Values
from pyneuro.errors import InputError
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.results import Result, TileStore
from pyneuro.search.driver import Sweep
from pyneuro.search.evaluator import Evaluator
from pyneuro.search.exact import ExactEvaluator
from pyneuro.search.progress import Progress, duration
from pyneuro.search.targets import Sites, make_groups, resolve_sites, sites_digest
from pyneuro.sites import CONVENTIONS, NeuronSet

METHODS = ("exact",)


@dataclass(frozen=True)
class Request:
    """What is asked of a search, whatever computes it. The fields are the options of ``search`` of the same names."""

    response: str = "probability"
    target: str = "entailment"
    foil: str | None = None
    sites: Sites = "all"
    convention: str = "linear"
    intervention: str = "replace"
    strength: float | None = None
    token: int | Literal["all"] = 0
    probability_floor: float | None = None
    ci: float = 0.95
    out: str | os.PathLike[str] | None = None
    resume: bool = False
    progress: bool | None = None


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
    intervention: str = "replace",
    strength: float | None = None,
    token: int | Literal["all"] = 0,
    memory: int | None = None,
    probability_floor: float | None = None,
    ci: float = 0.95,
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
    method : "exact"
        Every (neuron, sample) pair by delta propagation.
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
        "replace", "weaken" (a := strength · a), "negate", "remove" (a := 0) or "add" (a := a + strength · z).
    token : int or "all"
        Position patched; 0 is [CLS]. Others go through the general path, which is slower.
    memory : int, optional
        Budget in bytes for the engine's arrays, beside the model and its packed weights.
    probability_floor : float, optional
        Leave out samples whose base probability of the target is below this (Vig et al. use 0.01): a mean of ratios
        is at the mercy of tiny denominators.
    ci : float
        Coverage of the intervals.
    out : folder, optional
        Where partial results are kept while the search runs and the result is saved at its end.
    resume : bool
        Continue the partial results in `out`.
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
    if memory is not None and memory <= 0:
        raise InputError(f"memory = {memory} bytes; pass a positive number, such as 2 * 1024**3")
    chosen = choose_backend(backend, precision)
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
        out=out,
        resume=resume,
        progress=progress,
    )
    return run_search(
        clf, pairs, values, request, _exact(clf, request, chosen, memory), {"method": method, **asdict(chosen)}
    )


def _exact(
    clf: Classifier, request: Request, backend: Backend, memory: int | None
) -> Callable[[Intervention], Evaluator]:
    def make(intervention: Intervention) -> Evaluator:
        engine = ExactEngine.create(clf, backend, Memory(memory))
        joint = not isinstance(resolve_sites(request.sites, clf.shape), NeuronSet)
        return ExactEvaluator(engine, request.convention, intervention, request.token, joint)

    return make


def run_search(
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None,
    request: Request,
    make_evaluator: Callable[[Intervention], Evaluator],
    how: dict[str, Any],
) -> Result:
    """Check a request, run it through an evaluator, and give the result. ``search`` and the baselines end here.

    Parameters
    ----------
    make_evaluator : callable
        From the intervention to the evaluator; called once the request has been found good.
    how : dict
        What computes, for the manifest; a search resumes only under the same.
    """
    samples = _samples(pairs)
    intervention = Intervention(request.intervention, request.strength)  # type: ignore[arg-type]
    sites = resolve_sites(request.sites, clf.shape)
    groups = make_groups(sites, _checked_values(clf, values, request, intervention, sites))
    response = _response(clf, request)
    encodings = [clf.encode(pair) for pair in samples]
    _check_token(request.token, encodings)
    treatments = list(values.treatments) if values is not None else [request.intervention]
    settings = {
        "model": {"name": clf.name, "digest": clf.digest},
        "data": {"pairs": len(samples), "digest": pairs_digest(samples)},
        "values": None if values is None else values.digest(),
        "sites": sites_digest(sites),
        "treatments": treatments,
        "response": asdict(response),
        "convention": request.convention,
        "intervention": asdict(intervention),
        "token": request.token,
        "probability_floor": request.probability_floor,
        **how,
    }
    store = None if request.out is None else TileStore(request.out, settings, request.resume)
    shown = sys.stderr.isatty() if request.progress is None else request.progress
    progress = Progress(shown)
    evaluator = make_evaluator(intervention)
    sweep = Sweep(evaluator, encodings, groups, treatments, response, request.probability_floor, store, progress)
    restored = sweep.restore()
    _announce(sweep, sites, restored)
    total = sum(sweep.work(s, g) for g in groups for s in range(len(encodings)))
    done = sum(sweep.work(s, g) for g in groups for s in range(sweep.states[g.name].done))
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
    result = _collect(sweep, sites, {"settings": settings, "ids": [e.id for e in encodings]}, request.ci)
    if store is not None:
        result.save(store.folder)
        store.clear()
    return result


def _samples(pairs: PairLike | Sequence[PairLike]) -> list[PairLike]:
    samples: list[PairLike] = [pairs] if isinstance(pairs, PairLike) else list(pairs)
    if not samples:
        raise InputError("no pairs to search on; pass at least one")
    for pair in samples:
        if not isinstance(pair, PairLike):
            raise InputError(f"{pair!r} is no pair; pass objects with id, premise and hypothesis, as pyneuro.data.Pair")
        label = getattr(pair, "label", None)
        if label is not None and label not in LABELS:
            raise InputError(f"pair {pair.id!r} has label {label!r}; use {', '.join(LABELS)} or None")
    return samples


def _checked_values(
    clf: Classifier,
    values: Values | None,
    request: Request,
    intervention: Intervention,
    sites: NeuronSet | dict[str, NeuronSet],
) -> Values | None:
    if request.convention not in CONVENTIONS:
        raise InputError(f"convention {request.convention!r} is not one of {', '.join(CONVENTIONS)}")
    if not intervention.needs_values:
        if values is not None:
            raise InputError(f"intervention {intervention.kind!r} takes no values; leave them out")
        return None
    if values is None:
        raise InputError(
            f"intervention {intervention.kind!r} needs replacement values; pass mean_activations(...) or "
            "Values.from_arrays(...)"
        )
    members = [sites] if isinstance(sites, NeuronSet) else list(sites.values())
    values.check(clf, request.convention, {site for s in members for site, _ in s.groups()})
    return values


def _response(clf: Classifier, request: Request) -> Response:
    foil = None if request.foil is None else clf.target_index(request.foil)
    if request.probability_floor is not None and not 0 <= request.probability_floor < 1:
        raise InputError(f"probability_floor = {request.probability_floor}; pass a number in [0, 1), such as 0.01")
    if not 0 < request.ci < 1:
        raise InputError(f"ci = {request.ci} is not a coverage; pass a number between 0 and 1, such as 0.95")
    return Response(request.response, clf.target_index(request.target), foil)  # type: ignore[arg-type]


def _check_token(token: int | str, encodings: Sequence[Any]) -> None:
    if token == "all":
        return
    if not isinstance(token, int) or token < 0:
        raise InputError(f"token = {token!r}; pass a position from 0 ([CLS]) or 'all'")
    shortest = min(encodings, key=len)
    if token >= len(shortest):
        raise InputError(
            f"token {token} lies outside sample {shortest.id!r}, which has {len(shortest)} tokens; drop the sample or "
            "choose another token"
        )


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


def _collect(sweep: Sweep, sites: NeuronSet | dict[str, NeuronSet], manifest: dict[str, Any], ci: float) -> Result:
    states = [sweep.states[g.name] for g in sweep.groups]
    moments = {name: Moments.concat([s.treatments[name] for s in states]) for name in sweep.treatments}
    contrasts = [s.contrast for s in states if s.contrast is not None]
    manifest["run"] = {
        "patched_runs": int(sweep.patched_runs),
        "seconds": float(sweep.seconds),
        "threads": torch.get_num_threads(),
        "left_out_below_floor": sorted(sweep.skipped),
    }
    return Result.from_moments(sites, moments, Moments.concat(contrasts) if contrasts else None, manifest, ci)
