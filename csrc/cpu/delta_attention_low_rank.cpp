// The attention block of the layer after a row-0 change.
//
// Row 0 goes through the softmax difference. Every other row's score moved against row 0 alone, so its change before the LayerNorm is
//   du[t] = sum_h context_h[t] A_h[t] + base_h[t] B_h + value_h[t] dB_h      (weights: patched_key_weights in pyneuro/delta.h)
// with A_h[t] and B_h cached a sample and dB_h = W_AO,h dv_h of the candidate: 3 H d multiply-adds a row where the dense layer has 4 d d.
#include "cpu/attention.h"
#include "cpu/families.h"
#include "cpu/norm.h"

namespace pyneuro::PN_ISA {

void delta_attention_low_rank(const DeltaAttentionLowRank& args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, heads = base.heads, e = d / heads, n = args.candidates;
  Scratch<float> shared(2 * s * d + 2 * heads * s);
  float* keys_t = shared.get();           // [H, e, S]
  float* queries_t = keys_t + s * d;      // [H, e, S]
  float* p0 = queries_t + s * d;          // [H, S]  p_h[t, 0]
  float* rest = p0 + heads * s;           // [H, S]  1 - p_h[t, 0], without the cancellation
  transpose_heads(base.k, s, heads, e, keys_t);
  transpose_heads(base.q, s, heads, e, queries_t);
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t t = 0; t < s; ++t) {
      const float* p = base.p + (h * s + t) * s;
      float others = 0.0f;
      for (int64_t j = 1; j < s; ++j) others += p[j];
      p0[h * s + t] = p[0];
      rest[h * s + t] = others;
    }

  constexpr int64_t kGroup = kTileRows;
  const int64_t groups = block_count(n, kGroup);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && groups > 1)
  {
    Scratch<float> scratch(kGroup * (d + heads * d) + 2 * s + 3 * s * heads + d);
    float* dctx = scratch.get();              // [group, d]     row 0
    float* value_rows = dctx + kGroup * d;    // [group, H, d]  dB
    float* scores = value_rows + kGroup * heads * d;  // [2, S]
    float* weights = scores + 2 * s;              // [3, H, S]
    float* du = weights + 3 * s * heads;      // [d]
#pragma omp for schedule(dynamic)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = block_begin(n, groups, g), rows = block_begin(n, groups, g + 1) - first;
      const float* dqkv = args.dqkv + first * 3 * d;
      for (int64_t i = 0; i < rows; ++i) {
        const float* row = dqkv + i * 3 * d;
        attention_row0(base, keys_t, row, row + d, row + 2 * d, scores, dctx + i * d);
      }
      float* out0 = args.out + first * d;
      multiply_range(dctx, d, rows, args.output, 0, d, StoreSum{out0, d, args.dx + first * d, d});
      for (int64_t i = 0; i < rows; ++i)
        delta_layernorm_row(out0 + i * d, args.norm.centred, args.norm.rstd[0], args.norm.gamma, d, out0 + i * d);
      for (int64_t h = 0; h < heads; ++h)
        multiply_range(dqkv + 2 * d + h * e, 3 * d, rows, args.output, h * e, e, StoreTo{value_rows + h * d, heads * d});

      for (int64_t i = 0; i < rows; ++i) {
        const float* dk = dqkv + i * 3 * d + d;
        for (int64_t h = 0; h < heads; ++h) {
          std::memset(scores, 0, static_cast<size_t>(s) * sizeof(float));
          for (int64_t j = 0; j < e; ++j) axpy(dk[h * e + j] * base.scale, queries_t + (h * e + j) * s, s, scores);
#pragma omp simd
          for (int64_t t = 0; t < s; ++t) {
            const PatchedKeyWeights w = patched_key_weights(p0[h * s + t], rest[h * s + t], scores[t]);
            weights[h * s + t] = w.context;
            weights[(heads + h) * s + t] = w.base;
            weights[(2 * heads + h) * s + t] = w.value;
          }
        }
        const float* values = value_rows + i * heads * d;
        for (int64_t t = 1; t < s; ++t) {
          const float *w = weights + t, *context = args.context_rows + t * heads * d;
          int64_t j = 0;
          for (; j + kPanel <= d; j += kPanel) {
            Pair acc = {};
            for (int64_t h = 0; h < heads; ++h) {
              const int64_t at = h * d + j;
              const float along_context = w[h * s], along_base = w[(heads + h) * s], along_value = w[(2 * heads + h) * s];
              acc.lo += along_context * load(context + at) + along_base * load(args.value_row + at) + along_value * load(values + at);
              acc.hi += along_context * load(context + at + kLanes) + along_base * load(args.value_row + at + kLanes) + along_value * load(values + at + kLanes);
            }
            store_pair(du + j, acc, kPanel);
          }
          for (; j < d; ++j) {
            float acc = 0.0f;
            for (int64_t h = 0; h < heads; ++h) acc += w[h * s] * context[h * d + j] + w[(heads + h) * s] * args.value_row[h * d + j] + w[(2 * heads + h) * s] * values[h * d + j];
            du[j] = acc;
          }
          delta_layernorm_row(du, args.norm.centred + t * d, args.norm.rstd[t], args.norm.gamma, d, args.out + (t * n + first + i) * d);
        }
      }
    }
  }
}

}  // namespace pyneuro::PN_ISA
