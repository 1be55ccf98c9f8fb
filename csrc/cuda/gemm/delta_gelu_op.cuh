// The GELU difference as an operator of CUTLASS epilogues.
#pragma once
#include <cutlass/cutlass.h>

#include "pyneuro/delta.h"

namespace pyneuro::cuda {

// x holds sums in their candidates' units; base and c1..c4 belong to the token. Sums beyond the series' radius are rare and their form long: a
// branch that is not taken costs one comparison a value, both sides of a selection would cost more than the product.
template <class Values>
struct DeltaGeluOp {
  CUTLASS_DEVICE Values operator()(const Values& x, const Values& unit, const Values& base, const Values& c1, const Values& c2, const Values& c3, const Values& c4) const {
    Values out;
    float largest = 0.0f;
    CUTLASS_PRAGMA_UNROLL
    for (int i = 0; i < Values::kElements; ++i) {
      const float d = x[i] * unit[i];
      out[i] = x[i] * (c1[i] + d * (c2[i] + d * (c3[i] + d * c4[i])));
      largest = fmaxf(largest, fabsf(d));
    }
    if (largest > kGeluSeriesRadius) {
      CUTLASS_PRAGMA_UNROLL
      for (int i = 0; i < Values::kElements; ++i) {
        const float d = x[i] * unit[i];
        if (fabsf(d) > kGeluSeriesRadius) out[i] = beyond(base[i], d, unit[i]);
      }
    }
    return out;
  }

  static __device__ __noinline__ float beyond(float base, float d, float unit) { return delta_gelu_plain(base, d) / unit; }
};

}  // namespace pyneuro::cuda
