// Difference forms: what a nonlinearity's output changes by when its input changes by a given difference, without subtracting two nearly
// equal values. One formula, one place: the CPU and the CUDA kernels call these.
#pragma once
#include "pyneuro/math.h"

namespace pyneuro {

// Beyond this |difference| the Taylor series of GELU gives way to the plain difference.
constexpr float kGeluSeriesRadius = 0.1f;

// gelu(a + d) - gelu(a) = c1 d + c2 d^2 + c3 d^3 + c4 d^4, with the derivatives at a divided by k! (precomputed a token, see gelu_series in
// pyneuro/ops/reference.py). V is float or a vector of them.
template <class V>
PN_HD V delta_gelu_series(V d, V c1, V c2, V c3, V c4) {
  return d * (c1 + d * (c2 + d * (c3 + d * c4)));
}

PN_HD float delta_gelu_plain(float a, float d) { return gelu(a + d) - gelu(a); }

PN_HD float delta_gelu(float a, float d, float c1, float c2, float c3, float c4) {
  const float series = delta_gelu_series(d, c1, c2, c3, c4);
  const float magnitude = d < 0.0f ? -d : d;
  return magnitude > kGeluSeriesRadius ? delta_gelu_plain(a, d) : series;
}

// LayerNorm y = (u - mean) r gamma + beta, r = 1 / sqrt(var + eps). With c = u - mean(u), dc = du - mean(du) and dvar = mean(dc (2c + dc)):
// dy = gamma (dc r' + c dr), r' = r + dr. Writing q = dvar r^2, s = sqrt(1 + q): r' = r / s and dr = -r q / (s (1 + s)).
struct RstdChange {
  float patched;  // r'
  float delta;    // dr
};
PN_HD RstdChange delta_rstd(float rstd, float dvar) {
  const float q = dvar * rstd * rstd;
  const float s = __builtin_sqrtf(1.0f + q);
  return {rstd / s, -rstd * q / (s * (1.0f + s))};
}

// softmax over j: with x_j = expm1(ds_j) and E = sum_j p_j x_j, dp_j = p_j (x_j - E) / (1 + E).
PN_HD float delta_softmax(float p, float x, float mean_x) { return p * (x - mean_x) / (1.0f + mean_x); }

// A query row whose score moved against the patched token alone (probability p there, x = expm1(ds)): with E = p x its context changes by
// context * (ctx - p v) + base * v + value * dv, v the base value of the patched token and dv its change.
struct PatchedKeyWeights {
  float context;  // -E / (1 + E)
  float base;     // p (x - E) / (1 + E)
  float value;    // p (1 + x) / (1 + E)
};
PN_HD PatchedKeyWeights patched_key_weights(float p, float ds) {
  const float x = expm1_fast(ds);
  const float mean_x = p * x;
  const float inverse = 1.0f / (1.0f + mean_x);
  return {-mean_x * inverse, p * (x - mean_x) * inverse, p * (1.0f + x) * inverse};
}

}  // namespace pyneuro
