// Pooler and classifier of a difference: with t = tanh(a) and tau = tanh(delta), tanh(a + delta) - t = tau (1 - t²) / (1 + t tau). In double:
// trained poolers saturate, and 1 - t² has few digits left in fp32. A warp a candidate.
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 4;

__global__ void __launch_bounds__(kWarps* kWarp) head_kernel(DeltaHead args) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, d = args.hidden;
  if (n >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  for (int64_t c = 0; c < args.classes; ++c) {
    double sum = 0.0;
    for (int64_t j = lane; j < d; j += kWarp) {
      const double tau = tanh(static_cast<double>(args.pooler[n * d + j])), t = args.pooled[j];
      sum += tau * (1.0 - t * t) / (1.0 + t * tau) * args.classifier[c * d + j];
    }
    sum = warp_sum(sum);
    if (lane == 0) args.out[n * args.classes + c] = sum;
  }
}

}  // namespace

cudaError_t delta_head(const DeltaHead& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  PN_LAUNCH(head_kernel, dim3(blocks_for(args.candidates, kWarps)), dim3(kWarps * kWarp), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pyneuro::cuda
