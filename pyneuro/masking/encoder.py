"""A fresh classifier on a pretrained encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from pyneuro.errors import InputError
from pyneuro.models import Classifier, wrap
from pyneuro.models.adapter import find_adapter

NLI = ("entailment", "neutral", "contradiction")


def classifier_on(encoder: str | os.PathLike[str], labels: Sequence[str] = NLI, *, seed: int = 0) -> Classifier:
    """A pretrained encoder with a classifier head that knows nothing yet, float32.

    Parameters
    ----------
    encoder : path or hub id
        Of an encoder that an adapter knows, with its tokenizer.
    labels : sequence of str
        Of the output columns.
    seed : int
        Of the head's weights (and the pooler's, where the encoder comes without).

    Raises InputError where it cannot be loaded, or is of an unknown architecture.
    """
    import transformers

    source = os.fspath(encoder)
    names: dict[int, str] = dict(enumerate(labels))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(names),
            id2label=names,
            label2id={v: k for k, v in names.items()},
            dtype=torch.float32,
        )
        head: Any = find_adapter(model).head_linears(model)[1]  # fresh, whatever the checkpoint holds
        torch.nn.init.normal_(head.weight, std=model.config.initializer_range)
        torch.nn.init.zeros_(head.bias)
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load an encoder from {source}: {error}") from error
    finally:
        torch.random.set_rng_state(state)
    return wrap(model.eval(), tokenizer, name=os.path.basename(source.rstrip("/")) or source)
