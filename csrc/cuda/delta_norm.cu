// LayerNorm difference, behind a residual or behind the rank-two change that a patch enters with. A warp a row, the row in
// registers: one read and one write of it. Of half precision rows, which are read faster than the token's base values, a warp
// takes several candidates of a token and keeps those.
#include "cuda/norm.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kFewWarps = 4, kRows = 8, kKeptHidden = 1024;  // of a warp that keeps a token's base values
constexpr int64_t kManyRows = kEmulated ? 1 << 6 : 1 << 16;  // from which on such warps fill a large device

template <class T, int W, int V>
__device__ __forceinline__ void write(const Row<W, V>& x, T* out, int64_t columns) {
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (x.column(v) < columns) store(out + x.column(v), x.x[v]);
}

// Reads a row by read(candidate, column, values), takes the LayerNorm's difference and writes it.
template <class T, int W, int V, class Args, class Read>
__device__ __forceinline__ void norm_row(const Args& args, Read read) {
  const int64_t token = blockIdx.y, d = args.hidden, n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (n >= args.candidates) return;
  Row<W, V> x;
  x.fill(d, [&](int64_t at, float(&values)[W]) { read(n, at, values); });
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  delta_layernorm_row(x, TokenNorm<W, V>(args.base, token, d), unit, d);
  write(x, static_cast<T*>(args.out) + (token * args.candidates + n) * d, d);
}

template <class T, int W, int V>
__global__ void __launch_bounds__(kWarps* kWarp) layernorm_kernel(DeltaLayerNorm args) {
  const T* du = static_cast<const T*>(args.du) + blockIdx.y * args.candidates * args.hidden;
  const T* residual = args.residual == nullptr ? nullptr : static_cast<const T*>(args.residual) + blockIdx.y * args.residual_token_stride;
  norm_row<T, W, V>(args, [&](int64_t n, int64_t at, float(&values)[W]) {
    load(du + n * args.hidden + at, values);
    if (residual != nullptr) {
      float more[W];
      load(residual + n * args.residual_candidate_stride + at, more);
#pragma unroll
      for (int i = 0; i < W; ++i) values[i] += more[i];
    }
  });
}

// The next row is on its way while this one is summed.
template <int V>
__global__ void __launch_bounds__(kFewWarps* kWarp, V <= 3 ? 4 : 3) layernorm_rows_kernel(DeltaLayerNorm args) {
  constexpr int W = kWide<__half>;
  const int64_t token = blockIdx.y, d = args.hidden, n_all = args.candidates;
  const __half* du = static_cast<const __half*>(args.du) + token * n_all * d;
  const __half* residual = args.residual == nullptr ? nullptr : static_cast<const __half*>(args.residual) + token * args.residual_token_stride;
  __half* out = static_cast<__half*>(args.out) + token * n_all * d;
  const TokenNorm<W, V, true> base(args.base, token, d);
  uint4 own[V], more[V];
  const auto fetch = [&](int64_t n) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int64_t column = Row<W, V>::column(v);
      if (column >= d) continue;
      own[v] = *reinterpret_cast<const uint4*>(du + n * d + column);
      if (residual != nullptr) more[v] = *reinterpret_cast<const uint4*>(residual + n * args.residual_candidate_stride + column);
    }
  };
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kFewWarps * kRows, end = begin + kFewWarps * kRows < n_all ? begin + kFewWarps * kRows : n_all;
  int64_t n = begin + threadIdx.x / kWarp;
  if (n < end) fetch(n);
  for (; n < end; n += kFewWarps) {
    Row<W, V> x;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const bool inside = x.column(v) < d;
      float added[W] = {};
#pragma unroll
      for (int i = 0; i < W; ++i) x.x[v][i] = 0.0f;
      if (inside) unpack(own[v], x.x[v]);
      if (inside && residual != nullptr) unpack(more[v], added);
#pragma unroll
      for (int i = 0; i < W; ++i) x.x[v][i] += added[i];
    }
    if (n + kFewWarps < end) fetch(n + kFewWarps);
    delta_layernorm_row(x, base, args.unit == nullptr ? 1.0f : args.unit[n], d);
    write(x, out + n * d, d);
  }
}

cudaError_t layernorm_rows(const DeltaLayerNorm& args, cudaStream_t stream) {
  const dim3 grid(blocks_for(args.candidates, kFewWarps * kRows), static_cast<unsigned>(args.tokens));
  return for_row_width<__half>(args.hidden, true, [&]<int W, int V>() {
    if constexpr (W == kWide<__half> && W * V * kWarp <= kKeptHidden) PN_LAUNCH((layernorm_rows_kernel<V>), grid, dim3(kFewWarps * kWarp), 0, stream, args);
    return cudaGetLastError();
  });
}

template <class T, int W, int V>
__global__ void __launch_bounds__(kWarps* kWarp, 1) entry_kernel(DeltaEntry args) {
  const int64_t token = blockIdx.y, d = args.hidden;
  const float *first = args.first + token * args.candidates, *second = args.second == nullptr ? nullptr : args.second + token * args.candidates;
  const float* a = args.a + token * args.a_token_stride;
  norm_row<T, W, V>(args, [&](int64_t n, int64_t at, float(&values)[W]) {
    load(a + args.pick_a[n] * d + at, values);
#pragma unroll
    for (int i = 0; i < W; ++i) values[i] *= first[n];
    if (second != nullptr) {
      float more[W];
      load(args.b + args.pick_b[n] * d + at, more);
#pragma unroll
      for (int i = 0; i < W; ++i) values[i] += second[n] * more[i];
    }
  });
}

dim3 grid(int64_t candidates, int64_t tokens) { return dim3(blocks_for(candidates, kWarps), static_cast<unsigned>(tokens)); }

}  // namespace

cudaError_t delta_layernorm(const DeltaLayerNorm& args, cudaStream_t stream) {
  if (args.tokens * args.candidates == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const bool wide = is_wide<T>(args.hidden, args.du, args.residual, args.out, args.base.centred, args.base.gamma) && is_wide<T>(args.residual_token_stride) &&
                      is_wide<T>(args.residual_candidate_stride);
    if (wide && args.storage == Storage::fp16 && args.hidden <= kKeptHidden && args.tokens * args.candidates >= kManyRows) return layernorm_rows(args, stream);
    return for_row_width<T>(args.hidden, wide, [&]<int W, int V>() {
      PN_LAUNCH((layernorm_kernel<T, W, V>), grid(args.candidates, args.tokens), dim3(kWarps * kWarp), 0, stream, args);
      return cudaGetLastError();
    });
  });
}

cudaError_t delta_entry(const DeltaEntry& args, cudaStream_t stream) {
  if (args.tokens * args.candidates == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const bool wide = is_wide<T>(args.hidden, args.a, args.b, args.out, args.base.centred, args.base.gamma);
    return for_row_width<T>(args.hidden, wide, [&]<int W, int V>() {
      PN_LAUNCH((entry_kernel<T, W, V>), grid(args.candidates, args.tokens), dim3(kWarps * kWarp), 0, stream, args);
      return cudaGetLastError();
    });
  });
}

}  // namespace pyneuro::cuda
