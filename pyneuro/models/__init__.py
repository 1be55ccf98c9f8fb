"""What a model is: HuggingFace classifiers turned into weights, sites and labels."""

from pyneuro.models import bert as _bert  # noqa: F401  (registers its adapter)
from pyneuro.models import roberta as _roberta  # noqa: F401
from pyneuro.models.adapter import Adapter, adapter_names, find_adapter, register_adapter
from pyneuro.models.classifier import Classifier, PairLike
from pyneuro.models.load import bundled_model, load, wrap
from pyneuro.models.weights import Encoding, HeadWeights, LayerWeights, ModelWeights

__all__ = [
    "Adapter",
    "Classifier",
    "Encoding",
    "HeadWeights",
    "LayerWeights",
    "ModelWeights",
    "PairLike",
    "adapter_names",
    "bundled_model",
    "find_adapter",
    "load",
    "register_adapter",
    "wrap",
]
