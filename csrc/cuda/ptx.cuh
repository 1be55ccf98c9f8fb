// Every instruction that has no C++ form, each with a twin that does the same on the host.
#pragma once
#include "cuda/device.cuh"

namespace pyneuro::cuda {

#if defined(PN_EMULATE)
inline float half_of(unsigned pair, int which) {
  __half2 halves;
  memcpy(&halves, &pair, sizeof halves);
  return which ? __high2float(halves) : __low2float(halves);
}
#endif

// d [16, 8] += a [16, 16] b [16, 8], fp16 operands and fp32 sums. With g = lane / 4 and t = lane % 4 a lane holds rows g and g + 8 of d at columns
// 2t, 2t + 1; of a the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8); of b rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g.
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(PN_EMULATE)
  float left[16][16], right[16][8];
  for (int i = 0; i < 4; ++i) {
    const auto pairs = emulator::exchange_all(a[i]);
    for (int lane = 0; lane < kWarp; ++lane)
      for (int j = 0; j < 2; ++j) left[lane / 4 + i % 2 * 8][2 * (lane % 4) + i / 2 * 8 + j] = half_of(pairs[lane], j);
  }
  for (int i = 0; i < 2; ++i) {
    const auto pairs = emulator::exchange_all(b[i]);
    for (int lane = 0; lane < kWarp; ++lane)
      for (int j = 0; j < 2; ++j) right[2 * (lane % 4) + i * 8 + j][lane / 4] = half_of(pairs[lane], j);
  }
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  for (int i = 0; i < 4; ++i)
    for (int k = 0; k < 16; ++k) d[i] += left[g + i / 2 * 8][k] * right[k][2 * t + i % 2];
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8 x 8 matrices of shared memory; row i of matrix m begins at the address that lane 8m + i gives. A lane gets columns 2t, 2t + 1 of row g of
// each: an operand a of mma_16x8x16, or two operands b whose columns are rows of the matrices.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const __half* row) {
#if defined(PN_EMULATE)
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  const auto rows = emulator::exchange_all(row);
  for (int m = 0; m < 4; ++m) memcpy(&r[m], rows[8 * m + g] + 2 * t, sizeof r[m]);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
#endif
}

// Four 8 x 8 matrices of shared memory, transposed; row i of matrix m begins at the address that lane 8m + i gives. A lane gets rows 2t, 2t + 1 of
// column g of each: two operands b of mma_16x8x16.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const __half* row) {
#if defined(PN_EMULATE)
  const int g = emulator::lane() / 4, t = emulator::lane() % 4;
  const auto rows = emulator::exchange_all(row);
  for (int m = 0; m < 4; ++m) {
    const __half2 pair = __halves2half2(rows[8 * m + 2 * t][g], rows[8 * m + 2 * t + 1][g]);
    memcpy(&r[m], &pair, sizeof pair);
  }
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address));
#endif
}

// Sixteen bytes from global to shared memory in the background. Copies since the last end_copies() are a group; wait_for_copies<n>() returns when all
// groups of this thread but the last n have arrived.
__device__ __forceinline__ void begin_copy(void* shared, const void* global) {
#if defined(PN_EMULATE)
  memcpy(shared, global, 16);
#else
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#endif
}
__device__ __forceinline__ void end_copies() {
#if !defined(PN_EMULATE)
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int Last>
__device__ __forceinline__ void wait_for_copies() {
#if !defined(PN_EMULATE)
  asm volatile("cp.async.wait_group %0;" ::"n"(Last) : "memory");
#endif
}

// Keeps the compiler from remembering what it computed from x: computing it again costs less than the registers.
__device__ __forceinline__ void forget([[maybe_unused]] float& x) {
#if !defined(PN_EMULATE)
  asm volatile("" : "+f"(x));
#endif
}

}  // namespace pyneuro::cuda
