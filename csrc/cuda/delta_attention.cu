// Attention of a difference when every row changed, for any shape. A block serves one head of one candidate: the head's keys, values and their
// changes in shared memory where they fit, transposed so that a warp's lanes read neighbouring keys; a warp takes a few query rows at a time.
#include "cuda/softmax.cuh"

namespace pyneuro::cuda {

namespace {

constexpr int kWarps = 4;
constexpr int kRows = 4;  // query rows of a warp

// What a block keeps in shared memory, in floats: keys and values, base and changed, then for every warp its rows' queries and probabilities.
struct Layout {
  int64_t staged, per_warp;
  size_t bytes() const { return static_cast<size_t>(staged + kWarps * per_warp) * sizeof(float); }
};
__host__ __device__ inline Layout layout(int64_t s, int64_t e, bool staged) { return {staged ? 4 * s * e : 0, kRows * (2 * e + s)}; }

template <class T, bool Staged>
__global__ void __launch_bounds__(kWarps* kWarp) attention_kernel(DeltaAttention args) {
  PN_SHARED(float, shared);
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, e = d / base.heads, n = blockIdx.x, h = blockIdx.y, ld = args.candidates * 3 * d;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  const T* rows = static_cast<const T*>(args.dqkv) + n * 3 * d + h * e;
  float *keys = shared, *key_changes = keys + s * e, *values = key_changes + s * e, *value_changes = values + s * e;  // keys [e, S], values [S, e]
  if constexpr (Staged) {
    for (int64_t i = threadIdx.x; i < s * e; i += blockDim.x) {
      const int64_t t = i / e, j = i % e;
      keys[j * s + t] = base.k[t * d + h * e + j];
      key_changes[j * s + t] = to_float(rows[t * ld + d + j]);
      values[i] = base.v[t * d + h * e + j];
      value_changes[i] = to_float(rows[t * ld + 2 * d + j]);
    }
    __syncthreads();
  }
  const auto key = [&](int64_t t, int64_t j) { return Staged ? keys[j * s + t] : base.k[t * d + h * e + j]; };
  const auto key_change = [&](int64_t t, int64_t j) { return Staged ? key_changes[j * s + t] : to_float(rows[t * ld + d + j]); };
  const auto value = [&](int64_t t, int64_t j) { return Staged ? values[t * e + j] : base.v[t * d + h * e + j]; };
  const auto value_change = [&](int64_t t, int64_t j) { return Staged ? value_changes[t * e + j] : to_float(rows[t * ld + 2 * d + j]); };

  const Layout at = layout(s, e, Staged);
  float* queries = shared + at.staged + warp * at.per_warp;  // [e, kRows]  q + dq, true
  float* changes = queries + kRows * e;                      // [e, kRows]  dq, stored
  float* dp = changes + kRows * e;                           // [kRows, S]
  for (int64_t first = warp * kRows; first < s; first += kWarps * kRows) {
    for (int64_t i = lane; i < kRows * e; i += kWarp) {
      const int64_t j = i / kRows, t = first + i % kRows;
      const float dq = t < s ? to_float(rows[t * ld + j]) : 0.0f;
      queries[i] = t < s ? base.q[t * d + h * e + j] + unit * dq : 0.0f;
      changes[i] = dq;
    }
    __syncwarp();
    for (int64_t t = lane; t < s; t += kWarp) {
      float sums[kRows] = {};
      for (int64_t j = 0; j < e; ++j) {
        const float dk = key_change(t, j), k = key(t, j);
#pragma unroll
        for (int r = 0; r < kRows; ++r) sums[r] += queries[j * kRows + r] * dk + changes[j * kRows + r] * k;
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) dp[r * s + t] = sums[r] * base.scale * unit;
    }
    __syncwarp();
    const int64_t count = s - first < kRows ? s - first : kRows;
    for (int64_t r = 0; r < count; ++r) delta_softmax_row(base.p + (h * s + first + r) * s, dp + r * s, s);
    for (int64_t j = lane; j < e; j += kWarp) {
      float along_base[kRows] = {}, along_change[kRows] = {};
      for (int64_t t = 0; t < s; ++t) {
        const float v = value(t, j), dv = value_change(t, j);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r < count) {
            along_base[r] += dp[r * s + t] * v;
            along_change[r] += (base.p[(h * s + first + r) * s + t] + dp[r * s + t]) * dv;
          }
        }
      }
      for (int r = 0; r < kRows; ++r)
        if (r < count) static_cast<T*>(args.out)[((first + r) * args.candidates + n) * d + h * e + j] = from_float<T>(along_base[r] / unit + along_change[r]);
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
    const dim3 grid(static_cast<unsigned>(args.candidates), static_cast<unsigned>(base.heads));
    const int64_t e = base.hidden / base.heads;
    const auto launch = [&](auto kernel, size_t bytes) {
      if (cudaError_t error = allow_shared(kernel, bytes); error != cudaSuccess) return error;
      PN_LAUNCH(kernel, grid, dim3(kWarps * kWarp), bytes, stream, args);
      return cudaGetLastError();
    };
    const size_t staged = layout(base.tokens, e, true).bytes();
    return staged <= most_shared() / 2 ? launch(attention_kernel<T, true>, staged) : launch(attention_kernel<T, false>, layout(base.tokens, e, false).bytes());
  });
}

}  // namespace pyneuro::cuda
