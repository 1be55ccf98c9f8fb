// Runs every kernel of every instruction set this machine has on heap arrays of the exact size, under AddressSanitizer and
// UndefinedBehaviorSanitizer (cmake -DPN_SANITIZE=ON), and compares the instruction sets with each other. Values are checked against float64 in
// tests/ops; what this program is for is that no kernel reads or writes a byte it does not own, at any odd size, with one thread and with three.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "pyneuro/kernels.h"

using namespace pyneuro;
using Floats = std::vector<float>;

namespace {

uint32_t state = 1;
float draw() {  // uniform in [-1, 1)
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
}
Floats draw(int64_t n, float scale = 1.0f) {
  Floats x(static_cast<size_t>(n));
  for (float& v : x) v = draw() * scale;
  return x;
}

uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// W [out, in] in panels, as pyneuro/ops/packing.py lays them out.
struct Packed {
  std::vector<float> fp32;
  std::vector<uint16_t> bf16;
  PackedWeight weight;

  Packed(const Floats& w, int64_t out, int64_t in, int64_t width, bool half) {
    const int64_t panels = (out + width - 1) / width, pairs = (in + 1) / 2;
    if (half) bf16.assign(static_cast<size_t>(panels * pairs * width * 2), 0);
    else fp32.assign(static_cast<size_t>(panels * in * width), 0.0f);
    for (int64_t r = 0; r < out; ++r)
      for (int64_t k = 0; k < in; ++k) {
        const float value = w[static_cast<size_t>(r * in + k)];
        if (half) bf16[static_cast<size_t>(((r / width * pairs + k / 2) * width + r % width) * 2 + k % 2)] = to_bf16(value);
        else fp32[static_cast<size_t>((r / width * in + k) * width + r % width)] = value;
      }
    weight = {half ? static_cast<const void*>(bf16.data()) : fp32.data(), out, in, half};
  }
};

Floats softmax_rows(int64_t rows, int64_t n) {
  Floats p = draw(rows * n);
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0f;
    for (int64_t j = 0; j < n; ++j) sum += p[static_cast<size_t>(r * n + j)] = std::exp(p[static_cast<size_t>(r * n + j)]);
    for (int64_t j = 0; j < n; ++j) p[static_cast<size_t>(r * n + j)] /= sum;
  }
  return p;
}

// An array in the working type of the masked kernels.
struct Values {
  bool half;
  Floats fp32;
  std::vector<uint16_t> bf16;

  Values(const Floats& from, bool half) : half(half) {
    if (!half) fp32 = from;
    for (size_t i = 0; half && i < from.size(); ++i) bf16.push_back(to_bf16(from[i]));
    bf16.shrink_to_fit();
  }
  void* data() { return half ? static_cast<void*>(bf16.data()) : fp32.data(); }
  Floats floats() const {
    if (!half) return fp32;
    Floats out(bf16.size());
    for (size_t i = 0; i < out.size(); ++i) {
      const uint32_t bits = uint32_t{bf16[i]} << 16;
      std::memcpy(&out[i], &bits, sizeof bits);
    }
    return out;
  }
};

struct Shape {
  int64_t tokens, candidates, hidden, heads, intermediate;
};

// Outputs of the masked linear kernels, decided by scores and by bits, one mask and three of different density.
std::vector<Floats> run_masked(const Kernels& k, int64_t rows, int64_t in, int64_t out, bool half, int threads) {
  state = static_cast<uint32_t>(rows * 131 + in * 31 + out);
  const int64_t row_bytes = (in + 7) / 8;
  Values x(draw(rows * in), half), w(draw(out * in), half), bias(draw(out), half), dy(draw(rows * out), half);
  const Floats scores = draw(out * in);
  std::vector<uint8_t> bits(static_cast<size_t>(out * row_bytes), 0xff), many;
  const auto empty = [&](int64_t size) { return Values(Floats(static_cast<size_t>(size), 0.0f), half); };
  Values y = empty(rows * out), again = empty(rows * out), dx = empty(rows * in), each = empty(3 * rows * out), own = empty(3 * rows * out);
  Floats dscores(static_cast<size_t>(out * in));
  const FrozenWeight frozen{w.data(), out, in, half};
  k.masked_linear({x.data(), frozen, scores.data(), 0.1f, bits.data(), bias.data(), true, y.data(), rows, threads});
  k.masked_linear({x.data(), frozen, nullptr, 0.0f, bits.data(), nullptr, false, again.data(), rows, threads});
  k.masked_linear_backward({dy.data(), x.data(), frozen, bits.data(), dx.data(), dscores.data(), rows, threads});
  for (uint8_t density : {0xff, 0x5a, 0x01})
    for (int64_t n = 0; n < out; ++n)
      for (int64_t b = 0; b < row_bytes; ++b) many.push_back(b == row_bytes - 1 && in % 8 ? density & ((1 << in % 8) - 1) : density);
  many.shrink_to_fit();
  k.masked_linear_multi({x.data(), true, frozen, many.data(), bias.data(), true, each.data(), 3, rows, threads});
  Floats tripled;
  for (int t = 0; t < 3; ++t)
    for (const float v : x.floats()) tripled.push_back(v);
  Values inputs(tripled, half);
  k.masked_linear_multi({inputs.data(), false, frozen, many.data(), nullptr, false, own.data(), 3, rows, threads});
  return {y.floats(), again.floats(), dx.floats(), dscores, each.floats(), own.floats()};
}

