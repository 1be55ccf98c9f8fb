// A weight under a mask, for the product that follows; the mask as bits, or decided from scores and its bits written. A thread takes the eight
// entries of a byte.
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) mask_kernel(MaskWeight args) {
  const int64_t bytes = (args.in + 7) / 8, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= args.out * bytes) return;
  const int64_t row = at / bytes, first = at % bytes * 8;
  const int count = args.in - first < 8 ? static_cast<int>(args.in - first) : 8;
  const int64_t entry = row * args.in + first;
  unsigned bits = 0;
  if (args.scores != nullptr) {
    for (int i = 0; i < count; ++i) bits |= static_cast<unsigned>(args.scores[entry + i] > args.threshold) << i;
    args.bits[at] = static_cast<uint8_t>(bits);
  } else {
    bits = args.bits[at];
  }
  if (args.masked == nullptr) return;
  const T* weight = static_cast<const T*>(args.weight) + entry;
  T* masked = static_cast<T*>(args.masked) + entry;
  for (int i = 0; i < count; ++i) masked[i] = bits >> i & 1 ? weight[i] : T(0);
}

}  // namespace

cudaError_t mask_weight(const MaskWeight& args, cudaStream_t stream) {
  const int64_t bytes = args.out * ((args.in + 7) / 8);
  if (bytes == 0) return cudaSuccess;
  if (args.two_bytes) {
    PN_LAUNCH((mask_kernel<uint16_t>), dim3(blocks_for(bytes, kThreads)), dim3(kThreads), 0, stream, args);
  } else {
    PN_LAUNCH((mask_kernel<uint32_t>), dim3(blocks_for(bytes, kThreads)), dim3(kThreads), 0, stream, args);
  }
  return cudaGetLastError();
}

}  // namespace pyneuro::cuda
