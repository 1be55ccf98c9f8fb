// Proves the emulator that the CUDA kernels are tested under (csrc/emulator/cuda_on_host.h). Without an argument: small kernels give the right values
// under every schedule. With the name of a planted fault: the fault must be caught, or tests that pass under the emulator would mean nothing.
//
//   --missing-barrier  exits 3 where a schedule shows it; with -DPN_EMULATE_THREADS ThreadSanitizer must report it
//   --out-of-bounds    AddressSanitizer must stop it
//   --deadlock, --mixed-collectives, --partial-mask, --wide-block, --large-shared, --ungranted-shared, --empty-grid, --tall-grid  must abort
#include "emulator/cuda_on_host.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr unsigned kAll = 0xffffffffu;
int failures = 0;

void check(bool holds, const char* what, const std::string& at = "") {
  if (holds) return;
  std::fprintf(stderr, "wrong: %s%s%s\n", what, at.empty() ? "" : ", ", at.c_str());
  ++failures;
}

void use_schedule(unsigned schedule) { setenv("PN_EMULATOR_SCHEDULE", std::to_string(schedule).c_str(), 1); }

// ---- Reductions ----

// y[block] = sum of the block's row of x [blocks, columns], through warp shuffles and shared memory. Without the barrier thread 0 may read what the
// other warps have yet to write.
template <bool kBarrier>
__global__ void __launch_bounds__(1024) sum_rows(const float* __restrict__ x, float* __restrict__ y, int columns) {
  PN_SHARED(float, parts);  // [warps]
  const unsigned row = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x, warps = (blockDim.x + 31) / 32;
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < columns; i += static_cast<int>(blockDim.x)) sum += x[row * static_cast<unsigned>(columns) + i];
  for (unsigned delta = 16; delta; delta /= 2) {
    const float other = __shfl_down_sync(kAll, sum, delta);
    if (threadIdx.x + delta < blockDim.x) sum += other;  // the last warp may be short
  }
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
  if (kBarrier) __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0.0f;
    for (unsigned w = 0; w < warps; ++w) total += parts[w];
    y[row] = total;
  }
}

// Small integers, so that a sum is exact in any order.
template <bool kBarrier>
int wrong_sums(unsigned threads, dim3 grid) {
  const unsigned rows = grid.x * grid.y * grid.z, columns = 201;
  std::vector<float> x(rows * columns), y(rows, -1.0f), expected(rows, 0.0f);
  for (unsigned i = 0; i < x.size(); ++i) expected[i / columns] += x[i] = static_cast<float>((i * 37 + 11) % 101);
  PN_LAUNCH((sum_rows<kBarrier>), grid, threads, (threads + 31) / 32 * sizeof(float), nullptr, x.data(), y.data(), columns);
  int wrong = 0;
  for (unsigned r = 0; r < rows; ++r) wrong += y[r] != expected[r];
  return wrong;
}

// Every thread adds its index to all four.
__global__ void add_all(float* f, double* d, int* i, unsigned* u) {
  const unsigned index = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(f, static_cast<float>(index));
  atomicAdd(d, index);
  atomicAdd(i, static_cast<int>(index));
  atomicAdd(u, index);
}

void check_reductions(const std::string& at) {
  for (unsigned threads : {1u, 31u, 32u, 33u, 100u, 256u})
    check(wrong_sums<true>(threads, dim3(3, 2, 2)) == 0, "block reduction", at + std::to_string(threads));
#if !defined(PN_EMULATE_THREADS)
  check(wrong_sums<true>(1024, 2) == 0, "block reduction of 1024 threads", at);
#endif
  float f = 0;
  double d = 0;
  int i = 0;
  unsigned u = 0;
  PN_LAUNCH(add_all, 2, 70, 0, nullptr, &f, &d, &i, &u);
  check(f == 9730 && d == 9730 && i == 9730 && u == 9730, "atomicAdd", at);
}

// ---- Warp collectives ----

