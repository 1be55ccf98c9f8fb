// What the tests of the device kernels on the host share: random arrays, a base run with its plain definitions in double, and how values compare.
#pragma once
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

namespace pyneuro::reference {

using namespace cuda;

inline uint32_t state = 1;
inline float draw() {  // uniform in [-1, 1)
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0f;
}
inline std::vector<float> draw(int64_t n, float scale = 1.0f) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = draw() * scale;
  return x;
}

inline float read(float x) { return x; }
inline float read(__half x) { return __half2float(x); }
inline void write(float value, float& x) { x = value; }
inline void write(float value, __half& x) { x = __float2half_rn(value); }

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

inline int failures = 0;
inline void expect_near(const char* what, int64_t i, double got, double want, double scale, double tolerance) {
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

inline std::vector<float> units(int64_t n) {
  std::vector<float> unit(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) unit[i] = std::ldexp(1.0f, static_cast<int>(-2 - i % 3));
  return unit;
}

inline void ok(cudaError_t error) {
  if (error != cudaSuccess) std::abort();
}

// device_predictions_on_host.cpp
void adjoints(const Base& b, int64_t n);
void counts(int64_t n);

}  // namespace pyneuro::reference
