// Runs every device kernel from its real .cu file on the host (csrc/emulator), on heap arrays of the exact size, under AddressSanitizer and
// UndefinedBehaviorSanitizer, or under ThreadSanitizer at tiny sizes, in several orders of the threads, at odd sizes, and compares with the same
// quantities in double, by their plain definitions.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "emulator/cuda_on_host.h"
#include "pyneuro/cuda.h"

using namespace pyneuro;
using namespace pyneuro::cuda;

namespace {

uint32_t state = 1;
float draw() {  // uniform in [-1, 1)
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
}
std::vector<float> draw(int64_t n, float scale = 1.0f) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = draw() * scale;
  return x;
}

float read(float x) { return x; }
float read(__half x) { return __half2float(x); }
void write(float value, float& x) { x = value; }
void write(float value, __half& x) { x = __float2half_rn(value); }

// Differences as T, and the true ones they stand for.
template <class T>
struct Stored {
  std::vector<T> values;
  explicit Stored(int64_t n) : values(static_cast<size_t>(n)) {}
  Stored(int64_t n, float scale) : Stored(n) {
    for (T& v : values) write(draw() * scale, v);
  }
  double operator[](int64_t i) const { return read(values[static_cast<size_t>(i)]); }
  T* data() { return values.data(); }
};
template <class T>
constexpr Storage kStorage = std::is_same_v<T, float> ? Storage::fp32 : Storage::fp16;

int failures = 0;
void expect_near(const char* what, int64_t i, double got, double want, double scale, double tolerance) {
  if (std::abs(got - want) <= tolerance * scale) return;
  if (++failures < 20) std::fprintf(stderr, "%s[%lld]: %.8g instead of %.8g\n", what, static_cast<long long>(i), got, want);
}
template <class T>
double tolerance() {
  return std::is_same_v<T, float> ? 2e-5 : 4e-3;
}
template <class Range>
double largest(const Range& range) {
  double most = 1e-30;
  for (double v : range) most = std::max(most, std::abs(v));
  return most;
}

// One sample's base run at a site, d = H e.
struct Base {
  int64_t s, d, heads, e;
  std::vector<float> q, k, v, p, centred, rstd, gamma;
  Base(int64_t s, int64_t heads, int64_t e) : s(s), d(heads * e), heads(heads), e(e), q(draw(s * d)), k(draw(s * d)), v(draw(s * d)), p(draw(heads * s * s)), centred(draw(s * d)), rstd(static_cast<size_t>(s)), gamma(draw(d)) {
    for (int64_t row = 0; row < heads * s; ++row) {
      float sum = 0.0f;
      for (int64_t j = 0; j < s; ++j) sum += p[row * s + j] = std::exp(p[row * s + j]);
      for (int64_t j = 0; j < s; ++j) p[row * s + j] /= sum;
    }
    for (int64_t t = 0; t < s; ++t) {
      float mean = 0.0f, square = 0.0f;
      for (int64_t j = 0; j < d; ++j) mean += centred[t * d + j] / static_cast<float>(d);
      for (int64_t j = 0; j < d; ++j) centred[t * d + j] -= mean, square += centred[t * d + j] * centred[t * d + j];
      rstd[static_cast<size_t>(t)] = 1.0f / std::sqrt(square / static_cast<float>(d) + 1e-3f);
    }
  }
  NormBase norm() const { return {centred.data(), rstd.data(), gamma.data()}; }
  AttentionBase attention() const { return {q.data(), k.data(), v.data(), p.data(), s, d, heads, 1.0f / std::sqrt(static_cast<float>(e))}; }

