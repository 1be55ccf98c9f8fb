// Runs every device kernel from its real .cu file on the host (csrc/emulator), on heap arrays of the exact size, under AddressSanitizer and
// UndefinedBehaviorSanitizer, or under ThreadSanitizer at tiny sizes, in several orders of the threads, at odd sizes, and compares with the same
// quantities in double, by their plain definitions.
#include "device_reference.h"

using namespace pyneuro::reference;

namespace {

using namespace pyneuro;
using namespace pyneuro::cuda;

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
