// From the change of the logits in a patched run to the change of a response, without cancellation, and running moments of it. In double, for
// the device; the same formulas as pyneuro/effects/response.py and moments.py, which say why.
#pragma once
#include <cmath>
#include <cstdint>

#include "pyneuro/math.h"

namespace pyneuro {

constexpr int kMostClasses = 16;

enum class ResponseKind { probability, odds, log_odds, logit_difference, kl, flip };

// A response on one sample. By kind, `weights` holds by class: log p; log p among the classes beside the target (odds and log-odds); the share of
// a foil in the mean; log p; how far a class lies below the likeliest.
struct ResponseAt {
  ResponseKind kind;
  int classes, target, likeliest;
  double weights[kMostClasses];
  double log_base, base;  // of r; log_base for responses on a ratio scale alone
};

// Changes of the logits relative to logit 0, kept for logits 1 to C - 1.
struct LogitChanges {
  const double* kept;
  PN_HD double operator[](int c) const { return c == 0 ? 0.0 : kept[c - 1]; }
};

struct Terms {
  double effect, log_ratio, difference;
};
PN_HD Terms operator-(const Terms& a, const Terms& b) { return {a.effect - b.effect, a.log_ratio - b.log_ratio, a.difference - b.difference}; }

constexpr double kHot = 40.0, kCeiling = 700.0, kSeries = 0.25;

// w growth, growth being exp(d) minus lower orders; beyond kHot, exp(d) meets its weight before either leaves the range of double.
PN_HD double weighted(double log_w, double d, double growth) { return d > kHot ? exp(fmin(log_w + d, kCeiling)) : exp(log_w) * growth; }

// expm1(y) - y.
PN_HD double expm1_minus(double y) {
  if (fabs(y) >= kSeries) {
    const double capped = fmin(y, kHot);
    return expm1(capped) - capped;
  }
  // y^2/2! + y^3/3! + ... + y^12/12! by Horner's rule: 1e-16 of it.
  double sum = 0.0;
  for (int k = 12; k > 2; --k) sum = (sum + 1.0) * y / k;
  return (sum + 1.0) * y * y / 2;
}

// log(exp(log_rest) + sum over j of w_j exp(d_j)) for weights that sum to 1. `skip` is a class that has no part, d_j = delta[j] - shift.
PN_HD double log_mean_exp(const ResponseAt& r, const LogitChanges& delta, double shift, int skip, double log_rest) {
  double excess = 0.0, peak = log_rest;
  for (int j = 0; j < r.classes; ++j) {
    if (j == skip) continue;
    const double d = delta[j] - shift;
    excess += weighted(r.weights[j], d, expm1(fmin(d, kHot)));
    peak = fmax(peak, r.weights[j] + d);
  }
  if (excess >= -0.5 && excess <= 1.0) return log1p(excess);
  double sum = exp(log_rest - peak);
  for (int j = 0; j < r.classes; ++j)
    if (j != skip) sum += exp(r.weights[j] + delta[j] - shift - peak);
  return peak + log(sum);
}

PN_HD double kl_change(const ResponseAt& r, const LogitChanges& delta) {
  double mean = 0.0, excess = 0.0, peak = -INFINITY;
  for (int j = 0; j < r.classes; ++j) mean += (delta[j] - delta[r.likeliest]) * exp(r.weights[j]);
  for (int j = 0; j < r.classes; ++j) {
    const double y = delta[j] - delta[r.likeliest] - mean;
    excess += weighted(r.weights[j], y, expm1_minus(y));
    peak = fmax(peak, r.weights[j] + y);
  }
  if (!(excess > 1.0)) return log1p(excess);
  double sum = 0.0;
  for (int j = 0; j < r.classes; ++j) sum += exp(r.weights[j] + delta[j] - delta[r.likeliest] - mean - peak);
  return peak + log(sum);
}

PN_HD Terms ratio_terms(const ResponseAt& r, double log_ratio) {
  const double effect = expm1(log_ratio);
  return {effect, log_ratio, log_ratio > 1.0 ? exp(r.log_base + log_ratio) - r.base : r.base * fmin(effect, 2.0)};
}
PN_HD Terms plain_terms(double change) { return {change, NAN, change}; }

// delta finite. (0.0 - x leaves no negative zeros.)
PN_HD Terms response_terms(const ResponseAt& r, const LogitChanges& delta) {
  const double shift = delta[r.target];
  switch (r.kind) {
    case ResponseKind::probability:
      return ratio_terms(r, 0.0 - log_mean_exp(r, delta, shift, r.target, r.weights[r.target]));
    case ResponseKind::odds:
      return ratio_terms(r, 0.0 - log_mean_exp(r, delta, shift, r.target, -INFINITY));
    case ResponseKind::log_odds:
      return plain_terms(0.0 - log_mean_exp(r, delta, shift, r.target, -INFINITY));
    case ResponseKind::logit_difference: {
      double sum = 0.0;
      for (int j = 0; j < r.classes; ++j) sum += r.weights[j] * (shift - delta[j]);
      return plain_terms(sum);
    }
    case ResponseKind::kl:
      return plain_terms(kl_change(r, delta));
    default:
      break;
  }
  bool overtaken = false;
  for (int j = 0; j < r.classes; ++j) overtaken = overtaken || delta[j] - delta[r.likeliest] > r.weights[j];
  return plain_terms(overtaken ? 1.0 : 0.0);
}

// One value more into a mean (Welford 1962); weight is 1 over the new count. Returns its part of the squared deviations.
PN_HD double add_to_mean(double weight, double value, double& mean) {
  const double deviation = value - mean, step = deviation * weight;
  mean += step;
  return deviation * (deviation - step);
}

}  // namespace pyneuro