  // LayerNorm of the moved row minus that of the row.
  std::vector<double> layernorm(int64_t t, const std::vector<double>& du) const {
    std::vector<double> out(static_cast<size_t>(d));
    double mean = 0.0, base = 0.0, patched = 0.0;
    for (double x : du) mean += x / static_cast<double>(d);
    for (int64_t j = 0; j < d; ++j) base += std::pow(centred[t * d + j], 2) / static_cast<double>(d), patched += std::pow(centred[t * d + j] + du[j] - mean, 2) / static_cast<double>(d);
    const double r = rstd[static_cast<size_t>(t)], eps = 1.0 / (r * r) - base, moved = 1.0 / std::sqrt(patched + eps);
    for (int64_t j = 0; j < d; ++j) out[j] = gamma[j] * ((centred[t * d + j] + du[j] - mean) * moved - centred[t * d + j] * r);
    return out;
  }
  // Probabilities of a row after its scores moved by ds, minus before.
  std::vector<double> softmax(int64_t h, int64_t t, const std::vector<double>& ds) const {
    std::vector<double> out(static_cast<size_t>(s));
    const double shift = *std::max_element(ds.begin(), ds.end());
    double z = 0.0;
    for (int64_t j = 0; j < s; ++j) z += p[(h * s + t) * s + j] * std::exp(ds[j] - shift);
    for (int64_t j = 0; j < s; ++j) out[j] = p[(h * s + t) * s + j] * (std::exp(ds[j] - shift) / z - 1.0);
    return out;
  }
};

std::vector<float> units(int64_t n) {
  std::vector<float> unit(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) unit[i] = std::ldexp(1.0f, static_cast<int>(-2 - i % 3));
  return unit;
}

void ok(cudaError_t error) {
  if (error != cudaSuccess) std::abort();
}

template <class T>
void norms(const Base& b, int64_t n) {
  const int64_t s = b.s, d = b.d;
  const std::vector<float> unit = units(n);
  Stored<T> du(s * n * d, 0.5f), residual(s * n * d, 0.5f), out(s * n * d);
  ok(delta_layernorm({du.data(), residual.data(), d, s * d, b.norm(), unit.data(), out.data(), kStorage<T>, s, n, d}, nullptr));  // the residual candidate-major
  std::vector<float> first = draw(s * n), second = draw(s * n), a = draw(s * 3 * d), c = draw(2 * d);
  std::vector<int64_t> pick_a(static_cast<size_t>(n)), pick_b(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) pick_a[i] = i % 3, pick_b[i] = i % 2;
  Stored<T> entered(s * n * d), alone(s * n * d);
  ok(delta_entry({first.data(), a.data(), 3 * d, pick_a.data(), second.data(), c.data(), pick_b.data(), b.norm(), unit.data(), entered.data(), kStorage<T>, s, n, d}, nullptr));
  ok(delta_entry({first.data(), a.data(), 0, pick_a.data(), nullptr, nullptr, nullptr, b.norm(), nullptr, alone.data(), kStorage<T>, s, n, d}, nullptr));
  for (int64_t t = 0; t < s; ++t)
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> sum(static_cast<size_t>(d)), rank_two(sum), rank_one(sum);
      for (int64_t j = 0; j < d; ++j) {
        sum[j] = (du[(t * n + i) * d + j] + residual[(i * s + t) * d + j]) * unit[i];
        rank_one[j] = first[t * n + i] * a[pick_a[i] * d + j];
        rank_two[j] = (first[t * n + i] * a[(t * 3 + pick_a[i]) * d + j] + second[t * n + i] * c[pick_b[i] * d + j]) * unit[i];
      }
      const auto check = [&](const char* what, const std::vector<double>& moved, const Stored<T>& got, double u) {
        const std::vector<double> want = b.layernorm(t, moved);
        for (int64_t j = 0; j < d; ++j) expect_near(what, (t * n + i) * d + j, got[(t * n + i) * d + j] * u, want[j], largest(want), tolerance<T>());
      };
      check("delta_layernorm", sum, out, unit[i]);
      check("delta_entry", rank_two, entered, unit[i]);
      check("delta_entry, rank one", rank_one, alone, 1.0);
    }
}