struct Collectives {
  int xored, shuffled, down, up, fetched, any, none, all, most;
  unsigned ballot;
  double wide;
};
__global__ void run_collectives(Collectives* out) {
  const int lane = static_cast<int>(threadIdx.x % 32), thread = static_cast<int>(threadIdx.x);
  Collectives& c = out[thread];
  c.xored = __shfl_xor_sync(kAll, thread, 5);
  c.shuffled = __shfl_sync(kAll, thread, 33);  // the lane counts modulo 32
  c.down = __shfl_down_sync(kAll, thread, 3);
  c.up = __shfl_up_sync(kAll, thread, 3);
  c.ballot = __ballot_sync(kAll, lane % 3 == 0);
  c.any = __any_sync(kAll, lane == 31);
  c.none = __any_sync(kAll, lane == 32);
  __syncwarp();
  c.all = __all_sync(kAll, lane < 32);
  c.most = __all_sync(kAll, lane < 31);
  c.wide = __shfl_xor_sync(kAll, thread + 0.5, 16);
  const auto fragments = emulator::exchange_all(make_uint4(0, 1, 2, threadIdx.x));
  c.fetched = static_cast<int>(fragments[7].w + emulator::exchange(threadIdx.x, 31 - emulator::lane()));
}

void check_collectives(const std::string& at) {
  std::vector<Collectives> out(64);
  PN_LAUNCH(run_collectives, 1, 64, 0, nullptr, out.data());
  for (int t = 0; t < 64; ++t) {
    const Collectives& c = out[static_cast<size_t>(t)];
    const int lane = t % 32, first = t - lane;
    check(c.xored == first + (lane ^ 5) && c.shuffled == first + 1 && c.wide == first + (lane ^ 16) + 0.5, "__shfl_xor_sync, __shfl_sync", at);
    check(c.down == (lane < 29 ? t + 3 : t) && c.up == (lane < 3 ? t : t - 3), "__shfl_down_sync, __shfl_up_sync", at);
    check(c.ballot == 0x49249249u && c.any && !c.none && c.all && !c.most, "votes", at);
    check(c.fetched == first + 7 + first + 31 - lane, "exchange", at);
  }
}

// Of 96 threads 40 stay: warp 1 goes on with 8 lanes, warp 2 with none.
__global__ void leave_early(float* seen, unsigned* present) {
  if (threadIdx.x >= 40) return;
  PN_SHARED(float, values);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  __syncthreads();
  seen[threadIdx.x] = __shfl_xor_sync(kAll, values[39 - threadIdx.x], 8);
  present[threadIdx.x] = __ballot_sync(kAll, 1);
  __syncthreads();
}

void check_early_exit(const std::string& at) {
  std::vector<float> seen(40);
  std::vector<unsigned> present(40);
  PN_LAUNCH(leave_early, 2, 96, 40 * sizeof(float), nullptr, seen.data(), present.data());
  for (unsigned t = 0; t < 40; ++t) {
    check(t < 32 ? seen[t] == static_cast<float>(39 - (t ^ 8)) : std::isnan(seen[t]), "the value of a lane that returned is NaN", at);
    check(present[t] == (t < 32 ? kAll : 0xffu), "lanes that returned do not vote", at);
  }
}

// ---- Schedules and memory ----

#if !defined(PN_EMULATE_THREADS)
__global__ void note_order(int* next, int* order) { order[atomicAdd(next, 1)] = static_cast<int>(threadIdx.x); }

std::vector<int> order_of(unsigned schedule) {
  use_schedule(schedule);
  std::vector<int> order(64);
  int next = 0;
  PN_LAUNCH(note_order, 1, 64, 0, nullptr, &next, order.data());
  return order;
}

void check_schedules() {
  const std::vector<int> forward = order_of(0), backward = order_of(1), drawn = order_of(2);
  bool in_order = true, reversed = true;
  for (int t = 0; t < 64; ++t) {
    in_order = in_order && forward[static_cast<size_t>(t)] == t;
    reversed = reversed && backward[static_cast<size_t>(t)] == 63 - t;
  }
  check(in_order && reversed, "schedules 0 and 1 run threads in order and in reverse");
  check(drawn != forward && drawn != backward && drawn != order_of(3) && drawn == order_of(2), "schedules 2 and 3 are drawn, and the same again");
}
#endif

