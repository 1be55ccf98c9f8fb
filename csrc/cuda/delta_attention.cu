// Attention of a difference when every row changed, for any shape: a warp a query row, its scores in shared memory.
#include "cuda/norm.cuh"
#include "cuda/softmax.cuh"

namespace pyneuro::cuda {

cudaError_t delta_attention_on_tensor_cores(const DeltaAttention&, cudaStream_t);

namespace {

constexpr int kWarps = 4;

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) attention_kernel(DeltaAttention args) {
  PN_SHARED(float, shared);
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads, n = blockIdx.x, h = blockIdx.y, ld = args.candidates * 3 * d;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  float* query = shared + warp * (2 * e + s);  // q + dq, true, and dq, stored
  float* dp = query + 2 * e;
  const T* rows = static_cast<const T*>(args.dqkv) + n * 3 * d + h * e;
  for (int64_t t = warp; t < s; t += kWarps) {
    for (int64_t j = lane; j < e; j += kWarp) {
      const float dq = to_float(rows[t * ld + j]);
      query[j] = base.q[t * d + h * e + j] + unit * dq;
      query[e + j] = dq;
    }
    __syncwarp();
    for (int64_t key = lane; key < s; key += kWarp) {
      const T* dk = rows + key * ld + d;
      const float* k = base.k + key * d + h * e;
      float sum = 0.0f;
      for (int64_t j = 0; j < e; ++j) sum += query[j] * to_float(dk[j]) + query[e + j] * k[j];
      dp[key] = sum * base.scale * unit;
    }
    __syncwarp();
    const float* p = base.p + (h * s + t) * s;
    delta_softmax_row(p, dp, s);
    for (int64_t j = lane; j < e; j += kWarp) {
      float along_base = 0.0f, along_change = 0.0f;
      for (int64_t key = 0; key < s; ++key) {
        along_base += dp[key] * base.v[key * d + h * e + j];
        along_change += (p[key] + dp[key]) * to_float(rows[key * ld + 2 * d + j]);
      }
      static_cast<T*>(args.out)[(t * args.candidates + n) * d + h * e + j] = from_float<T>(along_base / unit + along_change);
    }
    __syncwarp();
  }
}

}  // namespace

cudaError_t delta_attention(const DeltaAttention& args, cudaStream_t stream) {
  const AttentionBase& base = args.base;
  if (args.candidates == 0) return cudaSuccess;
  if (delta_attention_has_tensor_core_kernel(args)) return delta_attention_on_tensor_cores(args, stream);
  return for_storage(args.storage, [&]<class T>(T*) {
    const size_t bytes = kWarps * static_cast<size_t>(2 * base.hidden / base.heads + base.tokens) * sizeof(float);
    if (cudaError_t error = allow_shared(attention_kernel<T>, bytes); error != cudaSuccess) return error;
    const dim3 grid(static_cast<unsigned>(args.candidates), static_cast<unsigned>(base.heads));
    PN_LAUNCH((attention_kernel<T>), grid, dim3(kWarps * kWarp), bytes, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace pyneuro::cuda