// Outputs of all kernels, one after another. The draws depend on the shape alone.
std::vector<Floats> run(const Kernels& k, const Shape& shape, bool half, int threads) {
  const auto [s, n, d, h, f] = shape;
  const int64_t e = d / h;
  state = static_cast<uint32_t>(s * 131 + n * 31 + d);
  const float wd = 1.0f / std::sqrt(static_cast<float>(d)), wf = 1.0f / std::sqrt(static_cast<float>(f));
  const Floats q = draw(s * d), key = draw(s * d), v = draw(s * d), p = softmax_rows(h * s, s);
  const Floats dx = draw(s * n * d, 0.2f), dqkv = draw(s * n * 3 * d, 0.2f), dctx = draw(s * n * d, 0.2f), dq0 = draw(n * d, 0.2f);
  const Floats context_rows = draw(s * h * d), value_row = draw(h * d), pre_gelu = draw(s * f, 3.0f), series = draw(s * 4 * f);
  const Floats centred = draw(s * d), rstd(static_cast<size_t>(s), 1.2f), gamma = draw(d);
  const Floats wqkv = draw(3 * d * d, wd), wao = draw(d * d, wd), wi = draw(f * d, wd), wo = draw(d * f, wf), wk = draw(d * d, wd), wv = draw(d * d, wd);

  const int64_t width = k.panel_width;
  const Packed pqkv(wqkv, 3 * d, d, width, half), pao(wao, d, d, width, half), pi(wi, f, d, width, half), po(wo, d, f, width, half);
  const Packed pao_exact(wao, d, d, width, false), pk(wk, d, d, width, false);
  std::vector<float> heads;
  for (int64_t i = 0; i < h; ++i) {
    const Packed one(Floats(wv.begin() + i * e * d, wv.begin() + (i + 1) * e * d), e, d, width, false);
    heads.insert(heads.end(), one.fp32.begin(), one.fp32.end());
  }
  heads.shrink_to_fit();
  const AttentionBase attention{q.data(), key.data(), v.data(), p.data(), s, d, h, 1.0f / std::sqrt(static_cast<float>(e))};
  const NormBase norm{centred.data(), rstd.data(), gamma.data()};

  const auto empty = [](int64_t size) { return Floats(static_cast<size_t>(size), std::nanf("")); };
  std::vector<Floats> out = {empty(s * n * 3 * d), empty(s * n * d), empty(s * n * d), empty(s * n * d), empty(s * n * d), empty(n * d), empty(n * d), empty(s * n * d)};
  k.delta_linear({dx.data(), pqkv.weight, out[0].data(), s * n, threads});
  k.delta_layernorm({dx.data(), norm, out[1].data(), s, n, d, threads});
  k.delta_linear_norm({dctx.data(), dx.data(), pao.weight, norm, out[2].data(), s, n, threads});
  k.delta_feed_forward({dx.data(), pi.weight, po.weight, pre_gelu.data(), series.data(), norm, out[3].data(), s, n, threads});
  k.delta_attention({dqkv.data(), attention, out[4].data(), n, threads});
  k.delta_attention_row0({dqkv.data(), attention, out[5].data(), n, threads});
  k.delta_attention_row0_dense({dx.data(), dq0.data(), attention, pk.weight, {heads.data(), d, d, false}, out[6].data(), n, threads});
  k.delta_attention_low_rank({dqkv.data(), dx.data(), attention, context_rows.data(), value_row.data(), pao_exact.weight, norm, out[7].data(), n, threads});
  for (Floats& found : run_masked(k, s * n, d + 3, f, half, threads)) out.push_back(std::move(found));
  return out;
}

// Largest relative L2 distance over the kernels; infinite where a value is not finite.
double distance(const std::vector<Floats>& a, const std::vector<Floats>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    double gap = 0.0, size = 0.0;
    for (size_t j = 0; j < a[i].size(); ++j) {
      if (!std::isfinite(a[i][j]) || !std::isfinite(b[i][j])) return INFINITY;
      gap += std::pow(static_cast<double>(a[i][j]) - b[i][j], 2);
      size += std::pow(static_cast<double>(b[i][j]), 2);
    }
    if (size > 0.0) worst = std::fmax(worst, std::sqrt(gap / size));
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--plant-overrun") {  // proof that an overrun would be caught
    const Kernels& k = *find_kernels("baseline");
    const Floats du = draw(2 * 3 * 8), centred = draw(2 * 8), rstd = draw(2), gamma = draw(8);
    Floats out(2 * 3 * 8 - 1);
    k.delta_layernorm({du.data(), {centred.data(), rstd.data(), gamma.data()}, out.data(), 2, 3, 8, 1});
    return 0;
  }
  const Shape shapes[] = {{1, 1, 8, 1, 3}, {7, 5, 24, 3, 40}, {2, 30, 36, 4, 50}, {33, 3, 66, 3, 31}, {17, 29, 64, 2, 96}, {5, 0, 16, 2, 20}, {40, 15, 96, 3, 130}};
  int runs = 0, failed = 0;
  for (const Shape& shape : shapes) {
    const std::vector<Floats> want = run(*find_kernels("baseline"), shape, false, 1);
    for (const char* isa : {"baseline", "avx2", "avx512"}) {
      const Kernels* k = find_kernels(isa);
      if (k == nullptr) continue;
      for (int threads : {1, 3})
        for (bool half : {false, true}) {
          if (half && !k->bf16) continue;
          const double gap = distance(run(*k, shape, half, threads), want);
          const bool good = gap < (half ? 0.03 : 1e-5);
          ++runs;
          failed += !good;
          if (!good) std::printf("%s%s, %d threads, S %d N %d d %d: distance %.2e\n", isa, half ? " bf16" : "", threads, int(shape.tokens), int(shape.candidates), int(shape.hidden), gap);
        }
    }
  }
  std::printf("%d passed, %d failed\n", runs - failed, failed);
  return failed != 0;
}
