"""How well a classifier does where a shortcut helps, and where it hurts."""

from pyneuro.evaluation.accuracy import Accuracy, accuracy, overlap_accuracy, predict
from pyneuro.evaluation.hans import HANS_CELLS, MERGES, Hans, hans, merge
from pyneuro.evaluation.significance import PairedBootstrap, paired_bootstrap

__all__ = [
    "HANS_CELLS",
    "MERGES",
    "Accuracy",
    "Hans",
    "PairedBootstrap",
    "accuracy",
    "hans",
    "merge",
    "overlap_accuracy",
    "paired_bootstrap",
    "predict",
]
