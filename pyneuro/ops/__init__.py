"""The operations, ``torch.ops.pyneuro.*``: on differences, and masked linear layers; their definition in plain torch;
the packing of weights for the kernels."""

from pyneuro.ops import (  # noqa: F401 (importing an operation registers it)
    adjoint_entry,
    delta_attention,
    delta_attention_low_rank,
    delta_attention_row0,
    delta_entry,
    delta_feed_forward,
    delta_head,
    delta_layernorm,
    delta_linear,
    delta_units,
    gelu_series,
    masked_linear,
    reference,
)
from pyneuro.ops.cuda import architectures, cuda_built, cuda_module
from pyneuro.ops.native import built, instruction_sets, native
from pyneuro.ops.packing import pack_heads, pack_weight

OPERATIONS = (
    "delta_linear",
    "delta_layernorm",
    "delta_linear_norm",
    "delta_feed_forward",
    "delta_attention",
    "delta_attention_row0",
    "delta_attention_row0_dense",
    "delta_attention_low_rank",
    "delta_entry",
    "delta_entry_query",
)

__all__ = [
    "OPERATIONS",
    "architectures",
    "built",
    "cuda_built",
    "cuda_module",
    "instruction_sets",
    "native",
    "pack_heads",
    "pack_weight",
    "reference",
]
