"""Binary masks over frozen weights: adapting an encoder, or removing a shortcut, without changing a weight.

>>> layers = pn.masking.apply(clf, layers="top:4", sparsity=0.05)
>>> training = pn.masking.train(clf, pairs, validation)
>>> training.masks.save("masks.safetensors")
"""

from pyneuro.masking.apply import apply, masked_layers, places, remove
from pyneuro.masking.encoder import classifier_on
from pyneuro.masking.linear import FixedMaskLinear, MaskedLinear
from pyneuro.masking.masks import LayerMask, Masks, agreement, base_digest
from pyneuro.masking.report import compare_rates, layer_effects, published_rates, save_rates_figure
from pyneuro.masking.schedule import CubicSchedule, SparsityControl
from pyneuro.masking.train import Training, fine_tune, train
from pyneuro.masking.trainer import accuracy

__all__ = [
    "CubicSchedule",
    "FixedMaskLinear",
    "LayerMask",
    "MaskedLinear",
    "Masks",
    "SparsityControl",
    "Training",
    "accuracy",
    "agreement",
    "apply",
    "base_digest",
    "classifier_on",
    "compare_rates",
    "fine_tune",
    "layer_effects",
    "masked_layers",
    "places",
    "published_rates",
    "remove",
    "save_rates_figure",
    "train",
]
