"""Training losses that keep a classifier from leaning on what a biased model can do."""

from pyneuro.reweighting.losses import (
    LOSSES,
    Loss,
    confidence_regularisation,
    plain,
    product_of_experts,
    reweight,
)

__all__ = ["LOSSES", "Loss", "confidence_regularisation", "plain", "product_of_experts", "reweight"]
