// Attention read at row 0 alone: when only row 0 changed (by one neuron of Q, or all over), and when every row changed.
#include "cuda/softmax.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8;

// Row 0 changed: a block a candidate, a warp a head.
template <class T, int W>
__global__ void __launch_bounds__(kWarps* kWarp, 1) row0_kernel(DeltaAttentionRow0 args) {
  PN_SHARED(float, shared);
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads, n = blockIdx.x;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  float* dp = shared + warp * s;
  for (int64_t h = warp; h < base.heads; h += kWarps) {
    const T *dq = static_cast<const T*>(args.dqkv) + n * 3 * d + h * e, *dk = dq + d, *dv = dk + d;
    float patched_key = 0.0f;
    for (int64_t j = lane; j < e; j += kWarp) patched_key += (base.q[h * e + j] + unit * to_float(dq[j])) * to_float(dk[j]);
    patched_key = warp_sum(patched_key);
    for (int64_t key = lane; key < s; key += kWarp) {
      const float* k = base.k + key * d + h * e;
      float sum = key == 0 ? patched_key : 0.0f;
      for (int64_t j = 0; j < e; j += W) {
        float a[W], b[W];
        load(dq + j, a);
        load(k + j, b);
#pragma unroll
        for (int i = 0; i < W; ++i) sum += a[i] * b[i];
      }
      dp[key] = sum * base.scale * unit;
    }
    __syncwarp();
    const float* p = base.p + h * s * s;
    delta_softmax_row(p, dp, s);
    for (int64_t j = lane; j < e; j += kWarp) {
      float along_base = 0.0f;
      for (int64_t key = 0; key < s; ++key) along_base += dp[key] * base.v[key * d + h * e + j];
      static_cast<T*>(args.out)[n * d + h * e + j] = from_float<T>(along_base / unit + (p[0] + dp[0]) * to_float(dv[j]));
    }
    __syncwarp();
  }
}

// One neuron of Q changed: a warp a candidate.
__global__ void __launch_bounds__(kWarps* kWarp) query_kernel(DeltaEntryQuery args) {
  PN_SHARED(float, shared);
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads, n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (n >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t neuron = args.index[n], h = neuron / e;
  float* dp = shared + threadIdx.x / kWarp * s;
  for (int64_t key = lane; key < s; key += kWarp) dp[key] = args.change[n] * base.scale * base.k[key * d + neuron];
  __syncwarp();
  delta_softmax_row(base.p + h * s * s, dp, s);
  for (int64_t j = lane; j < d; j += kWarp) {
    float context = 0.0f;
    if (j / e == h)
      for (int64_t key = 0; key < s; ++key) context += dp[key] * base.v[key * d + j];
    args.out[n * d + j] = context;
  }
}

// Every row changed: a warp a head of a candidate.
template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) softmax_kernel(DeltaSoftmaxRow0 args) {
  PN_SHARED(float, shared);
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, n = row / base.heads, h = row % base.heads;
  if (n >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  float* dp = shared + threadIdx.x / kWarp * s;
  T *scores = static_cast<T*>(args.scores) + row * args.ld, *changes = static_cast<T*>(args.changes) + (h * args.candidates + n) * s;
  for (int64_t key = lane; key < s; key += kWarp) dp[key] = (to_float(scores[key]) + to_float(changes[key])) * base.scale * unit;
  __syncwarp();
  const float* p = base.p + h * s * s;
  delta_softmax_row(p, dp, s);
  for (int64_t key = lane; key < s; key += kWarp) {
    scores[key] = from_float<T>(p[key] + dp[key]);
    changes[key] = from_float<T>(dp[key] / unit);
  }
}

}  // namespace

cudaError_t delta_attention_row0(const DeltaAttentionRow0& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const size_t bytes = kWarps * static_cast<size_t>(args.base.tokens) * sizeof(float);
    const auto launch = [&](auto kernel) {
      if (cudaError_t error = allow_shared(kernel, bytes); error != cudaSuccess) return error;
      PN_LAUNCH(kernel, dim3(static_cast<unsigned>(args.candidates)), dim3(kWarps * kWarp), bytes, stream, args);
      return cudaGetLastError();
    };
    const bool wide = is_wide<T>(args.base.hidden / args.base.heads, args.dqkv, args.base.k);
    return wide ? launch(row0_kernel<T, kWide<T>>) : launch(row0_kernel<T, 1>);
  });
}

cudaError_t delta_entry_query(const DeltaEntryQuery& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  const size_t bytes = kWarps * static_cast<size_t>(args.base.tokens) * sizeof(float);
  if (cudaError_t error = allow_shared(query_kernel, bytes); error != cudaSuccess) return error;
  PN_LAUNCH(query_kernel, dim3(blocks_for(args.candidates, kWarps)), dim3(kWarps * kWarp), bytes, stream, args);
  return cudaGetLastError();
}

cudaError_t delta_softmax_row0(const DeltaSoftmaxRow0& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const size_t bytes = kWarps * static_cast<size_t>(args.base.tokens) * sizeof(float);
    if (cudaError_t error = allow_shared(softmax_kernel<T>, bytes); error != cudaSuccess) return error;
    PN_LAUNCH((softmax_kernel<T>), dim3(blocks_for(args.candidates * args.base.heads, kWarps)), dim3(kWarps * kWarp), bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace pyneuro::cuda
