// Runs the project's CUDA kernels on the host, for tests: a .cu file includes this in place of the CUDA headers and compiles as C++20 (g++ -x c++
// -DPN_EMULATE). Blocks run one after another. The threads of a block are fibers that change over only where the kernel waits (__syncthreads, warp
// collectives) or returns, so every run of a schedule is the same run:
//
//   PN_EMULATOR_SCHEDULE=0    the lowest thread that can go on goes on: thread 0 gets as far ahead as the barriers let it (default)
//   PN_EMULATOR_SCHEDULE=1    the highest
//   PN_EMULATOR_SCHEDULE=n    a thread drawn at each change, n > 1 the seed
//
// A missing barrier shows as a wrong value under some schedule (dynamic shared memory starts as NaN), a missed one as a deadlock that says who waits
// where, an overrun of shared memory under AddressSanitizer. With -DPN_EMULATE_THREADS threads are std::thread, for ThreadSanitizer: the machine decides
// their order, and a deadlock hangs.
//
// Narrower than CUDA: 1-D blocks, full-mask warp collectives. Blocks never overlap, so races between them do not show; __shared__ arrays, unlike dynamic
// shared memory, hold what the last block left, so there a missing barrier shows where blocks differ, and to ThreadSanitizer.
#pragma once
#include <atomic>
#include <bit>
#include <cmath>
#include <type_traits>

#include "emulator/block.h"
#include "emulator/types.h"


inline void __syncthreads() { emulator::meet_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::check_mask(mask, "__syncwarp");
  emulator::meet_warp("__syncwarp");
}
inline void __threadfence() {}

template <emulator::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source) {
  emulator::check_mask(mask, "__shfl_sync");
  return emulator::exchange(value, static_cast<unsigned>(source), "__shfl_sync");
}
template <emulator::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
  emulator::check_mask(mask, "__shfl_xor_sync");
  return emulator::exchange(value, emulator::lane() ^ static_cast<unsigned>(lanes), "__shfl_xor_sync");
}
template <emulator::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  emulator::check_mask(mask, "__shfl_down_sync");
  const unsigned source = emulator::lane() + delta;
  return emulator::exchange(value, source < 32 ? source : emulator::lane(), "__shfl_down_sync");
}
template <emulator::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  emulator::check_mask(mask, "__shfl_up_sync");
  return emulator::exchange(value, emulator::lane() >= delta ? emulator::lane() - delta : emulator::lane(), "__shfl_up_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  emulator::check_mask(mask, "__ballot_sync");
  return emulator::ballot(predicate != 0, true, "__ballot_sync");
}
inline int __any_sync(unsigned mask, int predicate) {
  emulator::check_mask(mask, "__any_sync");
  return emulator::ballot(predicate != 0, true, "__any_sync") != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  emulator::check_mask(mask, "__all_sync");
  return emulator::ballot(predicate != 0, false, "__all_sync") == 0;
}

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T atomicAdd(T* to, std::type_identity_t<T> value) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                std::is_same_v<T, unsigned long long>, "CUDA has no atomicAdd of this type");
  return std::atomic_ref<T>(*to).fetch_add(value, std::memory_order_relaxed);
}

// The C library has some of these names, hence macros.
namespace emulator {
inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }
inline float exp(float x) { return std::exp(x); }
inline float divide(float x, float y) { return x / y; }
}  // namespace emulator
#define rsqrtf(x) ::emulator::reciprocal_root(x)
#define __expf(x) ::emulator::exp(x)
#define __fdividef(x, y) ::emulator::divide(x, y)

inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
