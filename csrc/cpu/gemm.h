// Rows times a packed weight, with an epilogue on the registers.
//
// A tile is kTileRows rows by one panel of kPanel weight rows, accumulated over the whole of K in registers: each k costs two panel loads and a
// broadcast per row for two FMAs. The panel (K x kPanel) is used by all tiles of a row block while it is in the cache; the block's rows stay in
// L2. On one Zen 5 core this runs at 0.98 of the fp32 FMA peak.
#pragma once
#include "cpu/simd.h"
#include "pyneuro/kernels.h"

namespace pyneuro::PN_ISA {

// Rows a thread takes at once; a multiple of kTileRows.
constexpr int64_t kBlockRows = kTileRows * (kLanes == 16 ? 4 : 10);

template <int M>
struct Tile {
  Pair row[M];
};

template <int M>
inline __attribute__((always_inline)) Tile<M> multiply_tile(const float* a, int64_t lda, const float* panel, int64_t k) {
  Tile<M> acc = {};
  for (int64_t j = 0; j < k; ++j) {
    const Vec lo = load(panel + j * kPanel), hi = load(panel + j * kPanel + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const float x = a[i * lda + j];
      acc.row[i].lo += x * lo;
      acc.row[i].hi += x * hi;
    }
  }
  return acc;
}

// The same for a panel of which only the first vector of columns matters.
template <int M>
inline __attribute__((always_inline)) Tile<M> multiply_narrow_tile(const float* a, int64_t lda, const float* panel, int64_t k) {
  Tile<M> acc = {};
  for (int64_t j = 0; j < k; ++j) {
    const Vec lo = load(panel + j * kPanel);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) acc.row[i].lo += a[i * lda + j] * lo;
  }
  return acc;
}

#if defined(__AVX512BF16__)
// Operands rounded to bf16 in pairs along K, products accumulated in fp32.
template <int M>
inline __attribute__((always_inline)) Tile<M> multiply_tile(const uint16_t* a, int64_t lda, const uint16_t* panel, int64_t k) {
  __m512 lo[M], hi[M];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) lo[i] = hi[i] = _mm512_setzero_ps();
  for (int64_t j = 0; j < k; j += 2) {
    const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + j * kPanel));
    const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + j * kPanel + 2 * kLanes));
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      int32_t pair;
      std::memcpy(&pair, a + i * lda + j, sizeof pair);
      const __m512bh x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      lo[i] = _mm512_dpbf16_ps(lo[i], x, b0);
      hi[i] = _mm512_dpbf16_ps(hi[i], x, b1);
    }
  }
  Tile<M> acc;
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) acc.row[i] = {reinterpret_cast<Vec>(lo[i]), reinterpret_cast<Vec>(hi[i])};
  return acc;
}

inline void round_to_bf16(const float* from, int64_t n, uint16_t* to) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i))));
  if (i < n) {
    const __mmask16 rest = static_cast<__mmask16>((1u << (n - i)) - 1);
    _mm256_mask_storeu_epi16(to + i, rest, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, from + i))));
  }
  if (n & 1) to[n] = 0;
}
#endif

// Calls f with the number of rows as a constant.
template <int M, class F>
inline void with_rows(int64_t rows, const F& f) {
  if constexpr (M > 1) {
    if (rows < M) return with_rows<M - 1>(rows, f);
  }
  f.template operator()<M>();
}

// Calls f<M>(row) for tiles of M rows, of nearly equal height.
template <class F>
inline void for_tiles(int64_t rows, const F& f) {
  for (int64_t tiles = ceil_div(rows, kTileRows), row = 0; tiles > 0; --tiles) {
    const int64_t height = ceil_div(rows - row, tiles);
    with_rows<kTileRows>(height, [&]<int M>() { f.template operator()<M>(row); });
    row += height;
  }
}

// One panel against a block of rows. The epilogue is called as epilogue(row, tile).
template <class T, class Epilogue>
inline void multiply_panel(const T* a, int64_t lda, int64_t rows, const T* panel, int64_t k, const Epilogue& epilogue) {
  for_tiles(rows, [&]<int M>(int64_t row) { epilogue(row, multiply_tile<M>(a + row * lda, lda, panel, k)); });
}

// [rows, k] times a K range of a packed fp32 weight; epilogue(row, column, width, tile).
template <class Epilogue>
inline void multiply_range(const float* a, int64_t lda, int64_t rows, const PackedWeight& w, int64_t k_from, int64_t k, const Epilogue& epilogue) {
  const float* panels = static_cast<const float*>(w.panels);
  for (int64_t column = 0; column < w.out; column += kPanel)
    multiply_panel(a, lda, rows, panels + column * w.in + k_from * kPanel, k, [&](int64_t row, const auto& tile) { epilogue(row, column, min(kPanel, w.out - column), tile); });
}

// bf16 values of scratch that multiply_rows needs for a block of rows.
inline int64_t rounding_scratch(const PackedWeight& w, int64_t rows) { return w.bf16 ? rows * (w.in + 34) : 0; }

// [rows, in] times the whole weight, in the weight's precision.
template <class Epilogue>
inline void multiply_rows(const float* a, int64_t lda, int64_t rows, const PackedWeight& w, [[maybe_unused]] uint16_t* rounded, const Epilogue& epilogue) {
  if (!w.bf16) return multiply_range(a, lda, rows, w, 0, w.in, epilogue);
#if defined(__AVX512BF16__)
  const uint16_t* panels = static_cast<const uint16_t*>(w.panels);
  const int64_t pairs = ceil_div(w.in, 2), ld = 2 * pairs + 32;  // off a power of two, so that the rows of a tile do not share cache sets
  for (int64_t row = 0; row < rows; ++row) round_to_bf16(a + row * lda, w.in, rounded + row * ld);
  for (int64_t column = 0; column < w.out; column += kPanel)
    multiply_panel(rounded, ld, rows, panels + column * 2 * pairs, 2 * pairs, [&](int64_t row, const auto& tile) { epilogue(row, column, min(kPanel, w.out - column), tile); });
#endif
}

// Epilogue: out[row, column..] = tile.
struct StoreTo {
  float* out;
  int64_t ld;
  template <int M>
  void operator()(int64_t row, int64_t column, int64_t width, const Tile<M>& tile) const {
    for (int i = 0; i < M; ++i) store_pair(out + (row + i) * ld + column, tile.row[i], width);
  }
};

// Epilogue: out[row, column..] = tile + addend[row, column..]; addend may be out.
struct StoreSum {
  float* out;
  int64_t ld;
  const float* addend;
  int64_t addend_ld;
  template <int M>
  void operator()(int64_t row, int64_t column, int64_t width, const Tile<M>& tile) const {
    for (int i = 0; i < M; ++i) {
      const Pair r = load_pair(addend + (row + i) * addend_ld + column, width);
      store_pair(out + (row + i) * ld + column, {tile.row[i].lo + r.lo, tile.row[i].hi + r.hi}, width);
    }
  }
};

// Calls f(first, count) for nearly equal blocks of at most `most` out of n.
inline int64_t block_count(int64_t n, int64_t most) { return ceil_div(n, most); }
inline int64_t block_begin(int64_t n, int64_t blocks, int64_t i) { return n * i / blocks; }

}  // namespace pyneuro::PN_ISA
