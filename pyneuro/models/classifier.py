"""A classifier ready for analysis: model, tokenizer, adapter and the meaning of its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.models.adapter import Adapter
from pyneuro.models.labels import canonical_label
from pyneuro.models.weights import Encoding, ModelWeights
from pyneuro.sites import ModelShape


@runtime_checkable
class PairLike(Protocol):
    """Anything with an id and two texts, such as ``pyneuro.data.Pair``. A ``label`` is carried along if there."""

    @property
    def id(self) -> str: ...
    @property
    def premise(self) -> str: ...
    @property
    def hypothesis(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Classifier:
    """A sequence classifier that has been checked against its adapter. Made by ``load`` and ``wrap``.

    No method changes the model: parameters, hooks, gradients and every submodule's training flag are as before, also
    after an error.

    Attributes
    ----------
    model : torch.nn.Module
        The HuggingFace model. ``load`` leaves it in eval mode; ``wrap`` leaves it as it was. Run it under
        ``inference()``.
    tokenizer : Any
        Its HuggingFace tokenizer.
    adapter : Adapter
    shape : ModelShape
    label_index : mapping of str to int
        Canonical label names ("entailment", "neutral", "contradiction", "non-entailment", or the model's own) to output
        columns.
    name : str
        What reports call it: the folder's name or hub id.
    max_positions : int
        The most tokens the model takes.
    max_length : int or None
        Longer pairs are truncated to this many tokens, longest text first; None refuses pairs longer than
        `max_positions`.
    """

    model: nn.Module
    tokenizer: Any
    adapter: Adapter
    shape: ModelShape
    label_index: Mapping[str, int]
    name: str
    max_positions: int
    max_length: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "label_index", MappingProxyType(dict(self.label_index)))

    def __reduce__(self) -> tuple[Any, ...]:
        """For ``copy.deepcopy`` and pickle, which know no read-only mapping."""
        given = {f.name: getattr(self, f.name) for f in fields(self)} | {"label_index": dict(self.label_index)}
        return type(self), tuple(given.values())

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def digest(self) -> str:
        """Hex sha256 of what the model computes: parameters (names, shapes, dtypes, bytes), masks, heads, epsilons."""
        eps = [layer.eps for layer in self.adapter.weights(self.model).layers]
        h = hashlib.sha256(f"{self.adapter.name} {self.shape} {eps}".encode())
        for name, p in self.model.named_parameters():
            h.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
            h.update(p.detach().cpu().contiguous().numpy().data)
        for name, module in self.model.named_modules():
            if hasattr(module, "effective"):
                h.update(f"{name} {module.mask_bias}".encode())
                h.update(module.bits.cpu().contiguous().numpy().data)
        return h.hexdigest()

    @contextmanager
    def inference(self) -> Iterator[nn.Module]:
        """The model with dropout and gradients off, for the length of a ``with`` block."""
        with evaluating(self.model), torch.no_grad():
            yield self.model

    def encode(self, pair: PairLike) -> Encoding:
        """Tokenise one pair, without padding.

        Token types are those the tokenizer gives by default (what ``model(**tokenizer(premise, hypothesis))`` would
        see); zeros where it gives none, as for RoBERTa.

        Raises
        ------
        InputError
            For an empty or non-text premise or hypothesis, half a surrogate pair in one, a pair longer than the model
            takes, or a token the model has no embedding for. The pair's id is named.
        """
        for field in ("premise", "hypothesis"):
            text = getattr(pair, field)
            if not isinstance(text, str) or not text.strip():
                raise InputError(
                    f"pair {pair.id!r}: its {field} is {text!r}; both texts must be non-empty strings: drop the "
                    "pair or correct its source"
                )
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"pair {pair.id!r}: its {field} holds half a surrogate pair, {text[error.start]!r} at character "
                    f"{error.start}; clean the text with .encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
                ) from error
        options = {} if self.max_length is None else {"truncation": True, "max_length": self.max_length}
        out = self.tokenizer(pair.premise, pair.hypothesis, verbose=False, **options)
        ids = torch.tensor(out["input_ids"], dtype=torch.int64)
        types = (
            torch.tensor(out["token_type_ids"], dtype=torch.int64) if "token_type_ids" in out else torch.zeros_like(ids)
        )
        if len(ids) > self.max_positions:
            raise InputError(
                f"pair {pair.id!r} has {len(ids)} tokens and {self.name} takes {self.max_positions}; drop the pair, or "
                f"load the model with max_length={self.max_positions} to truncate"
            )
        vocabulary = self.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if int(ids.max()) >= vocabulary:
            raise InputError(
                f"pair {pair.id!r}: the tokenizer gives token {int(ids.max())} and {self.name} embeds "
                f"0..{vocabulary - 1}; use the tokenizer that was saved with the model"
            )
        return Encoding(str(pair.id), ids, types, getattr(pair, "label", None))

    def weights(self, dtype: torch.dtype = torch.float32) -> ModelWeights:
        """Encoder and head weights in `dtype`: the model's own where it has that dtype (read only), else copies."""
        return self.adapter.weights(self.model).to(dtype)

    def embed(self, encoding: Encoding, dtype: torch.dtype = torch.float32) -> Tensor:
        """Input of encoder layer 0, [S, d] on the model's device, without gradient.

        Computed in the model's dtype and converted: only a float64 model gives a true float64 embedding.
        """
        with self.inference():
            return self.adapter.embed(self.model, encoding).to(dtype)

    def logits(self, encodings: Sequence[Encoding]) -> Tensor:
        """Logits [n, C] through the HuggingFace forward, one padded batch, in the model's dtype. For checks and small
        numbers of samples."""
        with self.inference():
            out: Tensor = self.model(**self.batch(encodings)).logits
        return out

    def batch(self, encodings: Sequence[Encoding]) -> dict[str, Tensor]:
        """Keyword arguments of the HuggingFace forward for these samples, padded at the right: int64 [n, S] each, on
        the model's device."""
        if not encodings:
            raise InputError("no samples to put in a batch; pass at least one encoding")
        config: Any = self.model.config
        pad = config.pad_token_id or 0
        longest = max(len(e) for e in encodings)

        def padded(rows: Sequence[Tensor], value: int) -> Tensor:
            return torch.stack([nn.functional.pad(row, (0, longest - len(row)), value=value) for row in rows]).to(
                self.device
            )

        return {
            "input_ids": padded([e.input_ids for e in encodings], pad),
            "token_type_ids": padded([e.token_type_ids for e in encodings], 0),
            "attention_mask": padded([torch.ones_like(e.input_ids) for e in encodings], 0),
        }

    def target_index(self, label: str) -> int:
        """Output column of `label`. Raises InputError listing the labels of the model."""
        index = self.label_index.get(canonical_label(label))
        if index is None:
            raise InputError(f"{self.name} has no label {label!r}; it has {', '.join(map(repr, self.label_index))}")
        return index

    def __repr__(self) -> str:
        s = self.shape
        labels = ", ".join(f"{index} {name}" for name, index in self.label_index.items())
        sizes = f"{s.layers} layers x {s.hidden} x {s.heads} heads"
        return f"Classifier({self.name}: {self.adapter.name}, {sizes}, labels {labels})"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode for the length of a ``with`` block; every submodule's own training flag is put back after it."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
