"""The classifiers the benchmarks run on."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertForSequenceClassification

import pyneuro as pn
from pyneuro.models.weights import Encoding

LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}


def classifier(name: str) -> pn.Classifier:
    """ "bundled", or "bert-base": BERT-base's shape with random weights and the bundled tokenizer."""
    bundled = pn.load(pn.bundled_model())
    if name == "bundled":
        return bundled
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30522, id2label=LABELS, label2id={v: k for k, v in LABELS.items()})
    return pn.wrap(BertForSequenceClassification(config).eval(), bundled.tokenizer, name="bert-base-random")


def lengthened(encoding: Encoding, tokens: int) -> Encoding:
    """The sample repeated or cut to this many tokens, [CLS] kept in front: for measurements that need a length."""
    times = -(-tokens // len(encoding))
    ids, types = (t.repeat(times)[:tokens] for t in (encoding.input_ids, encoding.token_type_ids))
    return Encoding(encoding.id, ids, types, encoding.label)
