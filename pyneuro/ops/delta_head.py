"""delta_head: pooler and classifier of a difference, in float64 from the pooler's product on."""

from __future__ import annotations

import torch
from torch import Tensor

from pyneuro.ops import cuda, reference
from pyneuro.ops.registry import define, expect


def _check(pooler: Tensor, pooled: Tensor, classifier: Tensor) -> tuple[int, int]:
    expect("delta_head", "pooler", pooler, None, pooled.shape[-1])
    expect("delta_head", "pooled", pooled, None)
    expect("delta_head", "classifier", classifier, None, len(pooled))
    for what, tensor in (("pooled", pooled), ("classifier", classifier)):
        if tensor.dtype != torch.float64:
            raise ValueError(f"delta_head: {what} must be float64, got {tensor.dtype}")
    return pooler.shape[0], classifier.shape[0]


def _reference(pooler: Tensor, pooled: Tensor, classifier: Tensor) -> Tensor:
    _check(pooler, pooled, classifier)
    return reference.delta_head(pooler, pooled, classifier)


def _cuda(pooler: Tensor, pooled: Tensor, classifier: Tensor) -> Tensor:
    candidates, classes = _check(pooler, pooled, classifier)
    if not cuda.cuda_built() or pooler.dtype != torch.float32:
        return reference.delta_head(pooler, pooled, classifier)
    pooler, pooled, classifier = pooler.contiguous(), pooled.contiguous(), classifier.contiguous()
    out = pooled.new_empty(candidates, classes)
    pointers = (x.data_ptr() for x in (pooler, pooled, classifier, out))
    cuda.launch("delta_head", pooler, *pointers, candidates, len(pooled), classes)
    return out


def _fake(pooler: Tensor, pooled: Tensor, classifier: Tensor) -> Tensor:
    return pooled.new_empty(_check(pooler, pooled, classifier))


define(
    "delta_head(Tensor pooler, Tensor pooled, Tensor classifier) -> Tensor",
    cpu=_reference,
    cuda=_cuda,
    elsewhere=_reference,
    fake=_fake,
)