template <class T>
void gelus(const Base& b, int64_t n) {
  const int64_t s = b.s, f = b.d + 3;
  const std::vector<float> unit = units(n), a = draw(s * f, 3.0f);
  std::vector<float> series(static_cast<size_t>(s * 4 * f));
  for (int64_t t = 0; t < s; ++t)
    for (int64_t j = 0; j < f; ++j) {
      const double x = a[t * f + j], phi = std::exp(-x * x / 2) / std::sqrt(2 * M_PI), cdf = 0.5 * std::erfc(-x / std::sqrt(2.0));
      const double c[4] = {cdf + x * phi, phi * (2 - x * x) / 2, phi * x * (x * x - 4) / 6, phi * (-x * x * x * x + 7 * x * x - 4) / 24};
      for (int k = 0; k < 4; ++k) series[(t * 4 + k) * f + j] = static_cast<float>(c[k]);
    }
  const std::vector<double> wide(a.begin(), a.end());
  std::vector<float> made(series.size());
  ok(gelu_series({wide.data(), made.data(), s, f}, nullptr));
  for (size_t i = 0; i < made.size(); ++i) expect_near("gelu_series", static_cast<int64_t>(i), made[i], series[i], 1.0, 2e-7);
  Stored<T> x(s * n * f, 1.0f), got = x;
  ok(delta_gelu({got.data(), a.data(), series.data(), unit.data(), kStorage<T>, s, n, f}, nullptr));
  const auto gelu = [](double v) { return v * 0.5 * std::erfc(-v / std::sqrt(2.0)); };
  for (int64_t i = 0; i < s * n * f; ++i) {
    const int64_t t = i / (n * f), c = i / f % n, j = i % f;
    const double before = a[t * f + j], change = x[i] * unit[c], want = gelu(before + change) - gelu(before);
    expect_near("delta_gelu", i, got[i] * unit[c], want, std::abs(change) + 1e-9, tolerance<T>());
  }
}

