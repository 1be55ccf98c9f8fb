// Differences that enter in fp32 take up their units: the largest entry of a candidate's row is stored between 8 and 16. A warp a candidate.
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8;
constexpr float kStoredSize = 16.0f;  // STORED_SIZE in pyneuro/ops/reference.py

__global__ void __launch_bounds__(kWarps* kWarp) units_kernel(DeltaUnits args) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, d = args.hidden;
  if (n >= args.candidates) return;
  const int lane = threadIdx.x % kWarp;
  const float* row = args.true_values + n * d;
  float size = 0.0f;
  for (int64_t j = lane; j < d; j += kWarp) size = fmaxf(size, fabsf(row[j]));
  for (int other = kWarp / 2; other; other >>= 1) size = fmaxf(size, __shfl_xor_sync(kAllLanes, size, other));
  float unit = 1.0f;
  if (size > 0.0f && size < INFINITY) {
    int exponent = 0;
    const float mantissa = frexpf(size, &exponent);
    unit = ldexpf(1.0f / kStoredSize, mantissa > 0.5f ? exponent : exponent - 1);
    if (unit == 0.0f) unit = 1.0f;
  }
  __half* out = static_cast<__half*>(args.stored) + n * d;
  for (int64_t j = lane; j < d; j += kWarp) out[j] = from_float<__half>(row[j] / unit);
  if (lane == 0) args.unit[n] = unit;
}

}  // namespace

cudaError_t delta_units(const DeltaUnits& args, cudaStream_t stream) {
  if (args.candidates == 0) return cudaSuccess;
  PN_LAUNCH(units_kernel, dim3(blocks_for(args.candidates, kWarps)), dim3(kWarps * kWarp), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pyneuro::cuda
