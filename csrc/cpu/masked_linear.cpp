// A linear layer with a masked frozen weight, and its gradients. All three products run on gemm.h's tiles:
//   y  = x (W o M)^T    reduction over `in`
//   dx = dy (W o M)     reduction over `out`
//   dS = (dy^T x) o W   reduction over the rows of x, dy transposed block by block
#include "cpu/families.h"
#include "cpu/masked.h"

namespace pyneuro::PN_ISA {

namespace {

constexpr int64_t kReduction = 1024;  // units of rows of x and dy taken into the score gradient at once
constexpr int64_t kTransposed = 256;  // columns of dy transposed at once, which stay in the L2

// Bit i where lane i of s is above the threshold; NaN is not.
inline uint32_t lanes_above(Vec s, float threshold) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(s), _mm512_set1_ps(threshold), _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(s), _mm256_set1_ps(threshold), _CMP_GT_OQ)));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(s[i] > threshold) << i;
  return bits;
#endif
}

// M = [S > threshold] as bits.
void decide(const MaskedLinear& args) {
  const int64_t in = args.weight.in, out = args.weight.out, row_bytes = ceil_div(in, 8);
#pragma omp parallel for schedule(static) num_threads(args.threads) if (args.threads > 1 && out * in > 1 << 16)
  for (int64_t n = 0; n < out; ++n)
    for (int64_t k = 0; k < in; k += 32) {
      const int64_t count = min(32, in - k);
      uint32_t found = 0;
      for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t valid = min(kLanes, count - i);
        const uint32_t lanes = lanes_above(load_part(args.scores + n * in + k + i, valid), args.threshold);
        found |= (valid == kLanes ? lanes : lanes & ((1u << valid) - 1)) << i;
      }
      std::memcpy(args.bits + n * row_bytes + k / 8, &found, static_cast<size_t>(ceil_div(count, 8)));
    }
}

template <class T>
void forward(const MaskedLinear& args) {
  const FrozenWeight& w = args.weight;
  const Mask mask(args.bits, w.in);
  if (args.scores != nullptr) decide(args);
  const T* bias = static_cast<const T*>(args.bias);
  T* y = static_cast<T*>(args.y);
  multiply_packed(
      static_cast<const T*>(args.x), w.in, args.rows, w.in, w.out, args.threads, [&](int64_t first, T* panel) { pack_rows(w, &mask, first, panel); },
      [&](int64_t row, int64_t column, int64_t width, const auto& tile) {
        store_tile(y, w.out, row, column, width, tile, panel_bias(bias, args.mask_bias, mask, column, width));
      });
}

template <class T>
void input_gradient(const MaskedLinearBackward& args) {
  const FrozenWeight& w = args.weight;
  const Mask mask(args.bits, w.in);
  T* dx = static_cast<T*>(args.dx);
  multiply_packed(
      static_cast<const T*>(args.dy), w.out, args.rows, w.out, w.in, args.threads,
      [&](int64_t first, T* panel) { pack_columns(static_cast<const T*>(w.weight), w.in, w.out, w.in, first, &mask, panel); },
      [&](int64_t row, int64_t column, int64_t width, const auto& tile) { store_tile(dx, w.in, row, column, width, tile); });
}

template <class T>
Pair load_values(const T* p, int64_t width) {
  if constexpr (sizeof(T) == 4) return load_pair(p, width);
  alignas(64) float v[kPanel] = {};
  for (int64_t i = 0; i < width; ++i) v[i] = to_float(p[i]);
  return {load(v), load(v + kLanes)};
}

template <class T>
void score_gradient(const MaskedLinearBackward& args) {
  const FrozenWeight& w = args.weight;
  const T* weight = static_cast<const T*>(w.weight);
  const T *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
  constexpr int64_t most = kReduction * kUnit<T>, step = kLanes * kUnit<T>;
  const int64_t ld = ceil_div(min(most, args.rows), step) * step + 64 / int64_t{sizeof(T)};
  Scratch<T> transposed(min(ceil_div(w.out, kLanes) * kLanes, kTransposed) * ld);
  if (args.rows == 0) std::memset(args.dscores, 0, static_cast<size_t>(w.out * w.in) * sizeof(float));
  for (int64_t begin = 0; begin < args.rows; begin += most) {
    const int64_t rows = min(most, args.rows - begin);
    const bool first = begin == 0, last = begin + rows == args.rows;
    for (int64_t from = 0; from < w.out; from += kTransposed) {
      const int64_t columns = min(kTransposed, w.out - from), strips = ceil_div(columns, kLanes);
#pragma omp parallel for schedule(static) num_threads(args.threads) if (args.threads > 1 && strips > 1)
      for (int64_t strip = 0; strip < strips; ++strip) {
        const int64_t column = strip * kLanes;
        transpose_block(dy + begin * w.out + from + column, w.out, rows, min(kLanes, columns - column), transposed.get() + column * ld, ld);
      }
      multiply_packed(
          static_cast<const T*>(transposed.get()), ld, columns, ceil_div(rows, kUnit<T>) * kUnit<T>, w.in, args.threads,
          [&](int64_t column, T* panel) { pack_columns(x + begin * w.in, w.in, rows, w.in, column, nullptr, panel); },
          [&](int64_t row, int64_t column, int64_t width, const auto& tile) {
            for (size_t i = 0; i < sizeof(tile.row) / sizeof(tile.row[0]); ++i) {
              const int64_t at = (from + row + static_cast<int64_t>(i)) * w.in + column;
              Pair sum = tile.row[i];
              if (!first) {
                const Pair before = load_pair(args.dscores + at, width);
                sum = {sum.lo + before.lo, sum.hi + before.hi};
              }
              if (last) {
                const Pair v = load_values(weight + at, width);
                sum = {sum.lo * v.lo, sum.hi * v.hi};
              }
              store_pair(args.dscores + at, sum, width);
            }
          });
    }
  }
}

}  // namespace

void masked_linear(const MaskedLinear& args) {
#if defined(__AVX512BF16__)
  if (args.weight.bf16) return forward<uint16_t>(args);
#endif
  forward<float>(args);
}

void masked_linear_backward(const MaskedLinearBackward& args) {
#if defined(__AVX512BF16__)
  if (args.weight.bf16) {
    if (args.dx != nullptr) input_gradient<uint16_t>(args);
    if (args.dscores != nullptr) score_gradient<uint16_t>(args);
    return;
  }
#endif
  if (args.dx != nullptr) input_gradient<float>(args);
  if (args.dscores != nullptr) score_gradient<float>(args);
}

}  // namespace pyneuro::PN_ISA
