// What every kernel file begins with: the CUDA runtime, or its stand-in on the host, and how differences are stored.
#pragma once
#if defined(PN_EMULATE)
#include "emulator/cuda_on_host.h"
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define PN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#define PN_SHARED(type, name)                                   \
  extern __shared__ __align__(16) unsigned char shared_bytes[]; \
  type* const name = reinterpret_cast<type*>(shared_bytes)
#endif

#include "pyneuro/cuda.h"
#include "pyneuro/delta.h"

namespace pyneuro::cuda {

#if defined(PN_EMULATE)
constexpr bool kEmulated = true;  // where every path is to be taken at sizes that the host can run
#else
constexpr bool kEmulated = false;
#endif
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// Values of a warp's vector access: 16 bytes, or one value where rows are not aligned.
template <class T>
constexpr int kWide = 16 / sizeof(T);

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

// W values at p, aligned to all of them.
template <int W>
__device__ __forceinline__ void load(const float* p, float (&x)[W]) {
  if constexpr (W % 4 == 0) {
    for (int i = 0; i < W; i += 4) {
      const float4 v = *reinterpret_cast<const float4*>(p + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  } else {
    for (int i = 0; i < W; ++i) x[i] = p[i];
  }
}
// Eight halves as they come from memory.
__device__ __forceinline__ void unpack(const uint4& v, float (&x)[8]) {
  const unsigned parts[4] = {v.x, v.y, v.z, v.w};
  for (int i = 0; i < 4; ++i) {
    __half2 pair;
    memcpy(&pair, &parts[i], sizeof pair);
    const float2 f = __half22float2(pair);
    x[2 * i] = f.x, x[2 * i + 1] = f.y;
  }
}
template <int W>
__device__ __forceinline__ void load(const __half* p, float (&x)[W]) {
  if constexpr (W == 8) {
    unpack(*reinterpret_cast<const uint4*>(p), x);
  } else {
    for (int i = 0; i < W; ++i) x[i] = __half2float(p[i]);
  }
}
template <int W>
__device__ __forceinline__ void store(float* p, const float (&x)[W]) {
  if constexpr (W % 4 == 0) {
    for (int i = 0; i < W; i += 4) *reinterpret_cast<float4*>(p + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
  } else {
    for (int i = 0; i < W; ++i) p[i] = x[i];
  }
}
template <int W>
__device__ __forceinline__ void store(__half* p, const float (&x)[W]) {
  if constexpr (W == 8) {
    unsigned parts[4];
    for (int i = 0; i < 4; ++i) {
      const __half2 pair = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
      memcpy(&parts[i], &pair, sizeof pair);
    }
    *reinterpret_cast<uint4*>(p) = make_uint4(parts[0], parts[1], parts[2], parts[3]);
  } else {
    for (int i = 0; i < W; ++i) p[i] = __float2half_rn(x[i]);
  }
}

__device__ __forceinline__ float warp_sum(float x) {
  for (int lane = kWarp / 2; lane; lane >>= 1) x += __shfl_xor_sync(kAllLanes, x, lane);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
  for (int lane = kWarp / 2; lane; lane >>= 1) x += __shfl_xor_sync(kAllLanes, x, lane);
  return x;
}

// Whether rows of `columns` values at these addresses can be read 16 bytes at a time.
template <class T, class... Pointers>
bool is_wide(int64_t columns, Pointers... p) {
  return columns % kWide<T> == 0 && ((reinterpret_cast<uintptr_t>(p) % 16 == 0) && ...);
}

// Lets a kernel have this much dynamic shared memory.
template <class Kernel>
cudaError_t allow_shared(Kernel kernel, size_t bytes) {
  return bytes <= 48 * 1024 ? cudaSuccess : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

// Shared memory that a block may have on this device: 163 KiB on sm_80, 227 KiB on sm_90 and sm_100.
inline size_t most_shared() {
#if defined(PN_EMULATE)
  return emulator::kMostShared;
#else
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) return 48 * 1024;
  return static_cast<size_t>(bytes);
#endif
}

inline unsigned blocks_for(int64_t work, int64_t each) { return static_cast<unsigned>((work + each - 1) / each); }

// Calls launch with a null pointer of the type that differences are stored in.
template <class Launch>
cudaError_t for_storage(Storage storage, Launch launch) {
  return storage == Storage::fp16 ? launch(static_cast<__half*>(nullptr)) : launch(static_cast<float*>(nullptr));
}

}  // namespace pyneuro::cuda