template <class T>
void attentions(const Base& b, int64_t n) {
  const int64_t s = b.s, d = b.d, e = b.e;
  const std::vector<float> unit = units(n);
  const double scale = 1.0 / std::sqrt(static_cast<double>(e));
  Stored<T> dqkv(s * n * 3 * d, 0.5f), out(s * n * d), row0(n * d), softmaxed(n * b.heads * (s + 3)), changes(b.heads * n * s, 0.5f);
  ok(delta_attention({dqkv.data(), b.attention(), unit.data(), out.data(), kStorage<T>, n}, nullptr));
  ok(delta_attention_row0({dqkv.data(), b.attention(), unit.data(), row0.data(), kStorage<T>, n}, nullptr));
  for (int64_t i = 0; i < n * b.heads * (s + 3); ++i) write(draw(), softmaxed.values[i]);
  const Stored<T> scores = softmaxed, before = changes;
  ok(delta_softmax_row0({softmaxed.data(), changes.data(), s + 3, b.attention(), unit.data(), kStorage<T>, n}, nullptr));
  std::vector<int64_t> index(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) index[i] = i * 7 % d;
  std::vector<float> change = draw(n), context(static_cast<size_t>(n * d));
  ok(delta_entry_query({index.data(), change.data(), b.attention(), context.data(), n}, nullptr));
  std::vector<float> rest(static_cast<size_t>(b.heads * s));
  for (int64_t row = 0; row < b.heads * s; ++row)
    for (int64_t j = 1; j < s; ++j) rest[row] += b.p[row * s + j];
  Stored<T> against(b.heads * s * n, 1.0f), along_base(s * n * (2 * b.heads + 1)), along_change(n * s * (b.heads + 2));
  ok(delta_low_rank_weights({against.data(), b.attention(), rest.data(), unit.data(), along_base.data(), along_change.data(), 2 * b.heads + 1, b.heads + 2, kStorage<T>, n}, nullptr));

  const auto moved = [&](int64_t t, int64_t i, int64_t part, int64_t h, int64_t j) { return dqkv[((t * n + i) * 3 + part) * d + h * e + j] * unit[i]; };
  const auto check = [&](const char* what, int64_t at, double got, double want) { expect_near(what, at, got, want, 1.0, tolerance<T>()); };
  for (int64_t i = 0; i < n; ++i)
    for (int64_t h = 0; h < b.heads; ++h) {
      for (int64_t t = 0; t < s; ++t) {
        std::vector<double> ds(static_cast<size_t>(s)), only0(ds);
        for (int64_t key = 0; key < s; ++key)
          for (int64_t j = 0; j < e; ++j) {
            const double q = b.q[t * d + h * e + j], k = b.k[key * d + h * e + j], dq = moved(t, i, 0, h, j), dk = moved(key, i, 1, h, j);
            ds[key] += ((q + dq) * (k + dk) - q * k) * scale;
            only0[key] += ((q + dq) * (k + (key == 0 ? dk : 0.0)) - q * k) * scale;
          }
        const std::vector<double> dp = b.softmax(h, t, ds), dp0 = b.softmax(h, t, only0);
        for (int64_t j = 0; j < e; ++j) {
          double want = 0.0, want0 = 0.0;
          for (int64_t key = 0; key < s; ++key) {
            const double p = b.p[(h * s + t) * s + key], v = b.v[key * d + h * e + j], dv = moved(key, i, 2, h, j);
            want += dp[key] * v + (p + dp[key]) * dv;
            want0 += dp0[key] * v + (key == 0 ? (p + dp0[key]) * dv : 0.0);
          }
          check("delta_attention", (t * n + i) * d + h * e + j, out[(t * n + i) * d + h * e + j] * unit[i], want);
          if (t == 0) check("delta_attention_row0", i * d + h * e + j, row0[i * d + h * e + j] * unit[i], want0);
        }
        std::vector<double> first(static_cast<size_t>(s));
        first[0] = against[(h * s + t) * n + i] * scale * unit[i];
        const double p0 = b.p[(h * s + t) * s], z = rest[h * s + t] + p0 * std::exp(first[0]);
        check("low rank, context", i, along_base[(t * n + i) * (2 * b.heads + 1) + h] * unit[i], -p0 * std::expm1(first[0]) / z);
        check("low rank, base", i, along_base[(t * n + i) * (2 * b.heads + 1) + b.heads + h] * unit[i], p0 * std::expm1(first[0]) * rest[h * s + t] / z);
        check("low rank, change", i, along_change[(i * s + t) * (b.heads + 2) + h], p0 * std::exp(first[0]) / z);
      }
      std::vector<double> ds(static_cast<size_t>(s)), query(ds);
      for (int64_t key = 0; key < s; ++key) {
        ds[key] = (scores[(i * b.heads + h) * (s + 3) + key] + before[(h * n + i) * s + key]) * scale * unit[i];
        query[key] = change[i] * b.k[key * d + index[i]] * scale;
      }
      const std::vector<double> dp = b.softmax(h, 0, ds), of_query = b.softmax(h, 0, query);
      for (int64_t key = 0; key < s; ++key) {
        check("delta_softmax_row0, weights", key, softmaxed[(i * b.heads + h) * (s + 3) + key], b.p[h * s * s + key] + dp[key]);
        check("delta_softmax_row0, changes", key, changes[(h * n + i) * s + key] * unit[i], dp[key]);
      }
      for (int64_t j = 0; j < e; ++j) {
        double want = 0.0;
        if (index[i] / e == h)
          for (int64_t key = 0; key < s; ++key) want += of_query[key] * b.v[key * d + h * e + j];
        check("delta_entry_query", i * d + h * e + j, context[i * d + h * e + j], want);
      }
    }
}

void units_of_rows(int64_t n, int64_t d) {
  std::vector<float> rows = draw(n * d), unit(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < d; ++j) rows[i * d + j] = i % 4 == 3 ? 0.0f : std::ldexp(rows[i * d + j], static_cast<int>(-9 * (i % 12)));
  Stored<__half> stored(n * d);
  ok(delta_units({rows.data(), stored.data(), unit.data(), n, d}, nullptr));
  for (int64_t i = 0; i < n; ++i) {
    double most = 0.0;
    for (int64_t j = 0; j < d; ++j) {
      most = std::max(most, std::abs(stored[i * d + j]));
      expect_near("delta_units", i * d + j, stored[i * d + j] * unit[i], rows[i * d + j], 16.0 * unit[i], 5e-4);
    }
    if (i % 4 != 3 && !(most > 7.99 && most <= 16.0)) expect_near("delta_units, size", i, most, 12.0, 1.0, 4.0);
  }
}

