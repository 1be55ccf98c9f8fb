// The kernel families of one instruction set, a .cpp file each.
#pragma once
#include "cpu/simd.h"
#include "pyneuro/kernels.h"

namespace pyneuro::PN_ISA {

void delta_linear(const DeltaLinear&);
void delta_layernorm(const DeltaLayerNorm&);
void delta_linear_norm(const DeltaLinearNorm&);
void delta_feed_forward(const DeltaFeedForward&);
void delta_attention(const DeltaAttention&);
void delta_attention_row0(const DeltaAttentionRow0&);
void delta_attention_row0_dense(const DeltaAttentionRow0Dense&);
void delta_attention_low_rank(const DeltaAttentionLowRank&);
void masked_linear(const MaskedLinear&);
void masked_linear_backward(const MaskedLinearBackward&);
void masked_linear_multi(const MaskedLinearMulti&);

}  // namespace pyneuro::PN_ISA
