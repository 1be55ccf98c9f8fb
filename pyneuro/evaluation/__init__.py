"""How well a classifier does where a shortcut helps, and where it hurts."""

from pyneuro.evaluation.accuracy import Accuracy, accuracy, overlap_accuracy, predict
from pyneuro.evaluation.dominance import StochasticDominance, almost_stochastic_dominance
from pyneuro.evaluation.hans import HANS_CELLS, MERGES, Hans, hans, merge
from pyneuro.evaluation.seeds import HansOverSeeds, OverSeeds, hans_over_seeds, over_seeds
from pyneuro.evaluation.significance import PairedBootstrap, paired_bootstrap

__all__ = [
    "HANS_CELLS",
    "MERGES",
    "Accuracy",
    "Hans",
    "HansOverSeeds",
    "OverSeeds",
    "PairedBootstrap",
    "StochasticDominance",
    "accuracy",
    "almost_stochastic_dominance",
    "hans",
    "hans_over_seeds",
    "merge",
    "over_seeds",
    "overlap_accuracy",
    "paired_bootstrap",
    "predict",
]
