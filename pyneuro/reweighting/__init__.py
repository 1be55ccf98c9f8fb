"""Training losses that keep a classifier from leaning on what a biased model can do."""

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
from pyneuro.reweighting.weights import sample_weights

__all__ = [
    "LOSSES",
    "Loss",
    "confidence_regularisation",
    "debiased_focal",
    "plain",
    "product_of_experts",
    "reweight",
    "sample_weights",
    "weighted",
]
