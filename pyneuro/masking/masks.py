"""Masks apart from a model: packed bits with the digest of the weights they belong to, in memory and on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn

from pyneuro.errors import InputError
from pyneuro.masking.apply import masked_layers, model_of, places, put, remove, require_unmasked
from pyneuro.masking.linear import FixedMaskLinear, MaskedLinear
from pyneuro.models.adapter import find_adapter
from pyneuro.models.classifier import Classifier
from pyneuro.ops.reference import pack_bits, unpack_bits
from pyneuro.results import Result
from pyneuro.results.files import writable_folder, write_atomic
from pyneuro.sites import MODULES, NeuronSet

FORMAT = "pyneuro masks 1"


@dataclass(frozen=True)
class LayerMask:
    """The mask of one linear layer.

    Parameters
    ----------
    bits : uint8 [out, ceil(in / 8)]
        Entry k of a row is bit k % 8 of byte k // 8: 1 counts.
    inner : int
        in.
    layer, module
        As for ``Place``.
    """

    bits: Tensor
    inner: int
    layer: int | None
    module: str

    @property
    def mask(self) -> Tensor:
        """bool [out, in]: True counts."""
        return unpack_bits(self.bits, self.inner)

    @property
    def masked(self) -> int:
        """Weights masked."""
        return self.weights - int(self.mask.sum())

    @property
    def weights(self) -> int:
        return self.bits.shape[0] * self.inner


@dataclass(frozen=True)
class Masks(Mapping[str, LayerMask]):
    """Masks of some linear layers of one model, by the names of its modules. Made by ``Masks.of``, ``of_neurons``,
    ``load`` and others here.

    Parameters
    ----------
    layers : mapping of str to LayerMask
    base : str
        ``base_digest`` of the model whose weights they mask.
    mask_bias : bool
        As for ``MaskedLinear``.
    settings : mapping
        What is known of how they were made: rule, tau, training.
    """

    layers: Mapping[str, LayerMask]
    base: str
    mask_bias: bool
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module | Classifier, **settings: Any) -> Masks:
        """Of a model with masked layers. Raises InputError where it has none, or where they differ in mask_bias."""
        found = masked_layers(model)
        for name, layer in found.items():
            if isinstance(layer, MaskedLinear) and bool(torch.isnan(layer.scores).any()):
                raise InputError(f"scores of {name} are NaN; a mask cannot be decided from them")
        where = {place.name: place for place in places(model)}
        first = next(iter(found.values()))
        if any(layer.mask_bias != first.mask_bias for layer in found.values()):
            raise InputError("some masked layers have mask_bias and some have not; apply one mask at a time")
        layers = {
            name: LayerMask(pack_bits(layer.mask).cpu(), layer.in_features, where[name].layer, where[name].module)
            for name, layer in found.items()
        }
        if isinstance(first, MaskedLinear):
            settings = {"rule": first.rule, "tau": first.tau, **settings}
        return cls(layers, base_digest(model), first.mask_bias, settings)

    @classmethod
    def of_neurons(cls, model: nn.Module | Classifier, neurons: NeuronSet) -> Masks:
        """Masks that silence neurons: their rows of W, and their biases, are 0 at every token."""
        model = model_of(model)
        shape = find_adapter(model).shape(model)
        if neurons.shape != shape:
            raise InputError(f"the neurons are of a model of {neurons.shape} and this one is {shape}")
        members: dict[tuple[int | None, str], Any] = dict(neurons.groups())
        layers = {}
        for place in places(model, "encoder"):
            index = members.get((place.layer, place.module))
            if index is not None:
                weight = model.get_submodule(place.name).weight
                assert isinstance(weight, Tensor)
                keep = torch.ones(weight.shape, dtype=torch.bool)
                keep[torch.from_numpy(index)] = False
                layers[place.name] = LayerMask(pack_bits(keep), weight.shape[1], place.layer, place.module)
        return cls(layers, base_digest(model), True, {"neurons": len(neurons)})

    @classmethod
    def of_search(
        cls,
        clf: Classifier,
        result: Result,
        k: int,
        *,
        treatment: str | None = None,
        by: str = "nie",
        absolute: bool = False,
        ascending: bool = False,
    ) -> Masks:
        """Masks that silence the k strongest neurons of a search; arguments as for ``Result.top``."""
        table = result.top(k, treatment=treatment, by=by, absolute=absolute, ascending=ascending)
        return cls.of_neurons(clf, NeuronSet.parse(table["site"].drop_duplicates().tolist(), clf.shape))

    @classmethod
    def random(cls, like: Masks, seed: int = 0) -> Masks:
        """Masks of random weights, as many in every layer as these have: the control for what a mask does."""
        generator = torch.Generator().manual_seed(seed)
        layers = {}
        for name, layer in like.items():
            keep = torch.ones(layer.weights, dtype=torch.bool)
            keep[torch.randperm(layer.weights, generator=generator)[: layer.masked]] = False
            bits = pack_bits(keep.view(layer.bits.shape[0], layer.inner))
            layers[name] = LayerMask(bits, layer.inner, layer.layer, layer.module)
        return cls(layers, like.base, like.mask_bias, {"random": seed})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Masks:
        """Read a file that ``save`` wrote. Raises InputError for anything else."""
        try:
            with safetensors.safe_open(os.fspath(path), framework="pt") as file:
                head = (file.metadata() or {}).get("pyneuro")
                bits = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"cannot read masks from {os.fspath(path)}: {error}") from error
        try:
            facts = json.loads(head or "{}")
            if facts.get("format") != FORMAT:
                raise InputError(f"{os.fspath(path)} holds no masks of pyneuro; write them with Masks.save")
            layers = {
                name: LayerMask(_checked_bits(bits[name], about["in"]), about["in"], about["layer"], about["module"])
                for name, about in facts["layers"].items()
            }
            return cls(layers, str(facts["base"]), bool(facts["mask_bias"]), dict(facts["settings"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{os.fspath(path)} is damaged: {type(error).__name__} {error}; save it anew") from error

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: 1 bit a weight, and what these masks belong to. Replaces what is there."""
        facts = {
            "format": FORMAT,
            "base": self.base,
            "mask_bias": self.mask_bias,
            "settings": dict(self.settings),
            "layers": {n: {"in": m.inner, "layer": m.layer, "module": m.module} for n, m in self.items()},
        }
        head = json.dumps(facts, default=_plain)
        content = safetensors.torch.save({n: m.bits.contiguous() for n, m in self.items()}, {"pyneuro": head})
        target = Path(path)
        write_atomic(writable_folder(target.parent) / target.name, content)
        return target

    def put_on(self, model: nn.Module | Classifier) -> None:
        """Mask a base model in place, as ``FixedMaskLinear``: its weights stay whole beneath.

        Raises InputError for another model than the one that these masks belong to, and for one that is masked already.
        """
        model = self._checked(model)
        require_unmasked(model)
        for name, layer in self.items():
            put(model, name, FixedMaskLinear(model.get_submodule(name), layer.bits, self.mask_bias))

    def merge_into(self, model: nn.Module | Classifier) -> None:
        """Set the masked weights of a base model to 0, in place. Raises InputError as ``put_on``."""
        self.put_on(model)
        remove(model)

    def export(self, model: nn.Module | Classifier, folder: str | os.PathLike[str], tokenizer: Any = None) -> Path:
        """Write the masked model as an ordinary HuggingFace folder, weights merged; the model is left as it was.

        The model may be masked: these masks count. The tokenizer of a Classifier is written too. Raises InputError for
        another model than the one that these masks belong to, and where `folder` is a file.
        """
        if isinstance(model, Classifier):
            tokenizer = tokenizer or model.tokenizer
        base: Any = self._checked(model)
        target = Path(folder)
        if target.is_file():
            raise InputError(f"{target} is a file; pass a folder to write the model to")
        masked = [n for n, m in base.named_modules() if isinstance(m, (MaskedLinear, FixedMaskLinear))]
        own = {f"{name}.{what}" for name in masked for what in ("scores", "bits")}
        state = {name: value.detach().clone() for name, value in base.state_dict().items() if name not in own}
        for name, layer in self.items():
            keep = layer.mask.to(state[f"{name}.weight"].device)
            state[f"{name}.weight"] *= keep
            if self.mask_bias and f"{name}.bias" in state:
                state[f"{name}.bias"] *= keep.any(-1)
        base.save_pretrained(target, state_dict=state)
        if tokenizer is not None:
            tokenizer.save_pretrained(target)
        return target

    @property
    def sparsity(self) -> float:
        """Share of the weights of these layers that are masked."""
        return sum(m.masked for m in self.values()) / sum(m.weights for m in self.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the bits."""
        return sum(m.bits.numel() for m in self.values())

    def rates(self) -> pd.DataFrame:
        """Share masked by layer (from 0; rows) and module (columns); pooler and classifier are the row "head"."""
        rows = [
            {"layer": "head" if m.layer is None else m.layer, "module": m.module, "rate": m.masked / m.weights}
            for m in self.values()
        ]
        table = pd.DataFrame(rows).pivot(index="layer", columns="module", values="rate")
        order = sorted(table.index, key=lambda layer: (isinstance(layer, str), layer))
        return table.loc[order, [m for m in (*MODULES, "P", "T") if m in table.columns]]

    def overlap(self, other: Masks) -> pd.DataFrame:
        """How much two masks agree on what they mask, a row a layer: ``name, layer, module, masked, masked_other,
        both, jaccard, expected_jaccard`` (of two random masks with as many weights).

        Raises InputError where they mask different layers.
        """
        if self.keys() != other.keys():
            odd = sorted(set(self) ^ set(other))
            raise InputError(
                f"the masks are of different layers: {', '.join(odd[:3])}{', ...' if len(odd) > 3 else ''}"
            )
        rows = []
        for name, layer in self.items():
            a, b = ~layer.mask, ~other[name].mask
            both, either = int((a & b).sum()), int((a | b).sum())
            masked, masked_other = layer.masked, other[name].masked
            expected = masked * masked_other / layer.weights
            rows.append(
                {
                    "name": name,
                    "layer": layer.layer,
                    "module": layer.module,
                    "masked": masked,
                    "masked_other": masked_other,
                    "both": both,
                    "jaccard": both / either if either else 1.0,
                    "expected_jaccard": expected / max(masked + masked_other - expected, 1.0),
                }
            )
        return pd.DataFrame(rows)

    def _checked(self, model: nn.Module | Classifier) -> nn.Module:
        found = model_of(model)
        if (digest := base_digest(found)) != self.base:
            raise InputError(
                f"these masks belong to a model with digest {self.base[:12]}, and this one has {digest[:12]}; load the "
                "model that they were trained on"
            )
        for name, layer in self.items():
            module: Any = dict(found.named_modules()).get(name)
            if getattr(getattr(module, "weight", None), "shape", None) != (layer.bits.shape[0], layer.inner):
                raise InputError(
                    f"the masks are damaged: the model has no {name} of {layer.bits.shape[0]} x {layer.inner}"
                )
        return found

    def __getitem__(self, name: str) -> LayerMask:
        return self.layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def _checked_bits(bits: Tensor, inner: int) -> Tensor:
    if bits.dtype != torch.uint8 or bits.dim() != 2 or bits.shape[1] != -(-inner // 8):
        raise ValueError(f"bits are {bits.dtype} {list(bits.shape)} for {inner} weights a row")
    return bits


def _plain(value: Any) -> Any:
    """What JSON has no word for, such as numpy's numbers."""
    return value.item() if hasattr(value, "item") else str(value)


def base_digest(model: nn.Module | Classifier) -> str:
    """Hex sha256 of a model's parameters without masks and scores: the same before, while and after it is masked."""
    h = hashlib.sha256()
    for name, parameter in sorted(model_of(model).named_parameters()):
        if not name.endswith(".scores"):
            h.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            h.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return h.hexdigest()


def agreement(masks: Sequence[Masks]) -> pd.DataFrame:
    """Mean ``overlap`` of every two of some masks, over their layers weighted by size: a square table."""
    n = len(masks)
    table = pd.DataFrame(1.0, index=range(n), columns=range(n))
    for i in range(n):
        for j in range(i):
            both = masks[i].overlap(masks[j])
            union = (both["masked"] + both["masked_other"] - both["both"]).sum()
            table.iloc[i, j] = table.iloc[j, i] = both["both"].sum() / union if union else 1.0
    return table
