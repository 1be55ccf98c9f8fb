// The table of one instruction set's kernels, for dispatch.cpp.
#include "cpu/families.h"

#define PN_STRING_(x) #x
#define PN_STRING(x) PN_STRING_(x)

namespace pyneuro::PN_ISA {

#if defined(__AVX512BF16__)
constexpr bool kBf16 = true;
#else
constexpr bool kBf16 = false;
#endif

extern const Kernels kernels;
const Kernels kernels = {
    PN_STRING(PN_ISA), kPanel, kTileRows, kBf16, delta_linear, delta_layernorm, delta_linear_norm, delta_feed_forward, delta_attention, delta_attention_row0, delta_attention_row0_dense, delta_attention_low_rank,
    masked_linear, masked_linear_backward, masked_linear_multi,
};

}  // namespace pyneuro::PN_ISA
