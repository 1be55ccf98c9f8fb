// Softmax difference of one row that a warp holds in shared memory. Formulas in pyneuro/delta.h.
#pragma once
#include "cuda/device.cuh"

namespace pyneuro::cuda {

// The score's change of the key that ends up likeliest, over the lanes.
__device__ __forceinline__ float shift_of_likeliest(float likeliest, float shift, int lanes) {
  for (int lane = lanes / 2; lane; lane >>= 1) {
    const float other = __shfl_xor_sync(kAllLanes, likeliest, lane), other_shift = __shfl_xor_sync(kAllLanes, shift, lane);
    if (other > likeliest) {
      likeliest = other;
      shift = other_shift;
    }
  }
  return shift;
}

// ds [n], true changes of the scores, become changes of the probabilities p [n].
__device__ __forceinline__ void delta_softmax_row(const float* p, float* ds, int64_t n) {
  const int lane = threadIdx.x % kWarp;
  float mean = 0.0f;
  for (int64_t j = lane; j < n; j += kWarp) mean += p[j] * expm1_fast(ds[j]);
  mean = warp_sum(mean);
  if (mean >= kLeastMean && mean <= kMostMean) {
    const float inverse = 1.0f / (1.0f + mean);
    for (int64_t j = lane; j < n; j += kWarp) ds[j] = delta_softmax(p[j], expm1_fast(ds[j]), mean, inverse);
  } else {
    float likeliest = -INFINITY, shift = 0.0f, z = 0.0f;
    for (int64_t j = lane; j < n; j += kWarp) {
      const float after = p[j] > 0.0f ? logf(p[j]) + ds[j] : -INFINITY;
      if (after > likeliest) {
        likeliest = after;
        shift = ds[j];
      }
    }
    shift = shift_of_likeliest(likeliest, shift, kWarp);
    for (int64_t j = lane; j < n; j += kWarp) {
      ds[j] = exp_fast(ds[j] - shift);
      z += p[j] * ds[j];
    }
    z = warp_sum(z);
    for (int64_t j = lane; j < n; j += kWarp) ds[j] = delta_softmax_far(p[j], ds[j], z);
  }
  __syncwarp();
}

}  // namespace pyneuro::cuda
