// Linear layers of a difference: exact (W x' + b = W x + b + W dx), so plain products, with the LayerNorm difference behind where one follows.
#include "cpu/families.h"
#include "cpu/gemm.h"
#include "cpu/norm.h"

namespace pyneuro::PN_ISA {

void delta_linear(const DeltaLinear& args) {
  const PackedWeight& w = args.weight;
  const int64_t blocks = block_count(args.rows, kBlockRows);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && blocks > 1)
  {
    Scratch<uint16_t> rounded(rounding_scratch(w, kBlockRows));
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t row = block_begin(args.rows, blocks, b), rows = block_begin(args.rows, blocks, b + 1) - row;
      multiply_rows(args.dx + row * w.in, w.in, rows, w, rounded.get(), StoreTo{args.out + row * w.out, w.out});
    }
  }
}

void delta_layernorm(const DeltaLayerNorm& args) {
  const int64_t rows = args.tokens * args.candidates, d = args.hidden;
#pragma omp parallel for schedule(static) num_threads(args.threads) if (args.threads > 1 && rows * d > 1 << 16)
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = row / args.candidates;
    delta_layernorm_row(args.du + row * d, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, d, args.out + row * d);
  }
}

void delta_linear_norm(const DeltaLinearNorm& args) {
  const PackedWeight& w = args.weight;
  const int64_t total = args.tokens * args.candidates, d = w.out, blocks = block_count(total, kBlockRows);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && blocks > 1)
  {
    Scratch<uint16_t> rounded(rounding_scratch(w, kBlockRows));
#pragma omp for schedule(dynamic)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = block_begin(total, blocks, b), rows = block_begin(total, blocks, b + 1) - first;
      float* out = args.out + first * d;
      multiply_rows(args.dx + first * w.in, w.in, rows, w, rounded.get(), StoreSum{out, d, args.residual + first * d, d});
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t token = (first + i) / args.candidates;
        delta_layernorm_row(out + i * d, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, d, out + i * d);
      }
    }
  }
}

}  // namespace pyneuro::PN_ISA
