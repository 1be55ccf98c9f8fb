"""Getting a ``Classifier``: from a folder, from the Hugging Face hub, or from a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyneuro.errors import InputError
from pyneuro.models.adapter import adapter_names, find_adapter, unsupported
from pyneuro.models.classifier import Classifier
from pyneuro.models.labels import resolve_labels
from pyneuro.models.verify import check_adapter, check_config, check_parameters


def bundled_model() -> Path:
    """Folder of the NLI classifier that comes with pyneuro; its README says what it can do and what it can't."""
    return Path(__file__).resolve().parent.parent / "assets" / "nli-minilm-l6"


def load(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    labels: Mapping[str, int] | None = None,
    max_length: int | None = None,
) -> Classifier:
    """Load an NLI classifier for analysis: float32, eval mode, checked against its adapter.

    Parameters
    ----------
    source : str or path
        Folder written by ``save_pretrained``, or a hub id such as ``"cross-encoder/nli-roberta-base"``.
    device : str or torch.device
    labels : mapping of str to int, optional
        Output column of every label, where the model's config does not say it or says it wrongly.
    max_length : int, optional
        Truncate pairs to this many tokens. Without it, a pair longer than the model takes is an error.

    Returns
    -------
    Classifier

    Raises
    ------
    InputError
        Not found or unreadable, an architecture without adapter, weights missing or not finite, labels unknown, or a
        forward that is not the adapter's.

    Examples
    --------
    >>> clf = load(bundled_model())
    >>> clf.label_index["entailment"]
    0
    """
    where = _locate(source)
    config = _read(where, "config")
    if getattr(config, "model_type", None) not in adapter_names():
        raise unsupported(getattr(config, "model_type", None))
    check_config(config)
    model = _read(where, "model")
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(device)!r} can't be used: {error}; pass device='cpu'") from error
    tokenizer = _read(where, "tokenizer")
    _check_vocabulary(where, tokenizer)
    return wrap(
        model.eval(),
        tokenizer,
        labels=labels,
        max_length=max_length,
        name=Path(where).resolve().name if Path(where).is_dir() else where,
    )


def wrap(
    model: nn.Module,
    tokenizer: Any,
    *,
    labels: Mapping[str, int] | None = None,
    max_length: int | None = None,
    name: str | None = None,
) -> Classifier:
    """Make a Classifier of a HuggingFace model in memory.

    The model is used as it is and never changed; dropout is off only while pyneuro runs it.

    Parameters
    ----------
    model : torch.nn.Module
        A supported ``...ForSequenceClassification`` with float32 or float64 parameters.
    tokenizer : Any
        Its tokenizer.
    labels, max_length
        As for ``load``.
    name : str, optional
        What reports call it; the config's ``_name_or_path`` or the class's name by default.

    Raises
    ------
    InputError
        As ``load``.
    """
    adapter = find_adapter(model)
    config: Any = model.config
    check_config(config)
    check_parameters(model)
    weights = adapter.weights(model)
    positions = adapter.max_positions(model)
    least = tokenizer.num_special_tokens_to_add(pair=True) + 2  # one token of either text
    if max_length is not None and not least <= max_length <= positions:
        raise InputError(
            f"max_length={max_length} is out of range; this model takes {least} to {positions} tokens a pair"
        )
    clf = Classifier(
        model=model,
        tokenizer=tokenizer,
        adapter=adapter,
        shape=adapter.shape(model),
        label_index=resolve_labels(config.id2label, weights.head.classifier_bias.shape[0], labels),
        name=name or getattr(config, "_name_or_path", "") or type(model).__name__,
        max_positions=positions,
        max_length=max_length,
    )
    check_adapter(clf)
    return clf


def _locate(source: str | Path) -> str:
    """The folder or hub id. What looks like a path must exist, so that a misspelt one isn't asked of the hub."""
    text, path = str(source), Path(source).expanduser()
    if text.strip() and path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"model folder {text!r} has no config.json; pass a folder written by save_pretrained")
        return str(path)
    if path.is_file():
        raise InputError(f"model {text!r} is a file; pass the folder that holds config.json and model.safetensors")
    if isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or not text.strip():
        raise InputError(
            f"model folder {text!r} does not exist; pass a folder with config.json and model.safetensors, or a hub id"
        )
    return text


def _read(where: str, part: str) -> Any:
    """Config, model or tokenizer through transformers, its errors turned into ours."""
    import transformers

    try:
        if part == "config":
            return transformers.AutoConfig.from_pretrained(where, trust_remote_code=False)
        if part == "tokenizer":
            return transformers.AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            where,
            trust_remote_code=False,
            output_loading_info=True,
            **{_dtype_argument(transformers.__version__): torch.float32},
        )
    except Exception as error:  # OSError, ValueError, KeyError, SafetensorError, ...: one thing to the caller
        summary = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"can't read the {part} of {where!r} ({type(error).__name__}: {summary[0]}); pass a folder that holds "
            "config.json, model.safetensors and the tokenizer's files, or a hub id that this machine can reach"
        ) from error
    _check_loaded(where, info)
    return model


def _check_loaded(where: str, info: Mapping[str, Any]) -> None:
    """Refuse weights that transformers had to invent, and encoder weights that it left aside."""
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise InputError(
            f"{where!r} has no weights for {', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}; it is not "
            "a fine-tuned classifier (or its architecture differs from its config): fine-tune it first"
        )
    aside = sorted(key for key in info.get("unexpected_keys", ()) if "encoder.layer." in key)
    if aside:
        raise InputError(
            f"{where!r} holds encoder weights that its architecture does not use ({', '.join(aside[:4])}); it was "
            "customised: merge adapters before saving"
        )


def _check_vocabulary(where: str, tokenizer: Any) -> None:
    """Refuse a tokenizer without words: transformers 5 makes one, silently, of a folder that lacks the vocabulary."""
    if set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
        raise InputError(
            f"the tokenizer of {where!r} knows no words, because its vocabulary is missing; put the tokenizer's files "
            "(tokenizer.json, or vocab.txt, or vocab.json and merges.txt) beside the model"
        )


def _dtype_argument(version: str) -> str:
    """`torch_dtype` became `dtype` in transformers 4.56."""
    major, minor = (int(number) for number in version.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
