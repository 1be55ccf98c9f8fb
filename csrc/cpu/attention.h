// Pieces shared by the attention kernels: panels made on the fly from activations, and the softmax difference of one row.
#pragma once
#include "cpu/gemm.h"
#include "pyneuro/delta.h"

namespace pyneuro::PN_ISA {

inline int64_t padded(int64_t n) { return ceil_div(n, kPanel) * kPanel; }

// src [rows, cols] -> panels of srcᵀ as the right operand of x srcᵀ: [ceil(rows / kPanel), cols, kPanel], zero padded.
inline void pack_transposed(const float* src, int64_t ld, int64_t rows, int64_t cols, float* panels) {
  for (int64_t r0 = 0; r0 < rows; r0 += kPanel, panels += cols * kPanel) {
    const int64_t width = min(kPanel, rows - r0);
    if (width < kPanel) std::memset(panels, 0, static_cast<size_t>(cols * kPanel) * sizeof(float));
    for (int64_t i = 0; i < width; ++i) {
      const float* row = src + (r0 + i) * ld;
      for (int64_t j = 0; j < cols; ++j) panels[j * kPanel + i] = row[j];
    }
  }
}

// src [rows, cols] as the right operand of x src: [ceil(cols / kPanel), rows, kPanel], zero padded.
inline void pack_plain(const float* src, int64_t ld, int64_t rows, int64_t cols, float* panels) {
  for (int64_t c0 = 0; c0 < cols; c0 += kPanel, panels += rows * kPanel)
    for (int64_t i = 0; i < rows; ++i) store_pair(panels + i * kPanel, load_pair(src + i * ld + c0, min(kPanel, cols - c0)), kPanel);
}

// x [rows, k] times panels made by the functions above, to out [rows, cols]: set, or added to.
inline void multiply_panels(const float* x, int64_t ldx, int64_t rows, const float* panels, int64_t k, int64_t cols, float* out, int64_t ldo, bool add) {
  for (int64_t column = 0; column < cols; column += kPanel, panels += k * kPanel) {
    const int64_t width = min(kPanel, cols - column);
    if (add)
      multiply_panel(x, ldx, rows, panels, k, [&](int64_t row, const auto& tile) { StoreSum{out, ldo, out, ldo}(row, column, width, tile); });
    else
      multiply_panel(x, ldx, rows, panels, k, [&](int64_t row, const auto& tile) { StoreTo{out, ldo}(row, column, width, tile); });
  }
}

// ds [n] (already scaled) -> dp [n] in place.
inline void delta_softmax_row(const float* p, int64_t n, float* ds) {
  float mean_x = 0.0f;
#pragma omp simd reduction(+ : mean_x)
  for (int64_t j = 0; j < n; ++j) {
    ds[j] = expm1_fast(ds[j]);
    mean_x += p[j] * ds[j];
  }
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) ds[j] = delta_softmax(p[j], ds[j], mean_x);
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
// transposed; scores is scratch [S].
inline void attention_row0(const AttentionBase& base, const float* keys_t, const float* dq, const float* dk, const float* dv, float* scores, float* dctx) {
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads;
  for (int64_t h = 0; h < base.heads; ++h) {
    const float *dqh = dq + h * e, *dkh = dk + h * e, *dvh = dv + h * e, *p = base.p + h * s * s;
    std::memset(scores, 0, static_cast<size_t>(s) * sizeof(float));
    for (int64_t j = 0; j < e; ++j) axpy(dqh[j] * base.scale, keys_t + (h * e + j) * s, s, scores);
    scores[0] += base.scale * (dot(base.q + h * e, dkh, e) + dot(dqh, dkh, e));
    delta_softmax_row(p, s, scores);
    float* out = dctx + h * e;
    const float patched = p[0] + scores[0];
    for (int64_t j = 0; j < e; ++j) out[j] = patched * dvh[j];
    for (int64_t t = 0; t < s; ++t) axpy(scores[t], base.v + t * d + h * e, e, out);
  }
}

// x [S, H e] -> [H, e, S]
inline void transpose_heads(const float* x, int64_t s, int64_t heads, int64_t e, float* out) {
  for (int64_t t = 0; t < s; ++t)
    for (int64_t c = 0; c < heads * e; ++c) out[c * s + t] = x[t * heads * e + c];
}

}  // namespace pyneuro::PN_ISA
