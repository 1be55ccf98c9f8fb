// CUDA's qualifiers, vector types, and half and bfloat16 on the host.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __shared__ static  // one block runs at a time

// ---- Vector types, with CUDA's sizes and alignments ----

#define PN_VECTOR2(scalar, name, alignment)                                                       \
  struct alignas(alignment) name { scalar x, y; };                                                \
  constexpr name make_##name(scalar x, scalar y) { return {x, y}; }
#define PN_VECTOR4(scalar, name, alignment)                                                       \
  struct alignas(alignment) name { scalar x, y, z, w; };                                          \
  constexpr name make_##name(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
PN_VECTOR2(float, float2, 8)
PN_VECTOR4(float, float4, 16)
PN_VECTOR4(int, int4, 16)
PN_VECTOR2(unsigned, uint2, 8)
PN_VECTOR4(unsigned, uint4, 16)
#undef PN_VECTOR2
#undef PN_VECTOR4

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#if defined(PN_EMULATE_THREADS)
inline constinit thread_local uint3 threadIdx{};
#else
inline constinit uint3 threadIdx{};
#endif
inline constinit uint3 blockIdx{};
inline constinit dim3 blockDim, gridDim;

// ---- Half and bfloat16: rounded to nearest, ties to even, NaN to CUDA's 0x7fff ----

namespace emulator {

inline uint16_t float_to_half_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), magnitude = bits & 0x7fffffffu;
  const uint32_t sign = bits >> 16 & 0x8000u;
  if (magnitude > 0x7f800000u) return 0x7fff;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 is the least that rounds to infinity
  // Below 2^-14 a half is a multiple of 2^-24, which is the unit in the last place of 0.5 to 1: the addition rounds.
  if (magnitude < 0x38800000u) return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u));
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

inline float half_bits_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude < 0x0400u) return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f));
  return std::bit_cast<float>(sign | ((magnitude << 13) + (magnitude < 0x7c00u ? 0x38000000u : 0x70000000u)));
}

inline uint16_t float_to_bfloat16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace emulator

// Storage only: no arithmetic and no implicit conversion, so that a kernel says where it rounds.
struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline __half __float2half_rn(float x) { return {emulator::float_to_half_bits(x)}; }
inline float __half2float(__half x) { return emulator::half_bits_to_float(x.bits); }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }
inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 __floats2half2_rn(float low, float high) { return {__float2half_rn(low), __float2half_rn(high)}; }
inline __half __low2half(__half2 x) { return x.x; }
inline __half __high2half(__half2 x) { return x.y; }
inline float __low2float(__half2 x) { return __half2float(x.x); }
inline float __high2float(__half2 x) { return __half2float(x.y); }
inline float2 __half22float2(__half2 x) { return {__low2float(x), __high2float(x)}; }

inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {emulator::float_to_bfloat16_bits(x)}; }
inline float __bfloat162float(__nv_bfloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) { return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 x) { return {__bfloat162float(x.x), __bfloat162float(x.y)}; }
