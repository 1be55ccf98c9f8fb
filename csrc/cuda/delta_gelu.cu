// GELU difference, in place, and what it needs of a base run. A thread keeps the base value and the four Taylor coefficients of its columns of one token in registers and runs
// over candidates, a few of them in flight at once.
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kCandidates = 32;  // a block's
constexpr int kTogether = 4;

template <class T, int W>
__global__ void __launch_bounds__(kThreads) gelu_kernel(DeltaGelu args) {
  const int64_t f = args.width, column = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * W, token = blockIdx.z;
  if (column >= f) return;
  float base[W], c1[W], c2[W], c3[W], c4[W];
  load(args.pre_gelu + token * f + column, base);
  const float* series = args.series + token * 4 * f + column;
  load(series, c1);
  load(series + f, c2);
  load(series + 2 * f, c3);
  load(series + 3 * f, c4);
  const int64_t first = blockIdx.y * kCandidates, end = first + kCandidates < args.candidates ? first + kCandidates : args.candidates;
  T* x = static_cast<T*>(args.x) + (token * args.candidates + first) * f + column;
  for (int64_t n = first; n < end; n += kTogether, x += kTogether * f) {
    float values[kTogether][W];
#pragma unroll
    for (int c = 0; c < kTogether; ++c)
      if (n + c < end) load(x + c * f, values[c]);
#pragma unroll
    for (int c = 0; c < kTogether; ++c) {
      if (n + c >= end) break;
      const float unit = args.unit == nullptr ? 1.0f : args.unit[n + c];
#pragma unroll
      for (int i = 0; i < W; ++i) {
        const float d = values[c][i] * unit;
        values[c][i] *= c1[i] + d * (c2[i] + d * (c3[i] + d * c4[i]));
        if (!(fabsf(d) <= kGeluSeriesRadius)) values[c][i] = delta_gelu_plain(base[i], d) / unit;
      }
      store(x + c * f, values[c]);
    }
  }
}

// A thread a value.
__global__ void __launch_bounds__(kThreads) series_kernel(GeluSeries args) {
  const int64_t f = args.width, column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, token = blockIdx.y;
  if (column >= f) return;
  const double a = args.pre_gelu[token * f + column], square = a * a;
  const double density = exp(-square / 2.0) * 0.39894228040143267794, distribution = 0.5 * erfc(-a * 0.70710678118654752440);
  float* out = args.series + token * 4 * f + column;
  out[0] = static_cast<float>(distribution + a * density);
  out[f] = static_cast<float>(density * (2.0 - square) / 2.0);
  out[2 * f] = static_cast<float>(density * a * (square - 4.0) / 6.0);
  out[3 * f] = static_cast<float>(density * (-square * square + 7.0 * square - 4.0) / 24.0);
}

}  // namespace

cudaError_t gelu_series(const GeluSeries& args, cudaStream_t stream) {
  if (args.tokens * args.width == 0) return cudaSuccess;
  PN_LAUNCH(series_kernel, dim3(blocks_for(args.width, kThreads), static_cast<unsigned>(args.tokens)), dim3(kThreads), 0, stream, args);
  return cudaGetLastError();
}

cudaError_t delta_gelu(const DeltaGelu& args, cudaStream_t stream) {
  if (args.tokens * args.candidates == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const dim3 rest(1, blocks_for(args.candidates, kCandidates), static_cast<unsigned>(args.tokens));
    if (is_wide<T>(args.width, args.x, args.pre_gelu, args.series)) {
      PN_LAUNCH((gelu_kernel<T, kWide<T>>), dim3(blocks_for(args.width, kThreads * kWide<T>), rest.y, rest.z), dim3(kThreads), 0, stream, args);
    } else {
      PN_LAUNCH((gelu_kernel<T, 1>), dim3(blocks_for(args.width, kThreads), rest.y, rest.z), dim3(kThreads), 0, stream, args);
    }
    return cudaGetLastError();
  });
}

}  // namespace pyneuro::cuda
