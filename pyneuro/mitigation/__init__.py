"""From what is known of a bias to less biased predictions: counterfactual inference on saved probabilities, neurons
that are weakened, neurons that unlearn."""

from pyneuro.mitigation.counterfactual import FUSIONS, Counterfactual, counterfactual
from pyneuro.mitigation.grounded import SHARES, STRENGTHS, Weakening, WeakeningFit, fit_weakening, weakened
from pyneuro.mitigation.sharpness import Sharpness, fit_sharpness
from pyneuro.mitigation.unlearning import advantaged_samples, unlearning

__all__ = [
    "FUSIONS",
    "SHARES",
    "STRENGTHS",
    "Counterfactual",
    "Sharpness",
    "Weakening",
    "WeakeningFit",
    "advantaged_samples",
    "counterfactual",
    "fit_sharpness",
    "fit_weakening",
    "unlearning",
    "weakened",
]
