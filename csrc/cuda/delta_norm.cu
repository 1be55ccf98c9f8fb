// LayerNorm difference, behind a residual or behind the rank-two change that a patch enters with. A warp a row, the row in
// registers: one read and one write of it.
#include "cuda/norm.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8;

// Reads a row by read(candidate, column, values), takes the LayerNorm's difference and writes it.
template <class T, int W, int V, class Args, class Read>
__device__ __forceinline__ void norm_row(const Args& args, Read read) {
  const int64_t token = blockIdx.y, d = args.hidden, n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (n >= args.candidates) return;
  Row<W, V> x;
  x.fill(d, [&](int64_t at, float(&values)[W]) { read(n, at, values); });
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  delta_layernorm_row(x, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, unit, d);
  T* out = static_cast<T*>(args.out) + (token * args.candidates + n) * d;
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (x.column(v) < d) store(out + x.column(v), x.x[v]);
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
