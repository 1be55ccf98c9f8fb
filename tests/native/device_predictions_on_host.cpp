// The kernels of predictions, run as device_kernels_on_host.cpp runs the others: entries times adjoints, and moments of effects.
#include "device_reference.h"

namespace pyneuro::reference {

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

}  // namespace pyneuro::reference
