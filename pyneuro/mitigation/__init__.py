"""From what is known of a bias to less biased predictions: counterfactual inference on saved probabilities."""

from pyneuro.mitigation.counterfactual import FUSIONS, Counterfactual, counterfactual
from pyneuro.mitigation.sharpness import Sharpness, fit_sharpness

__all__ = ["FUSIONS", "Counterfactual", "Sharpness", "counterfactual", "fit_sharpness"]
