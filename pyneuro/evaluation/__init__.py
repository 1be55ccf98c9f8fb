"""How well a classifier does where a shortcut helps, and where it hurts."""

from pyneuro.evaluation.ablation import AblationCurve, ablation_curve
from pyneuro.evaluation.accuracy import Accuracy, accuracy, overlap_accuracy, predict
from pyneuro.evaluation.dominance import StochasticDominance, almost_stochastic_dominance
from pyneuro.evaluation.hans import HANS_CELLS, MERGES, Hans, hans, merge
from pyneuro.evaluation.intervened import intervened
from pyneuro.evaluation.metrics import METRICS, Metric
from pyneuro.evaluation.seeds import HansOverSeeds, OverSeeds, hans_over_seeds, over_seeds
from pyneuro.evaluation.significance import PairedBootstrap, paired_bootstrap

__all__ = [
    "HANS_CELLS",
    "MERGES",
    "METRICS",
    "AblationCurve",
    "Accuracy",
    "Hans",
    "HansOverSeeds",
    "Metric",
    "OverSeeds",
    "PairedBootstrap",
    "StochasticDominance",
    "ablation_curve",
    "accuracy",
    "almost_stochastic_dominance",
    "hans",
    "hans_over_seeds",
    "intervened",
    "merge",
    "over_seeds",
    "overlap_accuracy",
    "paired_bootstrap",
    "predict",
]
