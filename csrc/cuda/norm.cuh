// LayerNorm difference of a row that a warp holds in registers: V vectors of W values a lane. Formula in pyneuro/delta.h.
#pragma once
#include "cuda/device.cuh"

namespace pyneuro::cuda {

// A lane's part of a row: column(v) is where its v-th vector begins.
template <int W, int V>
struct Row {
  float x[V][W];

  static __device__ __forceinline__ int64_t column(int v) { return (static_cast<int64_t>(v) * kWarp + threadIdx.x % kWarp) * W; }

  template <class Each>
  __device__ __forceinline__ void fill(int64_t columns, Each each) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (column(v) < columns) {
        each(column(v), x[v]);
      } else {
#pragma unroll
        for (int i = 0; i < W; ++i) x[v][i] = 0.0f;
      }
    }
  }
};

// What the candidates of a token share: read where it is needed, or kept in a lane's registers for many rows.
template <int W, int V, bool kKept = false>
struct TokenNorm {
  const float *centred_row, *gamma_row;
  float rstd;
  float c[kKept ? V : 1][W], g[kKept ? V : 1][W];

  __device__ __forceinline__ TokenNorm(const NormBase& base, int64_t token, int64_t columns)
      : centred_row(base.centred + token * columns), gamma_row(base.gamma), rstd(base.rstd[token]) {
    if constexpr (kKept) {
#pragma unroll
      for (int v = 0; v < V; ++v) {
        if (Row<W, V>::column(v) < columns) {
          load(centred_row + Row<W, V>::column(v), c[v]);
          load(gamma_row + Row<W, V>::column(v), g[v]);
        }
      }
    }
  }
  __device__ __forceinline__ void centred(int v, float (&x)[W]) const { get(c, centred_row, v, x); }
  __device__ __forceinline__ void gamma(int v, float (&x)[W]) const { get(g, gamma_row, v, x); }

 private:
  template <int Kept>
  static __device__ __forceinline__ void get(const float (&kept)[Kept][W], const float* row, int v, float (&x)[W]) {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < W; ++i) x[i] = kept[v][i];
    } else {
      load(row + Row<W, V>::column(v), x);
    }
  }
};

// (var' + eps) / (var + eps) where most of the variance went away: summed from the patched row, so that nothing cancels. dc is du - mean(du).
template <int W, int V>
__device__ __forceinline__ float shrunken_growth(const Row<W, V>& dc, const float* centred, float rstd, float unit, int64_t columns) {
  float base = 0.0f, patched = 0.0f;
  for (int v = 0; v < V; ++v) {
    if (dc.column(v) < columns) {
      float c[W];
      load(centred + dc.column(v), c);
      for (int i = 0; i < W; ++i) {
        const float after = c[i] + unit * dc.x[v][i];
        base += c[i] * c[i];
        patched += after * after;
      }
    }
  }
  const float share = 1.0f / static_cast<float>(columns), eps = 1.0f / (rstd * rstd) - warp_sum(base) * share;
  return (warp_sum(patched) * share + (eps > 0.0f ? eps : 0.0f)) * rstd * rstd;
}

// du, in the candidate's unit, becomes the difference after the LayerNorm, in the same unit.
template <int W, int V, bool kKept>
__device__ __forceinline__ void delta_layernorm_row(Row<W, V>& du, const TokenNorm<W, V, kKept>& base, float unit, int64_t columns) {
  const float share = 1.0f / static_cast<float>(columns);
  float mean = 0.0f;
#pragma unroll
  for (int v = 0; v < V; ++v) {
#pragma unroll
    for (int i = 0; i < W; ++i) mean += du.x[v][i];
  }
  mean = warp_sum(mean) * share;

  float along = 0.0f, square = 0.0f;  // sums of dc c and of dc dc
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (du.column(v) < columns) {
      float c[W];
      base.centred(v, c);
#pragma unroll
      for (int i = 0; i < W; ++i) {
        du.x[v][i] -= mean;
        along += du.x[v][i] * c[i];
        square += du.x[v][i] * du.x[v][i];
      }
    }
  }
  const float growth_less_one = (2.0f * warp_sum(along) + unit * warp_sum(square)) * share * unit * base.rstd * base.rstd;
  float growth = 1.0f + growth_less_one;
  if (growth < kLeastGrowth) growth = shrunken_growth(du, base.centred_row, base.rstd, unit, columns);  // the same for all lanes
  const RstdChange r = delta_rstd(base.rstd, growth_less_one, growth);
  const float along_base = r.delta / unit;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (du.column(v) < columns) {
      float c[W], g[W];
      base.centred(v, c);
      base.gamma(v, g);
#pragma unroll
      for (int i = 0; i < W; ++i) du.x[v][i] = g[i] * (du.x[v][i] * r.patched + c[i] * along_base);
    }
  }
}

constexpr int kMostHidden = 2048;

// Calls launch.template operator()<W, V>() with the least V that holds a row.
template <class T, class Launch>
cudaError_t for_row_width(int64_t columns, bool wide, Launch launch) {
  constexpr int W = kWide<T>;
  if (columns > kMostHidden) return cudaErrorInvalidValue;
  if (!wide) return columns <= 256 ? launch.template operator()<1, 8>() : columns <= 1024 ? launch.template operator()<1, 32>() : launch.template operator()<1, 64>();
  if (columns <= 512) return launch.template operator()<W, 16 / W>();
  if (columns <= 768) return launch.template operator()<W, 24 / W>();
  if (columns <= 1024) return launch.template operator()<W, 32 / W>();
  return launch.template operator()<W, 64 / W>();
}

}  // namespace pyneuro::cuda
