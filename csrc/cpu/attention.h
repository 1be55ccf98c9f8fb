// Pieces shared by the attention kernels: panels made on the fly from activations, and the softmax difference of one row.
#pragma once
#include <cmath>

#include "cpu/gemm.h"
#include "pyneuro/delta.h"

namespace pyneuro::PN_ISA {

inline int64_t padded(int64_t n) { return ceil_div(n, kPanel) * kPanel; }

// src [rows, cols] as the right operand of x srcᵀ: panel r holds rows r kPanel.. as panels[j * kPanel + row], zero padded; panels lie `stride`
// floats apart.
inline void pack_transposed(const float* src, int64_t ld, int64_t rows, int64_t cols, float* panels, int64_t stride) {
  for (int64_t r0 = 0; r0 < padded(rows); r0 += kLanes) {
    float* out = panels + r0 / kPanel * stride + r0 % kPanel;
    for (int64_t j = 0; j < cols; j += kLanes) {
      Vec block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = r0 + i < rows ? load_part(src + (r0 + i) * ld + j, cols - j) : Vec{};
      transpose(block);
      const int64_t valid = min(kLanes, cols - j);
      for (int64_t i = 0; i < valid; ++i) store(out + (j + i) * kPanel, block[i]);
    }
  }
}

// x [rows, k] times panels `stride` floats apart, to out [rows, cols].
inline void multiply_panels(const float* x, int64_t ldx, int64_t rows, const float* panels, int64_t stride, int64_t k, int64_t cols, float* out, int64_t ldo) {
  for (int64_t column = 0; column < cols; column += kPanel, panels += stride) {
    const int64_t width = min(kPanel, cols - column);
    const StoreTo store_tile{out, ldo};
    if (width > kLanes)
      multiply_panel(x, ldx, rows, panels, k, [&](int64_t row, const auto& tile) { store_tile(row, column, width, tile); });
    else
      for_tiles(rows, [&]<int M>(int64_t row) { store_tile(row, column, width, multiply_narrow_tile<M>(x + row * ldx, ldx, panels, k)); });
  }
}

// One row of scores' changes ds [n], times scale, to changes of its probabilities dp [n]. Not in place.
inline void delta_softmax_row(const float* p, const float* ds, float scale, int64_t n, float* dp) {
  float mean_x = 0.0f;
#pragma omp simd reduction(+ : mean_x)
  for (int64_t j = 0; j < n; ++j) {
    const float x = expm1_fast(ds[j] * scale);
    dp[j] = x;
    mean_x += p[j] * x;
  }
  if (mean_x >= kLeastMean && mean_x <= kMostMean) {
    const float inverse = 1.0f / (1.0f + mean_x);
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) dp[j] = delta_softmax(p[j], dp[j], mean_x, inverse);
    return;
  }
  // Shift by the score of the key that ends up likeliest: of keys that matter none may leave the range of exp.
  float likeliest = -INFINITY, shift = 0.0f;
  for (int64_t j = 0; j < n; ++j) {
    const float log_after = p[j] > 0.0f ? std::log(p[j]) + ds[j] * scale : -INFINITY;
    if (!(log_after <= likeliest)) {  // a NaN goes through
      likeliest = log_after;
      shift = ds[j] * scale;
    }
  }
  float z = 0.0f;
#pragma omp simd reduction(+ : z)
  for (int64_t j = 0; j < n; ++j) {
    dp[j] = exp_fast(ds[j] * scale - shift);
    z += p[j] * dp[j];
  }
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) dp[j] = delta_softmax_far(p[j], dp[j], z);
}

inline float dot(const float* a, const float* b, int64_t n) {
  float s = 0.0f;
#pragma omp simd reduction(+ : s)
  for (int64_t j = 0; j < n; ++j) s += a[j] * b[j];
  return s;
}

// out += x * scalar
inline void axpy(float scalar, const float* x, int64_t n, float* out) {
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) out[j] += scalar * x[j];
}

// Row 0 of one candidate when only row 0 of the layer's input changed: dq, dk, dv [d] -> dctx [d]. keys_t [H, e, S] are the base keys,
// transposed; scratch is [2, S].
inline void attention_row0(const AttentionBase& base, const float* keys_t, const float* dq, const float* dk, const float* dv, float* scratch, float* dctx) {
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads;
  float *scores = scratch, *dp = scratch + s;
  for (int64_t h = 0; h < base.heads; ++h) {
    const float *dqh = dq + h * e, *dkh = dk + h * e, *dvh = dv + h * e, *p = base.p + h * s * s;
    std::memset(scores, 0, static_cast<size_t>(s) * sizeof(float));
    for (int64_t j = 0; j < e; ++j) axpy(dqh[j], keys_t + (h * e + j) * s, s, scores);
    scores[0] += dot(base.q + h * e, dkh, e) + dot(dqh, dkh, e);
    delta_softmax_row(p, scores, base.scale, s, dp);
    float* out = dctx + h * e;
    const float patched = p[0] + dp[0];
    for (int64_t j = 0; j < e; ++j) out[j] = patched * dvh[j];
    for (int64_t t = 0; t < s; ++t) axpy(dp[t], base.v + t * d + h * e, e, out);
  }
}

// x [S, H e] -> [H, e, S]
inline void transpose_heads(const float* x, int64_t s, int64_t heads, int64_t e, float* out) {
  for (int64_t t = 0; t < s; ++t)
    for (int64_t c = 0; c < heads * e; ++c) out[c * s + t] = x[t * heads * e + c];
}

}  // namespace pyneuro::PN_ISA
