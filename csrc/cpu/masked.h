// Products with a frozen weight that is masked while it is packed, so that neither the mask nor the masked weight is ever written out.
//
// What is packed is made of 32-bit units along the reduction, one fp32 value or two bf16 values, so that one packing serves both precisions. Units
// lie along a row of the weight (a panel is then a transpose) or across its rows (a copy).
#pragma once
#include "cpu/gemm.h"

namespace pyneuro::PN_ISA {

constexpr int64_t kPanelBytes = 512 << 10;  // of panels a thread keeps in its L2 while rows pass by
constexpr int64_t kSameSets = 2048;         // rows this far apart (bytes) fall into the same cache sets

using Lanes = int32_t __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

template <class T>
constexpr int64_t kUnit = 4 / sizeof(T);  // values in a unit

inline float to_float(float v) { return v; }
inline float to_float(uint16_t v) {
  const uint32_t bits = uint32_t{v} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Bits k .. k + count - 1 of a row, count <= 32; k a multiple of 4, and of 8 where count > 4.
inline uint32_t bits_at(const uint8_t* row, int64_t k, int64_t count) {
  const uint8_t* p = row + k / 8;
  uint32_t found = 0;
  if (count > 24) std::memcpy(&found, p, 4);  // sizes the compiler knows: a call for a few bytes would cost more than what uses them
  else if (count > 16) std::memcpy(&found, p, 3);
  else if (count > 8) std::memcpy(&found, p, 2);
  else found = *p;
  return found >> (k % 8);
}

// Lane i of v where bit i is set, else 0.
inline Vec keep_lanes(Vec v, uint32_t bits) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vec>(_mm512_maskz_mov_ps(static_cast<__mmask16>(bits), reinterpret_cast<__m512>(v)));
#else
  Lanes place;
  for (int i = 0; i < kLanes; ++i) place[i] = 1 << i;
  const Lanes mask = ((Lanes{} + static_cast<int32_t>(bits)) & place) != 0;
  return reinterpret_cast<Vec>(reinterpret_cast<Lanes>(v) & mask);
#endif
}

// kLanes units that lie along a row, of which `values` values exist, masked by bits of values.
inline Vec along(const float* p, int64_t values, uint32_t bits) { return keep_lanes(load_part(p, values), bits); }
// kLanes units, one of each column; of `columns` columns.
inline Vec across(const float* p, int64_t, bool, int64_t columns, uint32_t bits, uint32_t) { return keep_lanes(load_part(p, columns), bits); }

#if defined(__AVX512BF16__)
inline __mmask32 first32(int64_t n) { return n >= 32 ? ~__mmask32{0} : static_cast<__mmask32>((1u << n) - 1); }
inline Vec along(const uint16_t* p, int64_t values, uint32_t bits) {
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_epi16(first32(values) & static_cast<__mmask32>(bits), p));
}
// Pairs of a row and the one `stride` after it, where there is one.
inline Vec across(const uint16_t* p, int64_t stride, bool second, int64_t columns, uint32_t bits, uint32_t second_bits) {
  const __mmask16 valid = columns >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << columns) - 1);
  const __m256i a = _mm256_maskz_loadu_epi16(valid & static_cast<__mmask16>(bits), p);
  const __m512i low = _mm512_cvtepu16_epi32(a);
  if (!second) return reinterpret_cast<Vec>(low);
  const __m256i b = _mm256_maskz_loadu_epi16(valid & static_cast<__mmask16>(second_bits), p + stride);
  return reinterpret_cast<Vec>(_mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16)));
}
#endif

// The bits of a weight's rows.
struct Mask {
  const uint8_t* bits;  // [out, row_bytes]
  int64_t row_bytes;

  Mask(const uint8_t* bits, int64_t in) : bits(bits), row_bytes(ceil_div(in, 8)) {}
  const uint8_t* row(int64_t n) const { return bits + n * row_bytes; }
  bool any(int64_t n) const {
    const uint8_t* b = row(n);
    for (int64_t i = 0; i < row_bytes; ++i)
      if (b[i]) return true;
    return false;
  }
};

// Panel of y = x (W o M)^T, or of x W^T without a mask: [in / unit, kPanel] units of kPanel rows of W from `first`.
template <class T>
void pack_rows(const FrozenWeight& w, const Mask* mask, int64_t first, T* panel) {
  constexpr int64_t step = kLanes * kUnit<T>;
  const T* weight = static_cast<const T*>(w.weight);
  for (int64_t half = 0; half < kPanel; half += kLanes)
    for (int64_t k = 0; k < w.in; k += step) {
      const int64_t values = min(step, w.in - k);
      Vec unit[kLanes];
      for (int64_t i = 0; i < kLanes; ++i) {
        const int64_t n = first + half + i;
        unit[i] = n < w.out ? along(weight + n * w.in + k, values, mask == nullptr ? ~0u : bits_at(mask->row(n), k, values)) : Vec{};
      }
      transpose(unit);
      float* to = reinterpret_cast<float*>(panel) + k / kUnit<T> * kPanel + half;
      for (int64_t i = 0; i < ceil_div(values, kUnit<T>); ++i) store(to + i * kPanel, unit[i]);
    }
}

