"""``RobertaForSequenceClassification`` and XLM-R's: BERT's layers, their own head, positions after the padding id."""

from __future__ import annotations

from typing import Any

from torch import nn

from pyneuro.models.adapter import register_adapter
from pyneuro.models.bert import BertAdapter


class RobertaAdapter(BertAdapter):
    """Adapter for HuggingFace RoBERTa (``model_type`` "roberta") and for those that copy its modules."""

    prefix = "roberta"

    def __init__(self, name: str, class_name: str) -> None:
        self.name, self.class_name = name, class_name

    def max_positions(self, model: nn.Module) -> int:
        # Token t of a sample has position padding_idx + 1 + t: 514 embeddings hold 512 tokens.
        embeddings: Any = getattr(model, self.prefix).embeddings
        return int(embeddings.position_embeddings.num_embeddings - embeddings.padding_idx - 1)

    def head_linears(self, model: nn.Module) -> tuple[nn.Module, nn.Module]:
        classifier: Any = model.classifier
        return classifier.dense, classifier.out_proj


register_adapter(RobertaAdapter("roberta", "RobertaForSequenceClassification"))
register_adapter(RobertaAdapter("xlm-roberta", "XLMRobertaForSequenceClassification"))