void heads_and_masks(const Base& b, int64_t n) {
  const int64_t d = b.d, classes = 3;
  std::vector<float> pooler = draw(n * d);
  std::vector<double> pooled(static_cast<size_t>(d)), classifier(static_cast<size_t>(classes * d)), out(static_cast<size_t>(n * classes));
  for (double& x : pooled) x = std::tanh(3.0 * draw());
  for (double& x : classifier) x = draw();
  ok(delta_head({pooler.data(), pooled.data(), classifier.data(), out.data(), n, d, classes}, nullptr));
  for (int64_t i = 0; i < n * classes; ++i) {
    double want = 0.0;
    for (int64_t j = 0; j < d; ++j) want += (std::tanh(std::atanh(pooled[j]) + pooler[i / classes * d + j]) - pooled[j]) * classifier[i % classes * d + j];
    expect_near("delta_head", i, out[i], want, 1.0, 1e-9);
  }
  const int64_t in = b.s + 3, bytes = (in + 7) / 8;
  std::vector<float> weight = draw(d * in), scores = draw(d * in), masked(weight.size()), again(weight.size());
  std::vector<uint8_t> bits(static_cast<size_t>(d * bytes));
  ok(mask_weight({weight.data(), false, scores.data(), 0.1f, bits.data(), masked.data(), d, in}, nullptr));
  ok(mask_weight({weight.data(), false, nullptr, 0.0f, bits.data(), again.data(), d, in}, nullptr));
  std::vector<uint16_t> narrow(weight.size(), 7), kept(weight.size());
  ok(mask_weight({narrow.data(), true, nullptr, 0.0f, bits.data(), kept.data(), d, in}, nullptr));
  for (int64_t i = 0; i < d * in; ++i) {
    const bool keep = scores[i] > 0.1f;
    expect_near("mask_weight", i, masked[i], keep ? weight[i] : 0.0, 1.0, 0.0);
    expect_near("mask_weight, from bits", i, again[i], masked[i], 1.0, 0.0);
    expect_near("mask_weight, two bytes", i, kept[i], keep ? 7 : 0, 1.0, 0.0);
  }
}