// Panel of a product over the rows of `from` [rows, ld]: [rows / unit, kPanel] units of its columns from `first`; of `columns` in all.
template <class T>
void pack_columns(const T* from, int64_t ld, int64_t rows, int64_t columns, int64_t first, const Mask* mask, T* panel) {
  for (int64_t row = 0; row < rows; row += kUnit<T>)
    for (int64_t half = 0; half < kPanel; half += kLanes) {
      const int64_t valid = min(kLanes, columns - first - half);
      Vec unit = {};
      if (valid > 0) {
        const bool second = row + 1 < rows;
        uint32_t bits = ~0u, second_bits = ~0u;
        if (mask != nullptr) {
          bits = bits_at(mask->row(row), first + half, valid);
          if (kUnit<T> == 2 && second) second_bits = bits_at(mask->row(row + 1), first + half, valid);
        }
        unit = across(from + row * ld + first + half, ld, second, valid, bits, second_bits);
      }
      store(reinterpret_cast<float*>(panel) + row / kUnit<T> * kPanel + half, unit);
    }
}

// to [columns, to_ld] = from [rows, ld]^T.
template <class T>
void transpose_block(const T* from, int64_t ld, int64_t rows, int64_t columns, T* to, int64_t to_ld) {
  constexpr int64_t step = kLanes * kUnit<T>;
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t units = ceil_div(min(step, rows - row), kUnit<T>);
    Vec unit[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      const int64_t r = row + i * kUnit<T>;
      unit[i] = i < units ? across(from + r * ld, ld, r + 1 < rows, columns, ~0u, ~0u) : Vec{};
    }
    transpose(unit);
    for (int64_t c = 0; c < columns; ++c) store(reinterpret_cast<float*>(to + c * to_ld + row), unit[c]);  // to_ld has room for whole steps
  }
}

// Values a row of a tile's left factor takes where it is copied: whole units, and off a power of two.
template <class T>
int64_t copied_ld(int64_t depth) {
  return ceil_div(depth, 16) * 16 + 64 / int64_t{sizeof(T)};
}

// Left factor whose rows the tiles can read as they are.
template <class T>
bool readable(int64_t ld, int64_t depth) {
  return depth % kUnit<T> == 0 && ld * int64_t{sizeof(T)} % kSameSets != 0;
}

// The rows copied to [rows, ld], whole units.
template <class T>
const T* copy_rows(const T* from, int64_t from_ld, int64_t rows, int64_t depth, T* to, int64_t ld) {
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * ld, from + i * from_ld, static_cast<size_t>(depth) * sizeof(T));
    for (int64_t k = depth; k % kUnit<T>; ++k) to[i * ld + k] = 0;
  }
  return to;
}

// What is added to a panel of outputs: their bias, 0 for those that keep no weight where the bias is masked with them.
template <class T>
Pair panel_bias(const T* bias, bool mask_bias, const Mask& mask, int64_t first, int64_t width) {
  alignas(64) float added[kPanel] = {};
  for (int64_t i = 0; bias != nullptr && i < width; ++i)
    if (!mask_bias || mask.any(first + i)) added[i] = to_float(bias[first + i]);
  return {load(added), load(added + kLanes)};
}

// a [rows, depth] times `columns` columns in panels; pack(first column, panel) fills one, epilogue(row, column, width, tile) takes a tile.
// Work is shared by panels, and by rows too where there are more threads than panels.
template <class T, class Pack, class Epilogue>
void multiply_packed(const T* a, int64_t lda, int64_t rows, int64_t depth, int64_t columns, int threads, const Pack& pack, const Epilogue& epilogue) {
  const int64_t units = ceil_div(depth, kUnit<T>) * kUnit<T>, panel_values = units * kPanel;
  const int64_t panels = ceil_div(columns, kPanel), in_cache = kPanelBytes / (panel_values * int64_t{sizeof(T)});
  const int64_t most = min(in_cache < 1 ? 1 : in_cache, ceil_div(panels, threads));
  const int64_t groups = ceil_div(panels, most), row_blocks = ceil_div(rows, kBlockRows);
  const int64_t splits = min(row_blocks, ceil_div(threads, groups));
  const bool copies = !readable<T>(lda, depth);
  const int64_t ld = copies ? copied_ld<T>(depth) : lda;
#pragma omp parallel num_threads(threads) if (threads > 1 && groups * splits > 1)
  {
    Scratch<T> packed(most * panel_values), copied(copies ? kBlockRows * ld : 0);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < groups * splits; ++task) {
      const int64_t group = task / splits, split = task % splits;
      const int64_t first = block_begin(panels, groups, group), last = block_begin(panels, groups, group + 1);
      for (int64_t p = first; p < last; ++p) pack(p * kPanel, packed.get() + (p - first) * panel_values);
      const int64_t begin = block_begin(row_blocks, splits, split), end = block_begin(row_blocks, splits, split + 1);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t row = block_begin(rows, row_blocks, block), count = block_begin(rows, row_blocks, block + 1) - row;
        const T* from = a + row * lda;
        if (copies) from = copy_rows(from, lda, count, depth, copied.get(), ld);
        for (int64_t p = first; p < last; ++p)
          multiply_panel(from, ld, count, packed.get() + (p - first) * panel_values, units,
                         [&](int64_t r, const auto& tile) { epilogue(row + r, p * kPanel, min(kPanel, columns - p * kPanel), tile); });
      }
    }
  }
}

inline void store_values(float* p, Pair v, int64_t width) { store_pair(p, v, width); }
#if defined(__AVX512BF16__)
inline void store_values(uint16_t* p, Pair v, int64_t width) {
  const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(v.hi), reinterpret_cast<__m512>(v.lo)));
  _mm512_mask_storeu_epi16(p, first32(width), both);
}
#endif

// out[row.., column..] = tile + add.
template <class T, int M>
void store_tile(T* out, int64_t ld, int64_t row, int64_t column, int64_t width, const Tile<M>& tile, Pair add = Pair{Vec{}, Vec{}}) {
  for (int i = 0; i < M; ++i) store_values(out + (row + i) * ld + column, {tile.row[i].lo + add.lo, tile.row[i].hi + add.hi}, width);
}

}  // namespace pyneuro::PN_ISA
