"""pyneuro: exact causal mediation analysis of every neuron of an NLI classifier.

>>> import pyneuro as pn
>>> clf = pn.load(pn.bundled_model())
>>> roles = pn.data.split_roles(pn.data.embedded_pairs(400, seed=0), seed=0)
>>> values = pn.mean_activations(clf, pn.data.treatment_sets(roles.treatment, low=20, high=80))
>>> result = pn.search(clf, roles.nie[:2], values, sites=["L5.I.*"])
>>> top = result.top(10, treatment="HOL")
"""

import os as _os
import sys as _sys

if "torch" not in _sys.modules:
    # Threads that spin between two kernels cost milliseconds a region on a busy machine and gain little on an idle one.
    _os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch as _torch  # noqa: F401 (before the native module: one OpenMP runtime for both)

from pyneuro import baselines, data, evaluation, masking, mitigation, reweighting, screens
from pyneuro.engine.intervention import Intervention
from pyneuro.engine.values import Values, mean_activations
from pyneuro.errors import BackendError, InputError, PyneuroError, ResumeError
from pyneuro.masking import MaskedLinear
from pyneuro.models import Classifier, bundled_model, load, register_adapter, wrap
from pyneuro.presets import preset, preset_names
from pyneuro.results import Comparison, Result, compare, load_result, save_figures, summary_text
from pyneuro.search import (
    BesideControls,
    Bisection,
    Greedy,
    Ranking,
    TopK,
    beside_controls,
    bisect,
    controls_table,
    greedy,
    halves,
    matched_controls,
    matched_rankings,
    measure_beside_controls,
    rank,
    search,
    synergy,
    top_k,
    top_k_sets,
    with_controls,
)
from pyneuro.sites import MODULES, ModelShape, Neuron, NeuronSet

__version__ = "0.1.0"

__all__ = [
    "MODULES",
    "BackendError",
    "BesideControls",
    "Bisection",
    "Classifier",
    "Comparison",
    "Greedy",
    "InputError",
    "Intervention",
    "MaskedLinear",
    "ModelShape",
    "Neuron",
    "NeuronSet",
    "PyneuroError",
    "Ranking",
    "Result",
    "ResumeError",
    "TopK",
    "Values",
    "baselines",
    "beside_controls",
    "bisect",
    "bundled_model",
    "compare",
    "controls_table",
    "data",
    "evaluation",
    "greedy",
    "halves",
    "load",
    "load_result",
    "masking",
    "matched_controls",
    "matched_rankings",
    "mean_activations",
    "measure_beside_controls",
    "mitigation",
    "preset",
    "preset_names",
    "rank",
    "register_adapter",
    "reweighting",
    "save_figures",
    "screens",
    "search",
    "summary_text",
    "synergy",
    "top_k",
    "top_k_sets",
    "with_controls",
    "wrap",
]
