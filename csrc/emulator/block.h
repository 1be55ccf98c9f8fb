// How a block runs on the host: its threads, its barriers and warp exchanges, and launches. See cuda_on_host.h.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#if defined(PN_EMULATE_THREADS)
#include <barrier>
#include <optional>
#include <thread>
#include <vector>
#elif defined(__SANITIZE_THREAD__)
#error "ThreadSanitizer cannot follow fibers: add -DPN_EMULATE_THREADS"
#else
#include "emulator/fibers.h"
#endif

#include "emulator/runtime.h"

// Launches: PN_LAUNCH((kernel<128>), grid, block, bytes of dynamic shared memory, stream, arguments...). Inside a kernel, PN_SHARED(float, rows)
// declares `float* rows`, the dynamic shared memory.
#define PN_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) ::emulator::launch(kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)
#define PN_SHARED(type, name) type* const name = reinterpret_cast<type*>(::emulator::dynamic_shared)

namespace emulator {

#if defined(PN_EMULATE_THREADS)

// Barriers are of one warp or of the block, not under one lock: ThreadSanitizer must not see an order that the kernel did not ask for.
struct Warp {
  WarpSlots slots;
  std::optional<std::barrier<>> lanes;
};
struct Block {
  std::array<Warp, kMostThreads / kWarp> warps;
  std::array<unsigned, kMostThreads> turns;
  std::optional<std::barrier<>> threads;
};
inline Block block;

inline void meet_block() { block.threads->arrive_and_wait(); }
inline void meet_warp(const char*) { block.warps[threadIdx.x / kWarp].lanes->arrive_and_wait(); }

// The threads of a launch. They take its blocks one after another.
class Team {
 public:
  Team(unsigned threads, void (*body)(const void*), const void* call) : turn_(threads + 1) {
    running_.reserve(threads);
    for (unsigned t = 0; t < threads; ++t) running_.emplace_back([=, this] { run_thread(t, body, call); });
  }
  ~Team() {
    over_ = true;
    turn_.arrive_and_wait();
    for (std::thread& thread : running_) thread.join();
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  void run_block() {
    const unsigned threads = blockDim.x;
    block.threads.emplace(threads);
    block.turns.fill(0);
    for (unsigned w = 0; w * kWarp < threads; ++w) {
      forget(block.warps[w].slots);
      block.warps[w].lanes.emplace(std::min(kWarp, threads - w * kWarp));
    }
    turn_.arrive_and_wait();
    turn_.arrive_and_wait();
  }

 private:
  void run_thread(unsigned t, void (*body)(const void*), const void* call) {
    threadIdx.x = t;
    for (;;) {
      turn_.arrive_and_wait();
      if (over_) return;
      body(call);
      block.threads->arrive_and_drop();  // the barriers to come do without this thread, as on sm_70 and later
      block.warps[t / kWarp].lanes->arrive_and_drop();
      turn_.arrive_and_wait();
    }
  }

  std::barrier<> turn_;
  bool over_ = false;
  std::vector<std::thread> running_;
};

#else

// ---- The threads of a block ----

// Sets of lanes as bits: every live lane is ready, or waits for its warp, or for the block.
struct Warp {
  WarpSlots slots;
  uint32_t live, ready, at_warp, at_block;
  const char* meeting;  // the collective that lanes wait at
};

struct Block {
  std::array<Warp, kMostThreads / kWarp> warps;
  std::array<unsigned, kMostThreads> turns;
  unsigned warp_count, live, at_block;
  uint32_t ready_warps;
  void (*body)(const void*);
  const void* call;
  unsigned schedule = 0;
  uint32_t random = 1;
  Fibers* fibers;
};
inline Block block;

[[noreturn]] inline void fail_deadlock() {
  std::map<std::string, unsigned> waiting;
  if (block.at_block) waiting["__syncthreads"] = block.at_block;
  for (unsigned w = 0; w < block.warp_count; ++w)
    if (block.warps[w].at_warp) waiting[block.warps[w].meeting] += static_cast<unsigned>(std::popcount(block.warps[w].at_warp));
  std::string where;
  for (const auto& [name, threads] : waiting) where.append(where.empty() ? "" : ", ").append(std::to_string(threads)).append(" at ").append(name);
  fail("deadlock in block (%u, %u, %u): of %u threads %u returned and the others wait for each other: %s", blockIdx.x, blockIdx.y, blockIdx.z, blockDim.x,
       blockDim.x - block.live, where.c_str());
}

inline unsigned draw(unsigned bound) {  // xorshift32
  block.random ^= block.random << 13;
  block.random ^= block.random >> 17;
  block.random ^= block.random << 5;
  return block.random % bound;
}

// The position of a bit of `set`, not empty, by the schedule.
inline unsigned pick(uint32_t set) {
  if (block.schedule == 0) return static_cast<unsigned>(std::countr_zero(set));
  if (block.schedule == 1) return 31u - static_cast<unsigned>(std::countl_zero(set));
  const unsigned from = draw(32);
  return (from + static_cast<unsigned>(std::countr_zero(std::rotr(set, static_cast<int>(from))))) % 32;
}

inline void run_next() {
  if (!block.ready_warps) fail_deadlock();
  const unsigned warp = pick(block.ready_warps);
  threadIdx.x = warp * kWarp + pick(block.warps[warp].ready);
  Context& next = (*block.fibers)[threadIdx.x];
  if (&next != running) switch_to(next);
}

inline void release(unsigned w, uint32_t& waiting) {
  if (!waiting) return;
  block.warps[w].ready |= waiting;
  block.ready_warps |= 1u << w;
  waiting = 0;
}
inline void release_warp_if_met(unsigned w) {
  if (block.warps[w].at_warp == block.warps[w].live) release(w, block.warps[w].at_warp);
}
inline void release_block_if_met() {
  if (block.at_block != block.live) return;
  for (unsigned w = 0; w < block.warp_count; ++w) release(w, block.warps[w].at_block);
  block.at_block = 0;
}
inline void stop_running(unsigned w) {
  block.warps[w].ready &= ~(1u << lane());
  if (!block.warps[w].ready) block.ready_warps &= ~(1u << w);
}

inline void meet_block() {
  const unsigned w = threadIdx.x / kWarp;
  stop_running(w);
  block.warps[w].at_block |= 1u << lane();
  ++block.at_block;
  release_block_if_met();
  run_next();
}

inline void meet_warp(const char* meeting) {
  const unsigned w = threadIdx.x / kWarp;
  Warp& warp = block.warps[w];
  if (!warp.at_warp) warp.meeting = meeting;
  else if (warp.meeting != meeting && std::strcmp(warp.meeting, meeting))
    fail("block (%u, %u, %u), thread %u is at %s, but lanes of its warp wait at %s", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, meeting, warp.meeting);
  stop_running(w);
  warp.at_warp |= 1u << lane();
  release_warp_if_met(w);
  run_next();
}

// The barriers to come do without this thread, as on sm_70 and later.
inline void retire() {
  const unsigned w = threadIdx.x / kWarp;
  stop_running(w);
  block.warps[w].live &= ~(1u << lane());
  --block.live;
  release_warp_if_met(w);
  release_block_if_met();
  if (block.live) run_next();
  else switch_to(launcher);
}

inline void fiber_main() {
  arrive(nullptr);
  for (;;) {
    block.body(block.call);
    retire();
  }
}

// The fibers of a launch. They take its blocks one after another.
class Team {
 public:
  Team(unsigned threads, void (*body)(const void*), const void* call) {
    const char* schedule = std::getenv("PN_EMULATOR_SCHEDULE");
    block.schedule = schedule ? static_cast<unsigned>(std::strtoul(schedule, nullptr, 10)) : 0;
    block.random = block.schedule * 2654435769u | 1u;
    block.body = body;
    block.call = call;
    block.fibers = &fibers();
    block.fibers->reserve(threads, fiber_main);
  }

