// LayerNorm difference of one row; formula in pyneuro/delta.h.
#pragma once
#include "cpu/simd.h"
#include "pyneuro/delta.h"

namespace pyneuro::PN_ISA {

// (var' + eps) / (var + eps) where most of the variance went away: summed from the patched row, so that nothing cancels.
inline __attribute__((noinline)) float shrunken_growth(const float* du, const float* centred, float mean, float rstd, int64_t d) {
  float base = 0.0f, patched = 0.0f;
#pragma omp simd reduction(+ : base, patched)
  for (int64_t i = 0; i < d; ++i) {
    const float after = centred[i] + (du[i] - mean);
    base += centred[i] * centred[i];
    patched += after * after;
  }
  const float eps = 1.0f / (rstd * rstd) - base / static_cast<float>(d);
  return (patched / static_cast<float>(d) + (eps > 0.0f ? eps : 0.0f)) * rstd * rstd;
}

// du, out [d] (may be the same), centred, gamma [d]. Three passes over a row that is in L1.
inline void delta_layernorm_row(const float* du, const float* centred, float rstd, const float* gamma, int64_t d, float* out) {
  const int64_t whole = d - d % kLanes;
  Vec sums = {};
  float mean = 0.0f;
  for (int64_t i = 0; i < whole; i += kLanes) sums += load(du + i);
  for (int64_t i = whole; i < d; ++i) mean += du[i];
  mean = (mean + sum(sums)) / static_cast<float>(d);

  Vec squares = {};
  float dvar = 0.0f;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Vec dc = load(du + i) - mean;
    squares += dc * (2.0f * load(centred + i) + dc);
  }
  for (int64_t i = whole; i < d; ++i) dvar += (du[i] - mean) * (2.0f * centred[i] + (du[i] - mean));
  const float growth_less_one = (dvar + sum(squares)) / static_cast<float>(d) * rstd * rstd;
  float growth = 1.0f + growth_less_one;
  if (growth < kLeastGrowth) growth = shrunken_growth(du, centred, mean, rstd, d);
  const RstdChange r = delta_rstd(rstd, growth_less_one, growth);

  for (int64_t i = 0; i < whole; i += kLanes) store(out + i, load(gamma + i) * ((load(du + i) - mean) * r.patched + load(centred + i) * r.delta));
  for (int64_t i = whole; i < d; ++i) out[i] = gamma[i] * ((du[i] - mean) * r.patched + centred[i] * r.delta);
}

}  // namespace pyneuro::PN_ISA
