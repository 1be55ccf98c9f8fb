// Scalar fp32 functions used inside the difference kernels, on the host and on the device.
//
// They are branch-free (selects only), so the host compiler vectorises a loop that calls them, and they keep small arguments exact to rounding:
// a difference kernel lives on expm1 near zero.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define PN_HD __host__ __device__ __forceinline__
#else
#define PN_HD inline __attribute__((always_inline))
#endif

namespace pyneuro {

PN_HD float bits_to_float(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// Clamp by selects: both comparisons are false for NaN, which passes through.
PN_HD float clamp(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

// x = n ln 2 + r with |r| <= ln 2 / 2. Cody-Waite in two parts; adding 1.5 * 2^23 rounds to the nearest integer.
struct ExpReduction {
  float r;
  float scale;  // 2^n
};
PN_HD ExpReduction reduce_exp(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float n = shifted - 12582912.0f;
  float r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  return {r, bits_to_float((static_cast<int32_t>(n) + 127) << 23)};
}

// exp(r) - 1 for |r| <= ln 2 / 2: Taylor to r^7, first omitted term 1.5e-8 relative.
PN_HD float expm1_reduced(float r) {
  float s = 1.0f / 5040.0f;
  s = s * r + 1.0f / 720.0f;
  s = s * r + 1.0f / 120.0f;
  s = s * r + 1.0f / 24.0f;
  s = s * r + 1.0f / 6.0f;
  s = s * r + 0.5f;
  return r + r * r * s;
}

// exp(x) and exp(x) - 1, each to full relative accuracy; saturating at x = 88.
struct Exponential {
  float exp;
  float expm1;
};
PN_HD Exponential exponential(float x) {
  const ExpReduction e = reduce_exp(clamp(x, -87.0f, 88.0f));
  const float part = expm1_reduced(e.r);
  return {e.scale * part + e.scale, e.scale * part + (e.scale - 1.0f)};
}
PN_HD float expm1_fast(float x) { return exponential(x).expm1; }
PN_HD float exp_fast(float x) { return exponential(x).exp; }

// erfc(y) for y >= 0: t exp(-y^2 + P(t)), t = 1 / (1 + y / 2). P is a Chebyshev fit of our own on t in [0.2, 1]: 3.5e-8 relative,
// 2e-7 with fp32 coefficients.
PN_HD float erfc_positive(float y) {
  y = clamp(y, 0.0f, 8.0f);
  const float t = 1.0f / (1.0f + 0.5f * y);
  float s = 0.12279358931304842f;
  s = s * t - 0.5583772958616577f;
  s = s * t + 0.8634607704323696f;
  s = s * t - 0.29803919704216963f;
  s = s * t - 0.4172309363341742f;
  s = s * t + 0.18502097599019712f;
  s = s * t - 0.029800593397772124f;
  s = s * t + 0.4005914555710243f;
  s = s * t + 0.9969420963333461f;
  s = s * t - 1.2653608317015301f;
  return t * exp_fast(s - y * y);
}

// gelu(x) = x Phi(x), erf form.
PN_HD float gelu(float x) {
  const float upper = 0.5f * erfc_positive((x < 0.0f ? -x : x) * 0.70710678f);
  return x * (x > 0.0f ? 1.0f - upper : upper);
}

}  // namespace pyneuro