  void run_block() {
    const unsigned threads = blockDim.x;
    block.warp_count = (threads + kWarp - 1) / kWarp;
    block.live = threads;
    block.at_block = 0;
    block.ready_warps = 0xffffffffu >> (32 - block.warp_count);
    block.turns.fill(0);
    for (unsigned w = 0; w < block.warp_count; ++w) {
      Warp& warp = block.warps[w];
      forget(warp.slots);
      warp.live = warp.ready = 0xffffffffu >> (kWarp - std::min(kWarp, threads - w * kWarp));
      warp.at_warp = warp.at_block = 0;
    }
    run_next();  // comes back when the last thread has returned
  }
};

#endif

// ---- Warp exchange ----

// Gives `value` to the warp and waits until all its lanes gave theirs. Two sets of slots in turn: no lane can give a second time from here on before all
// have given once more, and so have read this time's.
template <class T>
const Slot* give(const T& value, const char* meeting) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(Slot::value), "an exchanged value has up to 16 bytes");
  const unsigned turn = ++block.turns[threadIdx.x];
  Slot* slots = block.warps[threadIdx.x / kWarp].slots[turn % 2];
  std::memcpy(slots[lane()].value, &value, sizeof(T));
  slots[lane()].turn = turn;
  meet_warp(meeting);
  return slots;
}

