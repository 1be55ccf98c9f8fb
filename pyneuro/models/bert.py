"""``BertForSequenceClassification``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.models.adapter import register_adapter
from pyneuro.models.weights import Encoding, HeadWeights, LayerWeights, ModelWeights
from pyneuro.sites import ModelShape


class BertAdapter:
    """Adapter for HuggingFace BERT; the base of those that name their layers alike."""

    name = "bert"
    class_name = "BertForSequenceClassification"
    prefix = "bert"  # attribute of the classifier that holds the encoder

    def matches(self, model: nn.Module) -> bool:
        # By name along the MRO, because importing transformers costs seconds. A subclass matches too: whether its
        # forward is still BERT's is for verify to say.
        return any(
            c.__name__ == self.class_name and c.__module__.startswith("transformers.") for c in type(model).__mro__
        )

    def shape(self, model: nn.Module) -> ModelShape:
        config: Any = model.config
        return ModelShape(
            len(self._layers(model)), config.hidden_size, config.num_attention_heads, config.intermediate_size
        )

    def max_positions(self, model: nn.Module) -> int:
        return int(model.config.max_position_embeddings)  # type: ignore[union-attr, arg-type]

    def weights(self, model: nn.Module) -> ModelWeights:
        layers = tuple(
            self._layer_weights(layer, f"encoder layer {number}") for number, layer in enumerate(self._layers(model))
        )
        return ModelWeights(layers, self.head(model), self.shape(model))

    def head(self, model: nn.Module) -> HeadWeights:
        pooler, classifier = self.head_linears(model)
        return HeadWeights(*linear(pooler, "the pooler"), *linear(classifier, "the classifier"))

    def head_linears(self, model: nn.Module) -> tuple[nn.Module, nn.Module]:
        m: Any = model
        return m.bert.pooler.dense, m.classifier

    def embed(self, model: nn.Module, encoding: Encoding) -> Tensor:
        embeddings: Any = getattr(model, self.prefix).embeddings
        device = embeddings.word_embeddings.weight.device
        ids, types = encoding.input_ids[None].to(device), encoding.token_type_ids[None].to(device)
        out: Tensor = embeddings(input_ids=ids, token_type_ids=types)
        return out[0]

    def module(self, model: nn.Module, layer: int, module: str, convention: str) -> nn.Module:
        block: Any = self.encoder_layer(model, layer)
        attention, dense = block.attention.self, convention == "linear"
        found: nn.Module = {
            "Q": attention.query,
            "K": attention.key,
            "V": attention.value,
            "AO": block.attention.output.dense if dense else block.attention.output,
            "I": block.intermediate.dense if dense else block.intermediate,
            "O": block.output.dense if dense else block.output,
        }[module]
        return found

    def encoder_layer(self, model: nn.Module, layer: int) -> nn.Module:
        found: nn.Module = self._layers(model)[layer]
        return found

    def _layers(self, model: nn.Module) -> Any:
        return getattr(model, self.prefix).encoder.layer

    @staticmethod
    def _layer_weights(layer: Any, where: str) -> LayerWeights:
        attention, ln1, ln2 = layer.attention, layer.attention.output.LayerNorm, layer.output.LayerNorm
        if ln1.eps != ln2.eps:
            raise InputError(
                f"{where}: its two LayerNorms have eps {ln1.eps} and {ln2.eps}; pyneuro needs one value per layer"
            )
        return LayerWeights(
            *linear(attention.self.query, f"the query of {where}"),
            *linear(attention.self.key, f"the key of {where}"),
            *linear(attention.self.value, f"the value of {where}"),
            *linear(attention.output.dense, f"the attention output of {where}"),
            *linear(ln1, f"the attention LayerNorm of {where}"),
            *linear(layer.intermediate.dense, f"the intermediate dense of {where}"),
            *linear(layer.output.dense, f"the output dense of {where}"),
            *linear(ln2, f"the output LayerNorm of {where}"),
            eps=float(ln1.eps),
        )


def linear(module: Any, where: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a Linear or LayerNorm, detached; of a layer that computes with others than it holds, as a
    masked one does, those it says it computes with."""
    if hasattr(module, "effective"):
        weight, bias = module.effective()
    else:
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
        lacks = "weight" if not isinstance(weight, Tensor) else "bias"
        raise InputError(
            f"{where} is a {type(module).__name__} without {lacks}; pyneuro needs plain layers with "
            "biases: merge adapters, dequantise, or give the layer a bias of zeros"
        )
    return weight.detach(), bias.detach()


register_adapter(BertAdapter())
