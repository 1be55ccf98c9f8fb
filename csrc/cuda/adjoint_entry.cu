// The linear method's entries: a patch through its own nonlinearity, times the adjoint that begins behind it.
#include "cuda/softmax.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 256;

// A warp's candidate: one neuron of Q or K.
struct Patched {
  int64_t number, neuron, head;
  double change;
  float step;  // of a score, for each unit of the other side's value
};
template <class Args>
__device__ __forceinline__ Patched patched(const Args& args, int64_t number) {
  const int64_t width = args.hidden / args.heads, neuron = args.index[number];
  const double change = args.change[number];
  return {number, neuron, neuron / width, change, static_cast<float>(change / sqrt(static_cast<double>(width)))};
}
__device__ __forceinline__ int64_t warp_number() { return static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp; }

__global__ void __launch_bounds__(kWarps* kWarp) adjoint_query_kernel(AdjointQuery args) {
  PN_SHARED(float, shared);
  const int64_t s = args.tokens, d = args.hidden, g_all = args.differences;
  if (warp_number() >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  const Patched c = patched(args, warp_number());
  const float *p = args.p + c.head * s * s, *k = args.k + c.neuron;
  float* dp = shared + threadIdx.x / kWarp * s;
  float mean = 0.0f, spread = 0.0f;
  for (int64_t key = lane; key < s; key += kWarp) {
    dp[key] = c.step * k[key * d];
    mean += p[key] * k[key * d];
  }
  mean = warp_sum(mean);
  for (int64_t key = lane; key < s; key += kWarp) spread += p[key] * (k[key * d] - mean) * (k[key * d] - mean);
  spread = warp_sum(spread);
  __syncwarp();
  delta_softmax_row(p, dp, s);
  double* out = args.out + c.number * (g_all + 1);
  for (int64_t g = 0; g < g_all; ++g) {
    const float* along = args.along + (c.head * g_all + g) * s;
    float moved = 0.0f;
    for (int64_t key = lane; key < s; key += kWarp) moved += dp[key] * along[key];
    moved = warp_sum(moved);
    if (lane == 0) out[g] = moved;
  }
  if (lane == 0) out[g_all] = static_cast<double>(args.strength[c.head] * spread) * c.change * c.change;
}

__global__ void __launch_bounds__(kWarps* kWarp) adjoint_key_kernel(AdjointKey args) {
  const int64_t s = args.tokens, d = args.hidden, g_all = args.differences;
  if (warp_number() >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  const Patched c = patched(args, warp_number());
  const float *q = args.q + c.neuron, *p = args.p + c.head * s * s, *rest = args.rest + c.head * s, *strength = args.strength + c.head * s;
  double* out = args.out + c.number * (g_all + 1);
  for (int64_t g = 0; g < g_all; ++g) {
    const float *along_rest = args.along_rest + (c.head * g_all + g) * s, *along_first = args.along_first + (c.head * g_all + g) * s;
    float moved = 0.0f;
    for (int64_t t = lane; t < s; t += kWarp) {
      const PatchedKeyWeights w = patched_key_weights(p[t * s], rest[t], c.step * q[t * d]);
      moved += w.context * along_rest[t] + w.base * along_first[t];
    }
    moved = warp_sum(moved);
    if (lane == 0) out[g] = moved;
  }
  float spread = 0.0f;
  for (int64_t t = lane; t < s; t += kWarp) spread += strength[t] * p[t * s] * (1.0f - p[t * s]) * q[t * d] * q[t * d];
  spread = warp_sum(spread);
  if (lane == 0) out[g_all] = static_cast<double>(spread) * c.change * c.change;
}

// A thread a candidate.
__global__ void __launch_bounds__(kThreads) adjoint_norm_kernel(AdjointNorm args) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, g_all = args.differences, w = args.directions;
  if (n >= args.candidates) return;
  const int64_t at = args.index[n];
  const double change = args.change[n], rstd = args.facts[0];
  const double q = rstd * rstd * (2.0 * change * args.products[at] + change * change * args.squares[at]) / static_cast<double>(args.hidden), s = sqrt(1.0 + q);
  const double kept = rstd / s, pulled = rstd * q / (s * (1.0 + s));
  double* out = args.out + n * (g_all + 1);
  for (int64_t g = 0; g < g_all; ++g) out[g] = change * args.products[(1 + g) * w + at] * kept - pulled * args.facts[2 + g];
  out[g_all] = args.facts[1] * change * change;
}

}  // namespace

cudaError_t adjoint_query(const AdjointQuery& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  const size_t bytes = kWarps * static_cast<size_t>(args.tokens) * sizeof(float);
  if (cudaError_t error = allow_shared(adjoint_query_kernel, bytes); error != cudaSuccess) return error;
  PN_LAUNCH(adjoint_query_kernel, dim3(blocks_for(args.candidates, kWarps)), dim3(kWarps * kWarp), bytes, stream, args);
  return cudaGetLastError();
}

cudaError_t adjoint_key(const AdjointKey& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  PN_LAUNCH(adjoint_key_kernel, dim3(blocks_for(args.candidates, kWarps)), dim3(kWarps * kWarp), 0, stream, args);
  return cudaGetLastError();
}

cudaError_t adjoint_norm(const AdjointNorm& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  PN_LAUNCH(adjoint_norm_kernel, dim3(blocks_for(args.candidates, kThreads)), dim3(kThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pyneuro::cuda