// The linear method's entries, by moving the base run's own row.
void adjoints(const Base& b, int64_t n) {
  const int64_t s = b.s, d = b.d, e = b.e, heads = b.heads, g_all = 2;
  const double scale = 1.0 / std::sqrt(static_cast<double>(e));
  std::vector<int64_t> index(static_cast<size_t>(n));
  std::vector<double> change(static_cast<size_t>(n)), query(static_cast<size_t>(n * (g_all + 1))), key(query), norm(query);
  for (int64_t i = 0; i < n; ++i) index[i] = i * 5 % d, change[i] = 2.0 * draw();
  const std::vector<float> along = draw(heads * g_all * s), along_first = draw(heads * g_all * s), strength = draw(heads * s);
  std::vector<float> rest(static_cast<size_t>(heads * s));
  for (int64_t row = 0; row < heads * s; ++row)
    for (int64_t j = 1; j < s; ++j) rest[row] += b.p[row * s + j];
  ok(adjoint_query({index.data(), change.data(), b.k.data(), b.p.data(), along.data(), strength.data(), query.data(), n, g_all, s, d, heads}, nullptr));
  ok(adjoint_key({index.data(), change.data(), b.q.data(), b.p.data(), rest.data(), along.data(), along_first.data(), strength.data(), key.data(), n, g_all, s, d, heads}, nullptr));
  std::vector<double> products(static_cast<size_t>((1 + g_all) * d)), squares(static_cast<size_t>(d), 1.0 - 1.0 / static_cast<double>(d)), slope(static_cast<size_t>(g_all * d));
  std::vector<double> facts = {b.rstd[0], 0.7, 0.0, 0.0};
  for (int64_t g = 0; g < g_all; ++g) {
    double mean = 0.0;
    for (int64_t j = 0; j < d; ++j) slope[g * d + j] = draw(), mean += slope[g * d + j] / static_cast<double>(d);
    for (int64_t j = 0; j < d; ++j) slope[g * d + j] -= mean, products[(1 + g) * d + j] = slope[g * d + j], facts[2 + g] += slope[g * d + j] * b.centred[j];
  }
  for (int64_t j = 0; j < d; ++j) products[j] = b.centred[j];
  ok(adjoint_norm({index.data(), change.data(), products.data(), squares.data(), facts.data(), norm.data(), n, g_all, d, d}, nullptr));

  for (int64_t i = 0; i < n; ++i) {
    const int64_t h = index[i] / e;
    const double square = change[i] * change[i];
    std::vector<double> ds(static_cast<size_t>(s)), du(static_cast<size_t>(d));
    double mean = 0.0, spread = 0.0, by_query = 0.0;
    for (int64_t t = 0; t < s; ++t) ds[t] = change[i] * scale * b.k[t * d + index[i]], mean += b.p[h * s * s + t] * b.k[t * d + index[i]];
    for (int64_t t = 0; t < s; ++t) spread += b.p[h * s * s + t] * std::pow(b.k[t * d + index[i]] - mean, 2);
    const std::vector<double> dp = b.softmax(h, 0, ds);
    du[index[i]] = change[i];
    Base plain = b;  // without the LayerNorm's weight, which is in the slopes
    for (float& gamma : plain.gamma) gamma = 1.0f;
    const std::vector<double> dy = plain.layernorm(0, du);
    for (int64_t g = 0; g < g_all; ++g) {
      double want_query = 0.0, want_key = 0.0, want_norm = 0.0;
      for (int64_t t = 0; t < s; ++t) {
        want_query += dp[t] * along[(h * g_all + g) * s + t];
        std::vector<double> first(static_cast<size_t>(s));
        first[0] = change[i] * scale * b.q[t * d + index[i]];
        const double p0 = b.p[(h * s + t) * s], moved = b.softmax(h, t, first)[0];
        want_key += moved * along_first[(h * g_all + g) * s + t] - moved / (1.0 - p0 + 1e-300) * (s > 1 ? along[(h * g_all + g) * s + t] : 0.0);
      }
      for (int64_t j = 0; j < d; ++j) want_norm += dy[j] * slope[g * d + j];
      expect_near("adjoint_query", i, query[i * (g_all + 1) + g], want_query, 1.0, 2e-5);
      if (s > 1) expect_near("adjoint_key", i, key[i * (g_all + 1) + g], want_key, 1.0, 2e-4);
      expect_near("adjoint_norm", i, norm[i * (g_all + 1) + g], want_norm, 1.0, 1e-4);
    }
    for (int64_t t = 0; t < s; ++t) {
      const double p0 = b.p[(h * s + t) * s];
      by_query += strength[h * s + t] * p0 * (1.0 - p0) * std::pow(b.q[t * d + index[i]], 2);
    }
    expect_near("adjoint_query, left out", i, query[i * (g_all + 1) + g_all], strength[h] * spread * square, 1.0, 2e-5);
    expect_near("adjoint_key, left out", i, key[i * (g_all + 1) + g_all], by_query * square, 1.0, 2e-5);
    expect_near("adjoint_norm, left out", i, norm[i * (g_all + 1) + g_all], 0.7 * square, 1.0, 1e-12);
  }
}

