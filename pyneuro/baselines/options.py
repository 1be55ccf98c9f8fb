"""The door of the baselines: options checked once, then the same search loop as ``pyneuro.search``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, TypedDict

from pyneuro.baselines.patching import Patching, model_dtype
from pyneuro.effects import Response, ResponseName
from pyneuro.engine.intervention import Kind
from pyneuro.engine.values import Values
from pyneuro.errors import InputError, is_whole
from pyneuro.models import Classifier, PairLike
from pyneuro.results import Result
from pyneuro.search.evaluator import Evaluator
from pyneuro.search.request import Request
from pyneuro.search.search import run_search
from pyneuro.search.targets import Sites
from pyneuro.sites import Convention


class Options(TypedDict, total=False):
    """Options of ``pyneuro.search`` that every baseline takes, with the same meaning and the same defaults."""

    response: ResponseName
    target: str
    foil: str | None
    sites: Sites
    convention: Convention
    intervention: Kind
    strength: float | None
    token: int | Literal["all"]
    probability_floor: float | None
    ci: float
    bootstrap: int
    out: str | os.PathLike[str] | None
    resume: bool
    progress: bool | None


def run_baseline(
    method: str,
    make: Callable[[Patching, int, Request], Evaluator],
    clf: Classifier,
    pairs: PairLike | Sequence[PairLike],
    values: Values | None,
    batch_size: int,
    options: Mapping[str, Any],
    *,
    takes_sets: bool = False,
    how: Mapping[str, Any] | None = None,
    read: Callable[[Response], Response] | None = None,
) -> Result:
    """Check what a baseline was given and search with it.

    Parameters
    ----------
    method : str
        Name of the public function, for messages and the manifest.
    make : callable
        The evaluator, from how to patch, the batch size and the request.
    takes_sets : bool
        Whether ``sites`` may map names to sets that are patched jointly.
    how : dict, optional
        The method's own settings, for the manifest.
    read : callable, optional
        As for ``run_search``.

    Raises
    ------
    InputError
        An option that does not exist, a batch size that is no positive integer, sets where there is no way to patch
        them, and whatever ``pyneuro.search`` refuses.
    """
    known = [field.name for field in fields(Request)]
    for name in options:
        if name not in known:
            raise InputError(f"{method} has no option {name!r}; it takes batch_size, {', '.join(known)}")
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"batch_size = {batch_size!r}; pass a positive integer, such as 32")
    request = Request(**options)
    if isinstance(request.sites, Mapping) and not takes_sets:
        raise InputError(
            f"{method} patches single neurons and sites is a mapping of {len(request.sites)} named sets; pass names or "
            "a NeuronSet, or use neurons_in_batch or pyneuro.search, which patch sets jointly"
        )
    computed = {"method": method, "batch_size": batch_size, "dtype": str(model_dtype(clf)).removeprefix("torch.")}
    return run_search(
        clf,
        pairs,
        values,
        request,
        lambda checked: make(
            Patching(clf, request.convention, checked.intervention, checked.request.token), batch_size, request
        ),
        {**computed, **(how or {})},
        read,
    )
