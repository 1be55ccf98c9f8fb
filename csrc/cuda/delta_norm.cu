// LayerNorm difference, behind a residual or behind the rank-two change that a patch enters with. A warp a row, the row in registers: one read and
// one write of it.
#include "cuda/norm.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kRows = 8;  // rows (warps) of a block

template <class T, int W, int V>
__global__ void __launch_bounds__(kRows* kWarp) layernorm_kernel(DeltaLayerNorm args) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp, d = args.hidden;
  if (row >= args.tokens * args.candidates) return;
  const int64_t token = row / args.candidates;
  const T *du = static_cast<const T*>(args.du) + row * d, *residual = static_cast<const T*>(args.residual);
  Row<W, V> x;
  x.fill(d, [&](int64_t at, float(&values)[W]) {
    load(du + at, values);
    if (residual != nullptr) {
      float more[W];
      load(residual + row * d + at, more);
#pragma unroll
      for (int i = 0; i < W; ++i) values[i] += more[i];
    }
  });
  const float unit = args.unit == nullptr ? 1.0f : args.unit[row % args.candidates];
  delta_layernorm_row(x, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, unit, d);
  T* out = static_cast<T*>(args.out) + row * d;
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (x.column(v) < d) store(out + x.column(v), x.x[v]);
}

template <class T, int W, int V>
__global__ void __launch_bounds__(kRows* kWarp) entry_kernel(DeltaEntry args) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp, d = args.hidden;
  if (row >= args.tokens * args.candidates) return;
  const int64_t token = row / args.candidates, n = row % args.candidates;
  const float* a = args.a + token * args.a_token_stride + args.pick_a[n] * d;
  const float* b = args.second == nullptr ? nullptr : args.b + args.pick_b[n] * d;
  const float first = args.first[row], second = b == nullptr ? 0.0f : args.second[row];
  Row<W, V> x;
  x.fill(d, [&](int64_t at, float(&values)[W]) {
    load(a + at, values);
#pragma unroll
    for (int i = 0; i < W; ++i) values[i] *= first;
    if (b != nullptr) {
      float more[W];
      load(b + at, more);
#pragma unroll
      for (int i = 0; i < W; ++i) values[i] += second * more[i];
    }
  });
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  delta_layernorm_row(x, args.base.centred + token * d, args.base.rstd[token], args.base.gamma, unit, d);
  T* out = static_cast<T*>(args.out) + row * d;
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (x.column(v) < d) store(out + x.column(v), x.x[v]);
}

}  // namespace

cudaError_t delta_layernorm(const DeltaLayerNorm& args, cudaStream_t stream) {
  const int64_t rows = args.tokens * args.candidates;
  if (rows == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const bool wide = is_wide<T>(args.hidden, args.du, args.residual, args.out, args.base.centred, args.base.gamma);
    return for_row_width<T>(args.hidden, wide, [&]<int W, int V>() {
      PN_LAUNCH((layernorm_kernel<T, W, V>), dim3(blocks_for(rows, kRows)), dim3(kRows * kWarp), 0, stream, args);
      return cudaGetLastError();
    });
  });
}

cudaError_t delta_entry(const DeltaEntry& args, cudaStream_t stream) {
  const int64_t rows = args.tokens * args.candidates;
  if (rows == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const bool wide = is_wide<T>(args.hidden, args.a, args.b, args.out, args.base.centred, args.base.gamma);
    return for_row_width<T>(args.hidden, wide, [&]<int W, int V>() {
      PN_LAUNCH((entry_kernel<T, W, V>), dim3(blocks_for(rows, kRows)), dim3(kRows * kWarp), 0, stream, args);
      return cudaGetLastError();
    });
  });
}

}  // namespace pyneuro::cuda