// Every response of every neuron, three samples, by its definition: both sides evaluated and subtracted.
void counts(int64_t n) {
  constexpr int kClasses = 3, kSamples = 3;
  constexpr int64_t kTreatments = 2, kLabels = 3, kColumns = kTreatments + 1, kRows = 11 + 2 * kLabels;
  const ResponseKind kinds[] = {ResponseKind::probability, ResponseKind::odds, ResponseKind::log_odds, ResponseKind::logit_difference, ResponseKind::kl, ResponseKind::flip};
  for (const ResponseKind kind : kinds) {
    std::vector<double> sums(static_cast<size_t>(kColumns * kRows * n)), sizes(static_cast<size_t>(3 * n)), effects(static_cast<size_t>(kSamples * kColumns * n));
    std::vector<int64_t> samples(static_cast<size_t>(kColumns * 2 * n), -1), bad(static_cast<size_t>(n), -1), where(static_cast<size_t>(kTreatments * n));
    std::vector<int64_t> exact(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) exact[i] = i % 2;
    for (int64_t i = 0; i < kTreatments * n; ++i) where[i] = kTreatments * n - 1 - i;
    for (int64_t j = 0; j < kColumns; ++j)
      for (int64_t i = 0; i < n; ++i) sums[(j * kRows + 6) * n + i] = INFINITY, sums[(j * kRows + 7) * n + i] = -INFINITY;
    double size = 0.0;
    for (int sample = 0; sample < kSamples; ++sample) {
      double z[kClasses], p[kClasses], total = 0.0;
      for (double& x : z) x = 2.0 * draw(), total += std::exp(x);
      for (int c = 0; c < kClasses; ++c) p[c] = std::exp(z[c]) / total;
      ResponseAt r{kind, kClasses, 1, static_cast<int>(std::max_element(z, z + kClasses) - z), {}, 0.0, 0.0};
      const double odds = p[1] / (1.0 - p[1]);
      r.base = kind == ResponseKind::probability ? p[1] : odds;
      r.log_base = std::log(r.base);
      for (int c = 0; c < kClasses; ++c) {
        if (kind == ResponseKind::probability || kind == ResponseKind::kl) r.weights[c] = std::log(p[c]);
        if (kind == ResponseKind::odds || kind == ResponseKind::log_odds) r.weights[c] = std::log(p[c] / (1.0 - p[1]));
        if (kind == ResponseKind::logit_difference) r.weights[c] = c == 1 ? 0.0 : 0.5;
        if (kind == ResponseKind::flip) r.weights[c] = z[r.likeliest] - z[c];
      }
      std::vector<double> found(static_cast<size_t>(kTreatments * n * kClasses));
      for (double& x : found) x = draw();
      for (int64_t row = 0; row < kTreatments * n; ++row) found[row * kClasses + kClasses - 1] = 0.25;
      if (sample == 1) found[where[n - 1] * kClasses] = NAN;  // of the last neuron
      ok(count_effects({found.data(), where.data(), exact.data(), r, 2.0, 1.0 / (sample + 1), sample == 0 ? 1.0 : 1.0 / sample, 1.0 / (sample / 2 + 1), 40 + sample, sample == 0 ? -1 : 2, sample % 2,
                        sums.data(), samples.data(), bad.data(), sizes.data(), n, kTreatments, kLabels},
                       nullptr));
      for (int64_t i = 0; i < n; ++i) {
        double reach = 0.0, largest = 0.0;
        for (int64_t t = 0; t < kTreatments; ++t) {
          double moved[kClasses], after = 0.0, kl = 0.0, q[kClasses];
          for (int c = 0; c < kClasses; ++c) moved[c] = c == 0 ? 0.0 : found[where[t * n + i] * kClasses + c - 1], after += std::exp(z[c] + moved[c]);
          for (int c = 0; c < kClasses; ++c) q[c] = std::exp(z[c] + moved[c]) / after, kl += p[c] * std::log(p[c] / q[c]);
          const double by_kind[] = {q[1] / p[1] - 1.0, q[1] / (1.0 - q[1]) / odds - 1.0, std::log(q[1] / (1.0 - q[1]) / odds), moved[1] - (moved[0] + moved[2]) / 2.0, kl,
                                    std::max_element(q, q + kClasses) - q == r.likeliest ? 0.0 : 1.0};
          const double effect = by_kind[static_cast<int>(kind)];
          effects[(sample * kColumns + t) * n + i] = effect;
          reach += *std::max_element(moved, moved + kClasses) - *std::min_element(moved, moved + kClasses);
          largest = std::max(largest, std::abs(effect));
        }
        const double contrast = effects[sample * kColumns * n + i] - effects[(sample * kColumns + 1) * n + i];
        effects[(sample * kColumns + 2) * n + i] = contrast;
        largest = std::max(largest, std::abs(contrast));
        if (i == 0) size += 2.0 * (kind == ResponseKind::kl ? reach : 1.0) * 0.5 * (kind == ResponseKind::probability || kind == ResponseKind::odds ? 1.0 + largest : 1.0);
      }
    }
    expect_near("count_effects, size", 0, sizes[0], n > 1 ? size : sizes[0], 1.0, 1e-9);
    expect_near("count_effects, not finite", n - 1, static_cast<double>(bad[n - 1]), 41.0, 1.0, 0.0);
    for (int64_t j = 0; j < kColumns; ++j)
      for (int64_t i = 0; i + 1 < n; ++i) {
        const auto effect = [&](int sample) { return effects[(sample * kColumns + j) * n + i]; };
        const auto sum = [&](int64_t row) { return sums[(j * kRows + row) * n + i]; };
        const double mean = (effect(0) + effect(1) + effect(2)) / 3.0;
        double deviations = 0.0;
        int low = 0, high = 0;
        for (int k = 0; k < kSamples; ++k) {
          deviations += std::pow(effect(k) - mean, 2);
          if (effect(k) < effect(low)) low = k;
          if (effect(k) > effect(high)) high = k;
        }
        const auto check = [&](const char* what, double got, double want) { expect_near(what, i, got, want, 1.0, 1e-9); };
        check("count_effects, mean", sum(0), mean);
        check("count_effects, deviations", sum(3), deviations);
        check("count_effects, low", sum(6), effect(low));
        check("count_effects, high", sum(7), effect(high));
        check("count_effects, magnitude", sum(8), std::abs(effect(0)) + std::abs(effect(1)) + std::abs(effect(2)));
        check("count_effects, label", sum(9 + 2), (effect(1) + effect(2)) / 2.0);
        check("count_effects, label's deviations", sum(9 + kLabels + 2), std::pow(effect(1) - effect(2), 2) / 2.0);
        check("count_effects, halves", sum(9 + 2 * kLabels), (effect(0) + effect(2)) / 2.0);
        check("count_effects, where low", static_cast<double>(samples[j * 2 * n + i]), 40.0 + low);
        check("count_effects, where high", static_cast<double>(samples[(j * 2 + 1) * n + i]), 40.0 + high);
      }
  }
}