__global__ void read_unwritten(float* out) {
  PN_SHARED(float, values);
  __shared__ int written;
  out[threadIdx.x] = values[threadIdx.x];
  __syncthreads();
  values[threadIdx.x] = 1.0f;
  if (threadIdx.x == 0) written = static_cast<int>(blockIdx.x);
  __syncthreads();
  if (written != static_cast<int>(blockIdx.x)) out[threadIdx.x] = 1.0f;
}

void check_memory() {
  std::vector<float> out(32, 0.0f);
  PN_LAUNCH(read_unwritten, 2, 32, 32 * sizeof(float), nullptr, out.data());
  for (float value : out) check(std::isnan(value), "dynamic shared memory is NaN at the beginning of each block");
  check(alignof(float4) == 16 && alignof(uint4) == 16 && alignof(int4) == 16 && alignof(float2) == 8 && alignof(uint2) == 8, "alignment of vectors");
  check(sizeof(__half) == 2 && sizeof(__half2) == 4 && alignof(__half2) == 4 && sizeof(__nv_bfloat16) == 2, "sizes of half and bfloat16");

  check(cudaFuncSetAttribute(read_unwritten, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10) == cudaErrorInvalidValue, "228 KiB are refused");
  check(cudaFuncSetAttribute(read_unwritten, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10) == cudaSuccess, "227 KiB are granted");
  PN_LAUNCH(read_unwritten, 1, 32, 227 << 10, nullptr, out.data());
}

// ---- Conversions, against values from the definition of the formats ----

struct Format {
  int mantissa_bits, bias;
  uint16_t infinity;
  float (*to_float)(uint16_t);
  uint16_t (*from_float)(float);
  const char* name;
};

// The magnitude of a pattern; of the first one that is no number, what it would be if the exponent went on.
double magnitude(const Format& format, int pattern) {
  const int exponent = pattern >> format.mantissa_bits, mantissa = pattern & ((1 << format.mantissa_bits) - 1), least = 1 - format.bias - format.mantissa_bits;
  return exponent == 0 ? std::ldexp(mantissa, least) : std::ldexp(mantissa + (1 << format.mantissa_bits), least + exponent - 1);
}

void check_conversions(const Format& format) {
  for (int pattern = 0; pattern <= 0xffff; ++pattern) {
    const int positive = pattern & 0x7fff, sign = pattern & 0x8000;
    const float value = format.to_float(static_cast<uint16_t>(pattern));
    bool right;
    if (positive > format.infinity) {
      right = std::isnan(value) && format.from_float(value) == 0x7fff;
    } else if (positive == format.infinity) {
      right = std::isinf(value) && std::signbit(value) == (sign != 0) && format.from_float(value) == pattern;
    } else {
      // What lies halfway to the next value goes to the even one, what lies to its sides goes to its side.
      const double exact = magnitude(format, positive), middle = (exact + magnitude(format, positive + 1)) / 2;
      const float tie = static_cast<float>(sign ? -middle : middle);
      const int even = positive + positive % 2;
      right = value == (sign ? -exact : exact) && std::signbit(value) == (sign != 0) && format.from_float(value) == pattern &&
              format.from_float(tie) == (even | sign) && format.from_float(std::nextafter(tie, 0.0f)) == pattern &&
              format.from_float(std::nextafter(tie, sign ? -INFINITY : INFINITY)) == ((positive + 1) | sign);
    }
    check(right, format.name, std::to_string(pattern));
  }
}

#if defined(__FLT16_MAX__)
// The compiler's own half, at floats all over the range.
void check_against_compiler() {
  for (uint64_t i = 0; i < uint64_t{1} << 32; i += 65521) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(i));
    if (!std::isnan(x)) check(__half_as_ushort(__float2half_rn(x)) == std::bit_cast<uint16_t>(static_cast<_Float16>(x)), "half as the compiler has it");
  }
}
#endif

