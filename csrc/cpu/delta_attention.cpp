// Attention of a difference when every row changed.
//
// A candidate's rows are strided by N in the token-major layout; a head's [S, e] slices are gathered, then
//   ds  = (q + dq) dkᵀ + dq kᵀ          dp = softmax difference of ds / sqrt(e)
//   dctx = dp (v + dv) + p dv
#include "cpu/attention.h"
#include "cpu/families.h"

namespace pyneuro::PN_ISA {

void delta_attention(const DeltaAttention& args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, heads = base.heads, e = d / heads, n = args.candidates;
  const int64_t sp = padded(s), ep = padded(e);
  Scratch<float> keys_scratch(heads * e * sp);
  float* keys = keys_scratch.get();  // base keys as right operands, head by head
  for (int64_t h = 0; h < heads; ++h) pack_transposed(base.k + h * e, d, s, e, keys + h * e * sp);

#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && n > 1)
  {
    Scratch<float> scratch(s * e * 4 + e * sp + 2 * s * ep + s * sp);
    float* dq = scratch.get();           // [S, e]
    float* query = dq + s * e;           // [S, e]  q + dq
    float* dv = query + s * e;           // [S, e]
    float* value = dv + s * e;           // [S, e]  v + dv
    float* dk_panels = value + s * e;    // dkᵀ as right operand
    float* dv_panels = dk_panels + e * sp;
    float* value_panels = dv_panels + s * ep;
    float* scores = value_panels + s * ep;  // [S, sp]
#pragma omp for schedule(dynamic, 4)
    for (int64_t c = 0; c < n; ++c) {
      const float* rows = args.dqkv + c * 3 * d;
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t t = 0; t < s; ++t) {
          const float* row = rows + t * n * 3 * d + h * e;
          const float *q = base.q + t * d + h * e, *v = base.v + t * d + h * e;
#pragma omp simd
          for (int64_t j = 0; j < e; ++j) {
            dq[t * e + j] = row[j];
            query[t * e + j] = q[j] + row[j];
            dv[t * e + j] = row[2 * d + j];
            value[t * e + j] = v[j] + row[2 * d + j];
          }
        }
        pack_transposed(rows + d + h * e, n * 3 * d, s, e, dk_panels);
        pack_plain(dv, e, s, e, dv_panels);
        pack_plain(value, e, s, e, value_panels);

        multiply_panels(query, e, s, dk_panels, e, sp, scores, sp, false);
        multiply_panels(dq, e, s, keys + h * e * sp, e, sp, scores, sp, true);
        const float* p = base.p + h * s * s;
        for (int64_t t = 0; t < s; ++t) {
          float* row = scores + t * sp;
          for (int64_t j = 0; j < s; ++j) row[j] *= base.scale;
          delta_softmax_row(p + t * s, s, row);
        }
        float* out = args.out + c * d + h * e;
        multiply_panels(scores, sp, s, value_panels, s, e, out, n * d, false);
        multiply_panels(p, s, s, dv_panels, s, e, out, n * d, true);
      }
    }
  }
}

}  // namespace pyneuro::PN_ISA