template <class T>
void all(int64_t s, int64_t n, int64_t heads, int64_t e) {
  const Base b(s, heads, e);
  norms<T>(b, n);
  gelus<T>(b, n);
  attentions<T>(b, n);
  heads_and_masks(b, n);
  units_of_rows(n, b.d);
  adjoints(b, n);
  counts(n);
}

}  // namespace

int main(int argc, char** argv) {
  const bool tiny = argc > 1 && std::strcmp(argv[1], "--tiny") == 0;
  const int schedules = tiny ? 1 : 4;
  for (int schedule = 0; schedule < schedules; ++schedule) {
    setenv("PN_EMULATOR_SCHEDULE", std::to_string(schedule).c_str(), 1);
    if (tiny) {
      all<float>(3, 2, 1, 5);
      all<__half>(17, 1, 1, 32);
      continue;
    }
    all<float>(1, 1, 1, 1 + 8);
    all<float>(7, 5, 3, 11);
    all<float>(9, 3, 2, 16);
    all<__half>(5, 9, 3, 11);
    all<__half>(13, 9, 2, 32);
    all<__half>(19, 3, 1, 64);
    if (schedule == 0) {
      all<float>(4, 2, 3, 171);  // more than 512 columns, unaligned
      all<__half>(67, 2, 1, 64);
      all<__half>(33, 1, 12, 64);
      all<__half>(130, 1, 1, 32);  // beyond the tensor cores' kernel
    }
  }
  if (failures) {
    std::fprintf(stderr, "%d values are wrong\n", failures);
    return 1;
  }
  std::puts("device kernels on the host: all values right");
  return 0;
}
