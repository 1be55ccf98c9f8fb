"""The door of a search: what was asked for, checked once, before any work."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pyneuro.data.pairs import LABELS
from pyneuro.effects import Response
from pyneuro.effects.bootstrap import check_replicates
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_number
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.models.weights import Encoding
from pyneuro.results import CONTRAST
from pyneuro.search.targets import Group, SetGroup, Sites, make_groups, resolve_sites, sites_digest, texts_digest
from pyneuro.sites import CONVENTIONS, NeuronSet


@dataclass(frozen=True)
class Request:
    """What is asked of a search, whatever computes it. The fields are the options of ``search`` of the same names."""

    response: str = "probability"
    target: str = "entailment"
    foil: str | None = None
    sites: Sites = "all"
    convention: str = "linear"
    intervention: str | Intervention = "replace"
    strength: float | None = None
    token: int | Literal["all"] = 0
    probability_floor: float | None = None
    ci: float = 0.95
    bootstrap: int = 0
    out: str | os.PathLike[str] | None = None
    resume: bool = False
    progress: bool | None = None


@dataclass(frozen=True, eq=False)
class Checked:
    """A request found good, and what it refers to."""

    request: Request
    samples: Sequence[PairLike]
    encodings: Sequence[Encoding]
    sites: NeuronSet | dict[str, NeuronSet]
    groups: Sequence[Group | SetGroup]
    treatments: Sequence[str]
    response: Response
    intervention: Intervention


def check_request(
    clf: Classifier, pairs: PairLike | Sequence[PairLike], values: Values | None, request: Request
) -> Checked:
    """Refuse what cannot be used, naming it and the mend.

    Raises
    ------
    InputError
        See ``search``.
    """
    if not isinstance(clf, Classifier):
        raise InputError(f"clf is {type(clf).__name__}; pass what pyneuro.load or pyneuro.wrap returns")
    samples = _samples(pairs)
    intervention = _intervention(request)
    sites = resolve_sites(request.sites, clf.shape)
    groups = make_groups(sites, _values(clf, values, request, intervention, sites))
    response = check_response(clf, request)
    if request.bootstrap and len(samples) < 2:
        raise InputError(f"bootstrap = {request.bootstrap} draws from a single sample; pass two pairs or more, or 0")
    treatments = list(values.treatments) if values is not None else [intervention.kind]
    if CONTRAST in treatments:
        raise InputError(f"a treatment cannot be called {CONTRAST!r}, the name of the contrast; rename it")
    if request.resume and request.out is None:
        raise InputError("resume=True needs the folder of the partial results; pass out")
    encodings = [clf.encode(pair) for pair in samples]
    request = replace(request, token=_token(request.token, encodings))
    return Checked(request, samples, encodings, sites, groups, treatments, response, intervention)


def _samples(pairs: PairLike | Sequence[PairLike]) -> list[PairLike]:
    try:
        samples: list[PairLike] = [pairs] if isinstance(pairs, PairLike) else list(pairs)
    except TypeError:
        raise InputError(f"pairs is {type(pairs).__name__}; pass a pair or a sequence of them") from None
    if not samples:
        raise InputError("no pairs to search on; pass at least one")
    for pair in samples:
        if not isinstance(pair, PairLike):
            raise InputError(f"{pair!r} is no pair; pass objects with id, premise and hypothesis, as pyneuro.data.Pair")
        label = getattr(pair, "label", None)
        if label is not None and label not in LABELS:
            raise InputError(f"pair {pair.id!r} has label {label!r}; use {', '.join(LABELS)} or None")
    return samples


def _intervention(request: Request) -> Intervention:
    if isinstance(request.intervention, Intervention):
        if request.strength is not None:
            raise InputError(f"strength = {request.strength} beside {request.intervention}; give it once")
        return request.intervention
    if request.strength is not None and not is_number(request.strength):
        raise InputError(f"strength = {request.strength!r} is not a number")
    return Intervention(request.intervention, request.strength)  # type: ignore[arg-type]


def _values(
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
    if not isinstance(values, Values):
        raise InputError(
            f"values is {type(values).__name__}; pass mean_activations(...), Values.from_arrays(...) or "
            "Values.load(path)"
        )
    members = [sites] if isinstance(sites, NeuronSet) else list(sites.values())
    values.check(clf, request.convention, {site for s in members for site, _ in s.groups()})
    return values


def check_response(clf: Classifier, request: Request) -> Response:
    """The response of a request, its target, foil, floor, coverage and replicates found good.

    Raises InputError naming what is not.
    """
    floor, target = request.probability_floor, clf.target_index(request.target)
    if floor is not None and not (is_number(floor) and 0 <= floor < 1):
        raise InputError(f"probability_floor = {floor!r}; pass a number in [0, 1), such as 0.01")
    if not (is_number(request.ci) and 0 < request.ci < 1):
        raise InputError(f"ci = {request.ci!r} is not a coverage; pass a number between 0 and 1, such as 0.95")
    if request.bootstrap != 0 or isinstance(request.bootstrap, bool):
        check_replicates(request.bootstrap)
    if request.foil is None:
        return Response(request.response, target)  # type: ignore[arg-type]
    foil = clf.target_index(request.foil)
    if request.response != "logit_difference":
        raise InputError(
            f"foil {request.foil!r} has no meaning for {request.response!r}; leave it out or use 'logit_difference'"
        )
    if foil == target:
        raise InputError(f"foil {request.foil!r} must be a class other than the target {request.target!r}")
    return Response("logit_difference", target, foil)


def _token(token: Any, encodings: Sequence[Encoding]) -> int | Literal["all"]:
    if isinstance(token, str) and token == "all":
        return "all"
    try:
        position = -1 if isinstance(token, bool) else operator.index(token)
    except TypeError:
        position = -1
    if position < 0:
        raise InputError(f"token = {token!r}; pass a position from 0 ([CLS]) or 'all'")
    shortest = min(encodings, key=len)
    if position >= len(shortest):
        raise InputError(
            f"token {position} lies outside sample {shortest.id!r}, which has {len(shortest)} tokens; drop the sample "
            "or choose another token"
        )
    return position


def describe(checked: Checked, clf: Classifier, values: Values | None) -> dict[str, Any]:
    """What the numbers depend on, for the manifest; a search resumes only under the same."""
    request = checked.request
    return {
        "model": {"name": clf.name, "digest": clf.digest, "labels": dict(clf.label_index)},
        "data": {"pairs": len(checked.samples), **texts_digest(checked.samples, checked.encodings)},
        "values": None if values is None else {"digest": values.digest(), "samples": dict(values.counts)},
        "sites": sites_digest(checked.sites),
        "treatments": list(checked.treatments),
        "response": {"name": checked.response.name, "target": request.target, "foil": request.foil},
        "convention": request.convention,
        "intervention": asdict(checked.intervention),
        "token": request.token,
        "probability_floor": request.probability_floor,
        "bootstrap": int(request.bootstrap),
    }
