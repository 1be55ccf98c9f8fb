"""Small random classifiers of any odd size, tokenizer included, made without network or files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from pyneuro.models import Classifier, wrap


@dataclass(frozen=True)
class SamplePair:
    """The attributes of ``pyneuro.data.Pair`` that models and engines read."""

    id: str
    premise: str
    hypothesis: str
    label: str | None = None


PAIRS: tuple[SamplePair, ...] = tuple(
    SamplePair(f"p{number}", *texts)
    for number, texts in enumerate(
        [
            ("The author near the senators called the lawyer.", "The senators called the lawyer.", "non-entailment"),
            ("Nobody in the office answered the phone after six.", "The phone was answered at seven.", "contradiction"),
            ("Two dogs are running through the wet grass.", "Animals run.", "entailment"),
            ("He did not say why.", "No", "neutral"),
            ("The doctor and the artist saw the actor, who had slept.", "The artist saw the actor.", "entailment"),
            (
                "Prices rose sharply in 1998, and nobody knew how to stop them before the winter came.",
                "Prices fell.",
                "contradiction",
            ),
            ("Yes.", "She paid the tourist because the judge was late.", "neutral"),
            ("If the bankers slept, the manager ran.", "The bankers slept.", "non-entailment"),
        ]
    )
)

_WORDS = sorted(
    {
        w
        for pair in PAIRS
        for text in (pair.premise, pair.hypothesis)
        for w in text.lower().replace(".", "").replace(",", "").split()
    }
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'"
_LABELS = {2: ("entailment", "non-entailment"), 3: ("entailment", "neutral", "contradiction")}


def tiny_tokenizer(arch: str = "bert") -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece over the words of ``PAIRS`` and single letters; specials and templates as the architecture
    has them."""
    if arch == "bert":
        cls, sep, pad, unk = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
        specials, pair = [pad, unk, cls, sep], f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1"
    else:
        cls, sep, pad, unk = "<s>", "</s>", "<pad>", "<unk>"
        specials, pair = [cls, pad, sep, unk], f"{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0"
    pieces = [*specials, *_LETTERS, *(f"##{c}" for c in _LETTERS), *(w for w in _WORDS if len(w) > 1)]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}", pair=pair, special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if arch == "bert" else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=cls, sep_token=sep, pad_token=pad, unk_token=unk, model_input_names=names
    )


def tiny_model(
    arch: str = "bert",
    *,
    layers: int = 3,
    hidden: int = 24,
    heads: int = 3,
    intermediate: int = 40,
    labels: int = 3,
    seed: int = 0,
    scale: float = 1.0,
    attention_scale: float = 2.0,
    max_positions: int = 64,
    eps: float = 1e-12,
    attn: str = "sdpa",
) -> torch.nn.Module:
    """A random HuggingFace classifier (float32, eval mode) whose weights are large enough that attention is not uniform
    and effects are not tiny.

    `scale` multiplies every weight matrix and `attention_scale` queries and keys on top; biases and LayerNorms are
    random too.
    """
    names = _LABELS.get(labels, ("entailment", *(f"other-{i}" for i in range(1, labels))))
    pad = 0 if arch == "bert" else 1
    config_class, model_class = {
        "bert": (BertConfig, BertForSequenceClassification),
        "roberta": (RobertaConfig, RobertaForSequenceClassification),
        "xlm-roberta": (XLMRobertaConfig, XLMRobertaForSequenceClassification),
    }[arch]
    config = config_class(
        vocab_size=len(tiny_tokenizer(arch)),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        max_position_embeddings=max_positions if arch == "bert" else max_positions + pad + 1,
        type_vocab_size=2 if arch == "bert" else 1,
        layer_norm_eps=eps,
        pad_token_id=pad,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        attn_implementation=attn,
    )
    model = model_class(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "embeddings.weight" in name or "_embeddings" in name:
                p.copy_(noise)
            elif "LayerNorm.weight" in name:
                p.copy_(1 + 0.2 * noise)
            elif p.dim() == 1:
                p.copy_(0.2 * noise)
            else:
                gain = scale * (attention_scale if ".query." in name or ".key." in name else 1.0)
                p.copy_(gain * noise / p.shape[1] ** 0.5)
    return model


def make_tiny(
    arch: str = "bert", *, max_length: int | None = None, dtype: torch.dtype = torch.float32, **sizes: object
) -> Classifier:
    """A Classifier over ``tiny_model(arch, **sizes)`` and its tokenizer; ``dtype=torch.float64`` gives a
    double-precision reference."""
    model = tiny_model(arch, **sizes).to(dtype)  # type: ignore[arg-type]
    return wrap(model, tiny_tokenizer(arch), max_length=max_length, name=f"tiny-{arch}")


def fingerprint(model: torch.nn.Module) -> tuple[object, ...]:
    """Parameters, gradients, hooks and training flags: everything that analysis must leave as it was."""
    h = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        h.update(name.encode() + tensor.numpy().tobytes())
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    grads = [(p.requires_grad, p.grad) for p in model.parameters()]
    return h.hexdigest(), hooks, grads, [m.training for m in model.modules()]


def crossed(hypotheses: int) -> list[SamplePair]:
    """8 × `hypotheses` different texts: every premise of ``PAIRS`` with so many of their hypotheses."""
    return [
        SamplePair(f"{a}-{b}", PAIRS[a].premise, PAIRS[(a + b) % 8].hypothesis, PAIRS[a].label)
        for a in range(8)
        for b in range(hypotheses)
    ]