void check_numbers() {
  check_conversions({10, 15, 0x7c00, [](uint16_t bits) { return __half2float(__ushort_as_half(bits)); },
                     [](float x) { return static_cast<uint16_t>(__half_as_ushort(__float2half_rn(x))); }, "half"});
  check_conversions({7, 127, 0x7f80, [](uint16_t bits) { return __bfloat162float(__ushort_as_bfloat16(bits)); },
                     [](float x) { return static_cast<uint16_t>(__bfloat16_as_ushort(__float2bfloat16_rn(x))); }, "bfloat16"});
#if defined(__FLT16_MAX__)
  check_against_compiler();
#endif
  const __half2 pair = __floats2half2_rn(1.5f, -2.0f), same = __halves2half2(__float2half_rn(1.5f), __float2half_rn(-2.0f));
  check(std::memcmp(&pair, &same, sizeof pair) == 0 && __low2float(pair) == 1.5f && __half22float2(pair).y == -2.0f && __high2float(pair) == -2.0f, "__half2");
  check(rsqrtf(4.0f) == 0.5f && __expf(0.0f) == 1.0f && __fdividef(1.0f, 4.0f) == 0.25f && min(2, 1) == 1 && max(2.0f, 1.0f) == 2.0f, "functions");
  check(__popc(0xf0u) == 4 && __uint_as_float(__float_as_uint(3.0f)) == 3.0f && __int_as_float(0) == 0.0f, "bits");
}

// ---- Planted faults ----

__global__ void read_past_end(float* out, int values) {
  PN_SHARED(float, shared);
  shared[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = shared[static_cast<int>(threadIdx.x) + values - 31];
}

__global__ void wait_apart(float* out) {
  if (threadIdx.x % 32 < 16) __syncthreads();
  else out[threadIdx.x] = __shfl_xor_sync(kAll, out[threadIdx.x], 1);
}

__global__ void mix_collectives(int* out) {
  if (threadIdx.x % 2) __syncwarp();
  else out[threadIdx.x] = __shfl_xor_sync(kAll, 1, 1);
}

__global__ void use_half_a_warp(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1, 1);
}

__global__ void do_nothing() {}

int plant(const std::string& fault) {
  float values[64] = {};
  int integers[64] = {};
  if (fault == "--missing-barrier") {
    int wrong = 0;
    for (unsigned schedule = 0; schedule < 4; ++schedule) {
      use_schedule(schedule);
      wrong += wrong_sums<false>(128, 4);
    }
    if (wrong) std::puts("missing barrier caught");
    return wrong ? 3 : 0;
  }
  if (fault == "--out-of-bounds") PN_LAUNCH(read_past_end, 1, 32, 32 * sizeof(float), nullptr, values, 32);
  else if (fault == "--deadlock") PN_LAUNCH(wait_apart, dim3(1, 2), 64, 0, nullptr, values);
  else if (fault == "--mixed-collectives") PN_LAUNCH(mix_collectives, 1, 32, 0, nullptr, integers);
  else if (fault == "--partial-mask") PN_LAUNCH(use_half_a_warp, 1, 32, 0, nullptr, integers);
  else if (fault == "--wide-block") PN_LAUNCH(do_nothing, 1, 1025, 0, nullptr);
  else if (fault == "--large-shared") PN_LAUNCH(do_nothing, 1, 32, (227 << 10) + 1, nullptr);
  else if (fault == "--ungranted-shared") PN_LAUNCH(do_nothing, 1, 32, (48 << 10) + 1, nullptr);
  else if (fault == "--empty-grid") PN_LAUNCH(do_nothing, 0, 32, 0, nullptr);
  else if (fault == "--tall-grid") PN_LAUNCH(do_nothing, dim3(1, 65536), 32, 0, nullptr);
  else std::fprintf(stderr, "no fault is called %s\n", fault.c_str());
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) return plant(arguments[1]);
#if defined(PN_EMULATE_THREADS)
  const unsigned schedules = 1;
#else
  const unsigned schedules = 4;
  check_schedules();
#endif
  for (unsigned schedule = 0; schedule < schedules; ++schedule) {
    use_schedule(schedule);
    const std::string at = "schedule " + std::to_string(schedule) + " ";
    check_reductions(at);
    check_collectives(at);
    check_early_exit(at);
  }
  check_memory();
  check_numbers();
  // Fibers belong to the host thread that made them; another one has its own.
  std::thread([] { check_reductions("on another host thread "); }).join();
  check_collectives("after another host thread ");
  if (failures) return 1;
  std::puts("the emulator is right");
  return 0;
}
