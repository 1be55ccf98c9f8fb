// Vectors of one instruction set. Every file in this folder but dispatch.cpp is compiled once per instruction set, in a namespace of its name;
// nothing here may instantiate a standard template out of line, or the linker could keep the copy this machine cannot run.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#if defined(__AVX512F__)
#include <immintrin.h>
#define PN_ISA avx512
#elif defined(__AVX2__)
#include <immintrin.h>
#define PN_ISA avx2
#else
#define PN_ISA baseline
#endif

namespace pyneuro::PN_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
constexpr int kTileRows = 14;  // 28 accumulators + 2 panel vectors + 1 broadcast of 32 registers
#elif defined(__AVX2__)
constexpr int kLanes = 8;
constexpr int kTileRows = 6;  // 12 + 2 + 1 of 16
#else
constexpr int kLanes = 4;
constexpr int kTileRows = 6;
#endif
constexpr int kPanel = 2 * kLanes;

using Vec = float __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

// True where any lane's magnitude exceeds the bound; a NaN lane counts as beyond it.
inline bool any_beyond(Vec v, float bound) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(_mm512_abs_ps(reinterpret_cast<__m512>(v)), _mm512_set1_ps(bound), _CMP_NLE_UQ) != 0;
#elif defined(__AVX2__)
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), reinterpret_cast<__m256>(v));
  return _mm256_movemask_ps(_mm256_cmp_ps(magnitude, _mm256_set1_ps(bound), _CMP_NLE_UQ)) != 0;
#else
  for (int i = 0; i < kLanes; ++i)
    if (!(v[i] <= bound && v[i] >= -bound)) return true;
  return false;
#endif
}

inline float sum(Vec v) {
  float s = 0.0f;
  for (int i = 0; i < kLanes; ++i) s += v[i];
  return s;
}

// Elements of a and b in turn: of their first halves (part 0) or second halves (part 1).
template <int part>
inline Vec interleave(Vec a, Vec b) {
  constexpr int h = part * kLanes / 2;
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, h, h + 16, h + 1, h + 17, h + 2, h + 18, h + 3, h + 19, h + 4, h + 20, h + 5, h + 21, h + 6, h + 22, h + 7, h + 23);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, h, h + 8, h + 1, h + 9, h + 2, h + 10, h + 3, h + 11);
#else
  return __builtin_shufflevector(a, b, h, h + 4, h + 1, h + 5);
#endif
}

// Transpose of kLanes vectors, in place: log2(kLanes) rounds of perfect shuffles.
inline __attribute__((always_inline)) void transpose(Vec (&r)[kLanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Vec s[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      s[2 * i] = interleave<0>(r[i], r[i + kLanes / 2]);
      s[2 * i + 1] = interleave<1>(r[i], r[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) r[i] = s[i];
  }
}

inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline Vec load_part(const float* p, int64_t valid) {
  if (valid >= kLanes) return load(p);
  alignas(64) float filled[kLanes] = {};
  std::memcpy(filled, p, static_cast<size_t>(valid) * sizeof(float));
  return load(filled);
}

// Two vectors = one panel's width of a row; a row's last panel may be narrower.
struct Pair {
  Vec lo, hi;
};
inline Pair load_pair(const float* p, int64_t width) {
  if (width >= kPanel) return {load(p), load(p + kLanes)};
  alignas(64) float padded[kPanel] = {};
  std::memcpy(padded, p, static_cast<size_t>(width) * sizeof(float));
  return {load(padded), load(padded + kLanes)};
}
inline void store_pair(float* p, Pair v, int64_t width) {
  if (width >= kPanel) {
    store(p, v.lo);
    store(p + kLanes, v.hi);
    return;
  }
  alignas(64) float padded[kPanel];
  store(padded, v.lo);
  store(padded + kLanes, v.hi);
  std::memcpy(p, padded, static_cast<size_t>(width) * sizeof(float));
}

// Cache-aligned scratch of one thread.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : data_(static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>(ceil_div(n * int64_t{sizeof(T)} + 64, 64)) * 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace pyneuro::PN_ISA
