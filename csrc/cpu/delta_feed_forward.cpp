// Feed-forward block of a difference: W_I, GELU difference, W_O, residual, LayerNorm difference.
//
// Works on a block of candidates of one token: the GELU difference is then an epilogue of bias kind (its four Taylor coefficients are row
// vectors shared by the block), and the [rows, f] intermediate lives in L2. Per block both weights stream through once.
#include "cpu/families.h"
#include "cpu/gemm.h"
#include "cpu/norm.h"
#include "pyneuro/delta.h"

namespace pyneuro::PN_ISA {
namespace {

struct StoreDeltaGelu {
  float* out;
  int64_t ld;
  const float* pre_gelu;  // [f]
  const float* series;    // [4, f]
  int64_t width_all;      // f

  template <int M>
  void operator()(int64_t row, int64_t column, int64_t width, const Tile<M>& tile) const {
    Pair c[4];
    for (int k = 0; k < 4; ++k) c[k] = load_pair(series + k * width_all + column, width);
    for (int i = 0; i < M; ++i) {
      const Pair d = tile.row[i];
      Pair g = {delta_gelu_series(d.lo, c[0].lo, c[1].lo, c[2].lo, c[3].lo), delta_gelu_series(d.hi, c[0].hi, c[1].hi, c[2].hi, c[3].hi)};
      if (any_beyond(d.lo, kGeluSeriesRadius) || any_beyond(d.hi, kGeluSeriesRadius)) g = beyond_radius(d, g, load_pair(pre_gelu + column, width));
      store_pair(out + (row + i) * ld + column, g, width);
    }
  }

  static __attribute__((noinline)) Pair beyond_radius(Pair d, Pair g, Pair a) {
    alignas(64) float dd[kPanel], gg[kPanel], aa[kPanel];
    store_pair(dd, d, kPanel);
    store_pair(gg, g, kPanel);
    store_pair(aa, a, kPanel);
#pragma omp simd
    for (int j = 0; j < kPanel; ++j) {
      const float magnitude = dd[j] < 0.0f ? -dd[j] : dd[j];
      const float plain = delta_gelu_plain(aa[j], dd[j]);
      gg[j] = magnitude > kGeluSeriesRadius ? plain : gg[j];
    }
    return load_pair(gg, kPanel);
  }
};

}  // namespace

void delta_feed_forward(const DeltaFeedForward& args) {
  const PackedWeight &wi = args.in_weight, &wo = args.out_weight;
  const int64_t d = wi.in, f = wi.out, n = args.candidates;
  const int64_t f_ld = f + 16;  // off a power of two, see multiply_rows
  const int64_t per_token = block_count(n, kBlockRows), blocks = args.tokens * per_token;
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && blocks > 1)
  {
    Scratch<float> gelu_block(kBlockRows * f_ld);
    const int64_t most = rounding_scratch(wi, kBlockRows) > rounding_scratch(wo, kBlockRows) ? rounding_scratch(wi, kBlockRows) : rounding_scratch(wo, kBlockRows);
    Scratch<uint16_t> rounded(most);
    float* g = gelu_block.get();
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t token = b / per_token, i = b % per_token;
      const int64_t first = block_begin(n, per_token, i), rows = block_begin(n, per_token, i + 1) - first;
      const float* dx = args.dx + (token * n + first) * d;
      float* out = args.out + (token * n + first) * d;
      multiply_rows(dx, d, rows, wi, rounded.get(), StoreDeltaGelu{g, f_ld, args.pre_gelu + token * f, args.series + token * 4 * f, f});
      multiply_rows(g, f_ld, rows, wo, rounded.get(), StoreSum{out, d, dx, d});
      for (int64_t row = 0; row < rows; ++row)
        delta_layernorm_row(out + row * d, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, d, out + row * d);
    }
  }
}

}  // namespace pyneuro::PN_ISA
