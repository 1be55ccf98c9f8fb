// Many masks over one frozen weight: y_t = x_t (W o M_t)^T, W read once.
//
// Masks that share an input share x W^T too: one that drops (or keeps) few weights then costs no product of its own but only those weights, taken
// off (or summed) one by one against a transposed copy of x. Others are packed and multiplied.
#include "cpu/families.h"
#include "cpu/masked.h"

namespace pyneuro::PN_ISA {

namespace {

constexpr int64_t kWide = 64;      // rows of x side by side in its transposed copy
constexpr double kFew = 0.25;      // share of a panel's weights that one by one are cheaper than a product
constexpr int kVecs = kWide / kLanes;

// The weights of a panel's rows that a mask drops, or those that it keeps.
struct Few {
  int32_t* index;        // [kPanel, in]
  int64_t count[kPanel];
  bool kept;
};

// Lists whichever are fewer; false where neither are few.
bool list_few(const FrozenWeight& w, const Mask& mask, int64_t first, int64_t width, Few& few) {
  int64_t kept = 0;
  for (int64_t i = 0; i < width; ++i)
    for (int64_t k = 0; k < w.in; k += 32) kept += __builtin_popcount(bits_at(mask.row(first + i), k, min(32, w.in - k)));
  const double share = static_cast<double>(kept) / static_cast<double>(width * w.in);
  if (share > kFew && share < 1 - kFew) return false;
  few.kept = share <= kFew;
  for (int64_t i = 0; i < width; ++i) {
    int32_t* to = few.index + i * w.in;
    int64_t n = 0;
    for (int64_t k = 0; k < w.in; k += 32) {
      const int64_t count = min(32, w.in - k);
      uint32_t bits = bits_at(mask.row(first + i), k, count);
      if (!few.kept) bits = ~bits & (count == 32 ? ~0u : (1u << count) - 1);
      for (; bits != 0; bits &= bits - 1) to[n++] = static_cast<int32_t>(k + __builtin_ctz(bits));
    }
    few.count[i] = n;
  }
  return true;
}

// sums [kPanel, kWide] = the listed weights against a block of x [in, kWide].
template <class T>
void sum_few(const FrozenWeight& w, int64_t first, int64_t width, const Few& few, const float* x, float* sums) {
  const T* weight = static_cast<const T*>(w.weight);
  for (int64_t i = 0; i < kPanel; ++i) {
    Vec sum[kVecs] = {};
    if (i < width) {
      const T* row = weight + (first + i) * w.in;
      const int32_t* index = few.index + i * w.in;
      for (int64_t j = 0; j < few.count[i]; ++j) {
        const float value = to_float(row[index[j]]);
        const float* from = x + int64_t{index[j]} * kWide;
#pragma GCC unroll 16
        for (int v = 0; v < kVecs; ++v) sum[v] += value * load(from + v * kLanes);
      }
    }
    for (int v = 0; v < kVecs; ++v) store(sums + i * kWide + v * kLanes, sum[v]);
  }
}

// to [blocks, in, kWide], fp32: x [rows, in] transposed block by block, padded with zeros.
template <class T>
void transpose_wide(const T* x, int64_t rows, int64_t in, float* to, int threads) {
  const int64_t blocks = ceil_div(rows, kWide);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && blocks > 1)
  for (int64_t b = 0; b < blocks; ++b) {
    float* block = to + b * in * kWide;
    const int64_t count = min(kWide, rows - b * kWide);
    for (int64_t r = 0; r < kWide; r += kLanes)
      for (int64_t k = 0; k < in; k += kLanes) {
        const int64_t valid = min(kLanes, in - k);
        Vec v[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) {
          alignas(64) float values[kLanes] = {};
          if (r + i < count)
            for (int64_t j = 0; j < valid; ++j) values[j] = to_float(x[(b * kWide + r + i) * in + k + j]);
          v[i] = load(values);
        }
        transpose(v);
        for (int64_t j = 0; j < valid; ++j) store(block + (k + j) * kWide + r, v[j]);
      }
  }
}

template <class T>
void multi(const MaskedLinearMulti& args) {
  const FrozenWeight& w = args.weight;
  const int64_t rows = args.rows, panels = ceil_div(w.out, kPanel), blocks = ceil_div(rows, kWide);
  const int64_t units = ceil_div(w.in, kUnit<T>) * kUnit<T>, mask_bytes = w.out * ceil_div(w.in, 8);
  const T *x = static_cast<const T*>(args.x), *bias = static_cast<const T*>(args.bias);
  const bool copies = !readable<T>(w.in, w.in);
  const int64_t ld = copies ? copied_ld<T>(w.in) : w.in;
  Scratch<float> wide(args.shared ? blocks * w.in * kWide : 0);
  if (args.shared) transpose_wide(x, rows, w.in, wide.get(), args.threads);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && panels > 1)
  {
    Scratch<T> panel(units * kPanel), copied(copies ? kBlockRows * ld : 0);
    Scratch<float> base(args.shared ? rows * kPanel : 0), sums(kPanel * kWide);
    Scratch<int32_t> index(args.shared ? kPanel * w.in : 0);
    Few few{index.get(), {}, false};
    const auto multiply = [&](const T* from, const auto& epilogue) {
      for (int64_t row = 0; row < rows; row += kBlockRows) {
        const int64_t count = min(kBlockRows, rows - row);
        const T* a = from + row * w.in;
        if (copies) a = copy_rows(a, w.in, count, w.in, copied.get(), ld);
        multiply_panel(a, ld, count, panel.get(), units, [&](int64_t r, const auto& tile) { epilogue(row + r, tile); });
      }
    };
#pragma omp for schedule(dynamic)
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = p * kPanel, width = min(kPanel, w.out - first);
      bool based = false;
      for (int64_t t = 0; t < args.masks; ++t) {
        const Mask mask(args.bits + t * mask_bytes, w.in);
        T* y = static_cast<T*>(args.y) + t * rows * w.out;
        const Pair add = panel_bias(bias, args.mask_bias, mask, first, width);
        if (!args.shared || !list_few(w, mask, first, width, few)) {
          pack_rows(w, &mask, first, panel.get());
          multiply(x + (args.shared ? 0 : t * rows * w.in), [&](int64_t row, const auto& tile) { store_tile(y, w.out, row, first, width, tile, add); });
          continue;
        }
        if (!few.kept && !based) {
          pack_rows<T>(w, nullptr, first, panel.get());
          multiply(x, [&](int64_t row, const auto& tile) { store_tile(base.get(), kPanel, row, 0, kPanel, tile); });
          based = true;
        }
        const float sign = few.kept ? 1.0f : -1.0f;
        for (int64_t b = 0; b < blocks; ++b) {
          sum_few<T>(w, first, width, few, wide.get() + b * w.in * kWide, sums.get());
          for (int64_t r = 0; r < min(kWide, rows - b * kWide); r += kLanes) {
            Vec lo[kLanes], hi[kLanes];
            for (int64_t i = 0; i < kLanes; ++i) lo[i] = load(sums.get() + i * kWide + r), hi[i] = load(sums.get() + (kLanes + i) * kWide + r);
            transpose(lo);
            transpose(hi);
            for (int64_t i = 0; i < min(kLanes, rows - b * kWide - r); ++i) {
              const int64_t row = b * kWide + r + i;
              Pair sum = {sign * lo[i] + add.lo, sign * hi[i] + add.hi};
              if (!few.kept) {
                const Pair whole = load_pair(base.get() + row * kPanel, kPanel);
                sum = {sum.lo + whole.lo, sum.hi + whole.hi};
              }
              store_values(y + row * w.out + first, sum, width);
            }
          }
        }
      }
    }
  }
}

}  // namespace

void masked_linear_multi(const MaskedLinearMulti& args) {
#if defined(__AVX512BF16__)
  if (args.weight.bf16) return multi<uint16_t>(args);
#endif
  multi<float>(args);
}

}  // namespace pyneuro::PN_ISA
