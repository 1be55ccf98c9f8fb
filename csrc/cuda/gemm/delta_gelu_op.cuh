// The GELU difference as an operator of CUTLASS epilogues, and what the products of all architectures share.
#pragma once
#include <cutlass/cutlass.h>
#include <cutlass/layout/matrix.h>
#include <cutlass/numeric_types.h>

#include <cute/numeric/integral_constant.hpp>

#include "pyneuro/cuda.h"
#include "pyneuro/delta.h"

namespace pyneuro::cuda {

using Half = cutlass::half_t;
using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
constexpr int kAligned = 8;

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

// Arguments of the tree DeltaGeluOp(sums, OfCandidate, five of OfToken). A token is a batch of the product: its base value and Taylor coefficients
// are row vectors that all its candidates share, a candidate's unit a column vector that all tokens share.
template <class Tree, class OfToken>
typename Tree::Arguments delta_gelu_arguments(const DeltaGeluLinear& args) {
  const int64_t f = args.width;
  const auto row = [](const float* at, int64_t token_stride) { return typename OfToken::Arguments{at, 0.0f, {cute::_0{}, cute::_1{}, token_stride}}; };
  return {{},
          {args.unit, 1.0f, {}},
          row(args.pre_gelu, f),
          row(args.series, 4 * f),
          row(args.series + f, 4 * f),
          row(args.series + 2 * f, 4 * f),
          row(args.series + 3 * f, 4 * f),
          {}};
}

}  // namespace pyneuro::cuda
