// Attention read at row 0 alone.
//
// delta_attention_row0: only row 0 of the input changed. delta_attention_row0_dense: every row changed, and the last layer reads row 0; with
// U_h = W_K,hᵀ q'_h the scores are ds_h[t] = U_h . dx[t] + dq_h . k_h[t], and dctx_h = W_V,h (sum_t p'_t dx[t]) + sum_t dp_t v_h[t], so no
// other row meets a d x d product.
#include "cpu/attention.h"
#include "cpu/families.h"

namespace pyneuro::PN_ISA {

void delta_attention_row0(const DeltaAttentionRow0& args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden;
  Scratch<float> keys_t(s * d);
  transpose_heads(base.k, s, base.heads, d / base.heads, keys_t.get());
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && args.candidates > 1)
  {
    Scratch<float> scratch(2 * s);
#pragma omp for schedule(static)
    for (int64_t c = 0; c < args.candidates; ++c) {
      const float* row = args.dqkv + c * 3 * d;
      attention_row0(base, keys_t.get(), row, row + d, row + 2 * d, scratch.get(), args.out + c * d);
    }
  }
}

void delta_attention_row0_dense(const DeltaAttentionRow0Dense& args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, heads = base.heads, e = d / heads, n = args.candidates;
  const int64_t value_panels = ceil_div(e, kPanel) * kPanel * d;  // floats of one head's packed W_V
  constexpr int64_t kGroup = kTileRows;                           // candidates that share a pass over the weights
  const int64_t groups = block_count(n, kGroup);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && groups > 1)
  {
    Scratch<float> scratch(kGroup * (d + 2 * heads * d + heads * s) + heads * s);
    float* query = scratch.get();                 // [group, d]     q' of row 0
    float* key_rows = query + kGroup * d;         // [group, H, d]  U
    float* pooled = key_rows + kGroup * heads * d;  // [group, H, d]  sum_t p'_t dx[t]
    float* dp = pooled + kGroup * heads * d;      // [group, H, S]
    float* scores = dp + kGroup * heads * s;      // [H, S]
#pragma omp for schedule(dynamic)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = block_begin(n, groups, g), rows = block_begin(n, groups, g + 1) - first;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < d; ++j) query[i * d + j] = base.q[j] + args.dq0[(first + i) * d + j];
      for (int64_t h = 0; h < heads; ++h)
        multiply_range(query + h * e, d, rows, args.key_transposed, h * e, e, StoreTo{key_rows + h * d, heads * d});

      for (int64_t i = 0; i < rows; ++i) {
        const float* dq = args.dq0 + (first + i) * d;
        float* dp_i = dp + i * heads * s;
        for (int64_t t = 0; t < s; ++t) {
          const float* dx = args.dx + (t * n + first + i) * d;
          for (int64_t h = 0; h < heads; ++h)
            scores[h * s + t] = dot(key_rows + (i * heads + h) * d, dx, d) + dot(dq + h * e, base.k + t * d + h * e, e);
        }
        float* sums = pooled + i * heads * d;
        std::memset(sums, 0, static_cast<size_t>(heads * d) * sizeof(float));
        for (int64_t h = 0; h < heads; ++h) delta_softmax_row(base.p + h * s * s, scores + h * s, base.scale, s, dp_i + h * s);
        for (int64_t t = 0; t < s; ++t) {
          const float* dx = args.dx + (t * n + first + i) * d;
          for (int64_t h = 0; h < heads; ++h) axpy(base.p[h * s * s + t] + dp_i[h * s + t], dx, d, sums + h * d);
        }
      }

      for (int64_t h = 0; h < heads; ++h) {
        const PackedWeight value{static_cast<const float*>(args.value_heads.panels) + h * value_panels, e, d, false};
        multiply_range(pooled + h * d, heads * d, rows, value, 0, d, StoreTo{args.out + first * d + h * e, d});
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t t = 0; t < s; ++t) axpy(dp[(i * heads + h) * s + t], base.v + t * d + h * e, e, args.out + (first + i) * d + h * e);
      }
    }
  }
}

}  // namespace pyneuro::PN_ISA
