// The part of the CUDA runtime that launchers call, and what the emulator keeps for a launch.
#pragma once
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "emulator/types.h"


using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

// A launch that a device would refuse aborts here, so there is never an error to report.
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) { return error == cudaSuccess ? "no error" : "invalid argument"; }

namespace emulator {

constexpr unsigned kWarp = 32, kMostThreads = 1024;
constexpr size_t kSharedByDefault = 48 << 10, kMostShared = 227 << 10;  // dynamic shared memory without and with cudaFuncSetAttribute, sm_90

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  std::va_list values;
  va_start(values, format);
  std::fputs("emulator: ", stderr);
  std::vfprintf(stderr, format, values);
  std::fputc('\n', stderr);
  va_end(values);
  std::abort();
}

inline unsigned lane() { return threadIdx.x % kWarp; }

// What a lane last gave to its warp. `turn` counts the lane's exchanges in this block and tells a value of this exchange from one that a returned
// lane left behind.
struct Slot {
  alignas(16) std::byte value[16];
  unsigned turn;
};

using WarpSlots = Slot[2][kWarp];
inline void forget(WarpSlots& slots) {
  for (auto& set : slots)
    for (Slot& slot : set) slot.turn = 0;
}

inline std::byte* dynamic_shared = nullptr;

inline std::mutex launching;                       // one launch at a time, whatever thread of the host it comes from
inline std::map<const void*, size_t> most_shared;  // [kernel] -> what cudaFuncSetAttribute granted it

}  // namespace emulator

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int value) {
  if (value < 0 || static_cast<size_t>(value) > emulator::kMostShared) return cudaErrorInvalidValue;
  const std::lock_guard lock(emulator::launching);
  emulator::most_shared[reinterpret_cast<const void*>(kernel)] = static_cast<size_t>(value);
  return cudaSuccess;
}
