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

// LayerNorm y = (u - mean) r gamma + beta, r = 1 / sqrt(var + eps). With c = u - mean(u), dc = du - mean(du) and dvar = mean(dc (2c + dc)):
// dy = gamma (dc r' + c dr), r' = r + dr. Writing g = (var' + eps) / (var + eps) = 1 + dvar r^2, s = sqrt(g): r' = r / s and
// dr = -dvar r^3 / (s (1 + s)).
struct RstdChange {
  float patched;  // r'
  float delta;    // dr
};
PN_HD RstdChange delta_rstd(float rstd, float growth_less_one, float growth) {
  const float s = __builtin_sqrtf(growth);
  return {rstd / s, -rstd * growth_less_one / (s * (1.0f + s))};
}

// Below this growth, 1 + dvar r^2 has lost digits and the patched variance is summed afresh: mean((c + dc)^2) + eps over var + eps.
constexpr float kLeastGrowth = 0.25f;

// softmax over j: with x_j = expm1(ds_j) and E = sum_j p_j x_j, dp_j = p_j (x_j - E) / (1 + E). `inverse` is 1 / (1 + E), once a row.
PN_HD float delta_softmax(float p, float x, float mean_x, float inverse) { return p * (x - mean_x) * inverse; }

// Outside this range of E, 1 + E has lost digits (the tokens that held the probability lost it) or x may have overflowed, and the change is
// large: dp_j = p_j (exp(ds_j - m) / Z - 1) then, with m the ds of the key that ends up likeliest and Z = sum_j p_j
// exp(ds_j - m), keeps them all.
constexpr float kLeastMean = -0.5f, kMostMean = 1.0f;
PN_HD float delta_softmax_far(float p, float exp_shifted, float z) { return (p * exp_shifted) / z - p; }

// A query row whose score moved against the patched token alone (probability p there, `rest` = 1 - p summed over the others, x = expm1(ds)):
// with Z = rest + p exp(ds) its context changes by context * (ctx - p v) + base * v + value * dv, v the base value of the patched token and
// dv its change.
struct PatchedKeyWeights {
  float context;  // -p x / Z
  float base;     // p x rest / Z
  float value;    // p exp(ds) / Z
};
PN_HD PatchedKeyWeights patched_key_weights(float p, float rest, float ds) {
  const Exponential e = exponential(ds);
  const float inverse = 1.0f / (rest + p * e.exp);
  const float moved = p * e.expm1 * inverse;
  return {-moved, moved * rest, p * e.exp * inverse};
}

}  // namespace pyneuro