// What a lane gave this time. Of a lane that returned, or that the block lacks, bytes 0xff.
template <class T>
T take(const Slot& slot) {
  T value;
  if (slot.turn == block.turns[threadIdx.x]) std::memcpy(static_cast<void*>(&value), slot.value, sizeof(T));
  else std::memset(static_cast<void*>(&value), 0xff, sizeof(T));
  return value;
}

// For host twins of inline PTX: the value of lane `source_lane`; and the values of all lanes, for the price of one meeting.
template <class T>
T exchange(T value, unsigned source_lane, const char* meeting = "emulator::exchange") {
  return take<T>(give(value, meeting)[source_lane % kWarp]);
}
template <class T>
std::array<T, kWarp> exchange_all(T value, const char* meeting = "emulator::exchange_all") {
  const Slot* slots = give(value, meeting);
  std::array<T, kWarp> values;
  for (unsigned l = 0; l < kWarp; ++l) values[l] = take<T>(slots[l]);
  return values;
}

// The lanes that vote `vote`; lanes that returned have none.
inline unsigned ballot(bool predicate, bool vote, const char* meeting) {
  const auto votes = exchange_all<uint32_t>(predicate, meeting);
  unsigned lanes = 0;
  for (unsigned l = 0; l < kWarp; ++l) lanes |= static_cast<unsigned>(votes[l] == static_cast<uint32_t>(vote)) << l;
  return lanes;
}

// What CUDA's shuffles take.
template <class T>
concept Shuffled = (std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8)) || std::is_same_v<T, __half> || std::is_same_v<T, __half2> ||
                   std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __nv_bfloat162>;

inline void check_mask(unsigned mask, const char* collective) {
  if (mask != 0xffffffffu) fail("%s with mask 0x%08x: only full masks are emulated", collective, mask);
}

// ---- Launch ----

inline void check_launch(const void* kernel, dim3 grid, dim3 block_size, size_t shared_bytes) {
  const auto granted = most_shared.find(kernel);
  const size_t most = std::max(kSharedByDefault, granted == most_shared.end() ? 0 : granted->second);
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) fail("launch of an empty grid (%u, %u, %u)", grid.x, grid.y, grid.z);
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    fail("launch of grid (%u, %u, %u), the most is (2^31 - 1, 65535, 65535)", grid.x, grid.y, grid.z);
  if (block_size.y != 1 || block_size.z != 1) fail("launch of block (%u, %u, %u): only 1-D blocks are emulated", block_size.x, block_size.y, block_size.z);
  if (block_size.x == 0 || block_size.x > kMostThreads) fail("launch of %u threads a block, allowed are 1 to %u", block_size.x, kMostThreads);
  if (shared_bytes > kMostShared) fail("launch with %zu bytes of dynamic shared memory, the most is %zu (227 KiB)", shared_bytes, kMostShared);
  if (shared_bytes > most)
    fail("launch with %zu bytes of dynamic shared memory, the kernel may have %zu: call cudaFuncSetAttribute(kernel, "
         "cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) first", shared_bytes, most);
}

inline void run_grid(const void* kernel, dim3 grid, dim3 block_size, size_t shared_bytes, void (*body)(const void*), const void* call) {
  const std::lock_guard lock(launching);
  check_launch(kernel, grid, block_size, shared_bytes);
  gridDim = grid;
  blockDim = block_size;
  // Of the exact size, so that AddressSanitizer sees an overrun. A device aligns it to 16 bytes at least, as malloc does.
  const std::unique_ptr<std::byte, void (*)(void*)> shared(shared_bytes ? static_cast<std::byte*>(std::malloc(shared_bytes)) : nullptr, std::free);
  dynamic_shared = shared.get();
  Team team(block_size.x, body, call);
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        if (shared_bytes) std::memset(dynamic_shared, 0xff, shared_bytes);
        team.run_block();
      }
  dynamic_shared = nullptr;
}

template <class... P, class... A>
void launch(void (*kernel)(P...), dim3 grid, dim3 block_size, size_t shared_bytes, cudaStream_t, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes all its arguments");
  static_assert((sizeof(P) + ... + 0) <= 4096, "a kernel's parameters have up to 4 KiB");
  struct Call {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
  };
  const Call call{kernel, std::tuple<P...>(std::forward<A>(arguments)...)};
  const auto body = [](const void* of) { std::apply(static_cast<const Call*>(of)->kernel, static_cast<const Call*>(of)->arguments); };
  run_grid(reinterpret_cast<const void*>(kernel), grid, block_size, shared_bytes, body, &call);
}

}  // namespace emulator
