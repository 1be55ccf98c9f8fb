// Weights of the rank-3H change of the rows that only attend to a changed row 0; formula in pyneuro/delta.h. A thread a (token, candidate, head).
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
__global__ void __launch_bounds__(kThreads) weights_kernel(DeltaLowRankWeights args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, heads = base.heads, n_all = args.candidates, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= s * n_all * heads) return;
  const int64_t h = at % heads, n = at / heads % n_all, token = at / heads / n_all;
  const float unit = args.unit == nullptr ? 1.0f : args.unit[n];
  const float ds = to_float(static_cast<const T*>(args.scores)[(h * s + token) * n_all + n]) * base.scale * unit;
  const PatchedKeyWeights weights = patched_key_weights(base.p[(h * s + token) * s], args.rest[h * s + token], ds);
  T* along_base = static_cast<T*>(args.along_base) + (token * n_all + n) * args.ld_base;
  along_base[h] = from_float<T>(weights.context / unit);
  along_base[heads + h] = from_float<T>(weights.base / unit);
  static_cast<T*>(args.along_change)[(n * s + token) * args.ld_change + h] = from_float<T>(weights.value);
}

}  // namespace

cudaError_t delta_low_rank_weights(const DeltaLowRankWeights& args, cudaStream_t stream) {
  const int64_t work = args.base.tokens * args.candidates * args.base.heads;
  if (work == 0) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    PN_LAUNCH((weights_kernel<T>), dim3(blocks_for(work, kThreads)), dim3(kThreads), 0, stream, args);
    return cudaGetLastError();
  });
}

}  // namespace pyneuro::cuda
