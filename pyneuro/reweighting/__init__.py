"""Bias models, and training losses that keep a classifier from leaning on what they can do."""

from pyneuro.reweighting.annealing import Annealed
from pyneuro.reweighting.bias_models import BiasModel, FittedBiasModel, HypothesisModel, LinearBias, OverlapModel
from pyneuro.reweighting.cross_fit import cross_fit
from pyneuro.reweighting.features import FEATURE_SETS, FeatureSet, overlap_features
from pyneuro.reweighting.figure import save_weights_figure
from pyneuro.reweighting.heuristics import HEURISTICS, heuristic_flags
from pyneuro.reweighting.learned_mixin import LearnedMixin
from pyneuro.reweighting.losses import (
    LOSSES,
    Loss,
    confidence_regularisation,
    debiased_focal,
    plain,
    product_of_experts,
    reweight,
    weighted,
)
from pyneuro.reweighting.predictions import BiasPredictions
from pyneuro.reweighting.shallow import ShallowBias, ShallowModel
from pyneuro.reweighting.weights import sample_weights

__all__ = [
    "FEATURE_SETS",
    "HEURISTICS",
    "LOSSES",
    "Annealed",
    "BiasModel",
    "BiasPredictions",
    "FeatureSet",
    "FittedBiasModel",
    "HypothesisModel",
    "LearnedMixin",
    "LinearBias",
    "Loss",
    "OverlapModel",
    "ShallowBias",
    "ShallowModel",
    "confidence_regularisation",
    "cross_fit",
    "debiased_focal",
    "heuristic_flags",
    "overlap_features",
    "plain",
    "product_of_experts",
    "reweight",
    "sample_weights",
    "save_weights_figure",
    "weighted",
]
