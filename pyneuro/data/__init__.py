"""NLI pairs: reading, word overlap, treatment sets and split roles."""

from pyneuro.data.balance import balanced_sample
from pyneuro.data.generator import embedded_pairs
from pyneuro.data.overlap import OVERLAP_SCORERS, overlap, overlap_scores, register_scorer
from pyneuro.data.pairs import LABELS, Pair, Pairs
from pyneuro.data.read import read_pairs
from pyneuro.data.roles import ROLE_FRACTIONS, ROLES, Roles, split_roles
from pyneuro.data.treatment import PRESETS, TREATMENTS, Preset, TreatmentSets, treatment_sets

__all__ = [
    "LABELS",
    "OVERLAP_SCORERS",
    "PRESETS",
    "ROLES",
    "ROLE_FRACTIONS",
    "TREATMENTS",
    "Pair",
    "Pairs",
    "Preset",
    "Roles",
    "TreatmentSets",
    "balanced_sample",
    "embedded_pairs",
    "overlap",
    "overlap_scores",
    "read_pairs",
    "register_scorer",
    "split_roles",
    "treatment_sets",
]
