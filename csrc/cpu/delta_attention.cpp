// Attention of a difference when every row changed.
//
// Head by head, candidate by candidate (a candidate's rows are strided by N in the token-major layout):
//   scores  ds  = [q + dq | dq] [dk | k]ᵀ          one product over K = 2e; the base keys are packed once a head
//   softmax difference of ds / sqrt(e)
//   context dctx = [dp | p] [v + dv ; dv]          one product over K = 2S; the base probabilities are laid down once a head
// Rows of scores are padded to whole vectors with p = 0, which makes their dp 0, so that no loop over keys has a tail.
#include "cpu/attention.h"
#include "cpu/families.h"

namespace pyneuro::PN_ISA {
namespace {

// One thread's operands of both products for one head.
class HeadProducts {
 public:
  HeadProducts(const AttentionBase& base)
      : base_(base),
        s_(base.tokens),
        e_(base.hidden / base.heads),
        keys_(ceil_div(s_, kLanes) * kLanes),
        score_stride_(2 * e_ * kPanel),
        value_stride_((keys_ + s_) * kPanel),
        scratch_(s_ * 2 * e_ + ceil_div(s_, kPanel) * score_stride_ + s_ * weights_ld() + ceil_div(e_, kPanel) * value_stride_ + s_ * keys_) {
    queries = scratch_.get();
    key_panels = queries + s_ * 2 * e_;
    weights = key_panels + ceil_div(s_, kPanel) * score_stride_;
    value_panels = weights + s_ * weights_ld();
    scores = value_panels + ceil_div(e_, kPanel) * value_stride_;
    std::memset(value_panels, 0, static_cast<size_t>(ceil_div(e_, kPanel) * value_stride_) * sizeof(float));
    std::memset(weights, 0, static_cast<size_t>(s_ * weights_ld()) * sizeof(float));
  }

  // The halves that belong to the base run.
  void begin_head(int64_t h) {
    pack_transposed(base_.k + h * e_, base_.hidden, s_, e_, key_panels + e_ * kPanel, score_stride_);
    const float* p = base_.p + h * s_ * s_;
    for (int64_t t = 0; t < s_; ++t) std::memcpy(weights + t * weights_ld() + keys_, p + t * s_, static_cast<size_t>(s_) * sizeof(float));
  }

  // One candidate: rows [S] of dq, dk, dv of the head, `ld` apart (q, k, v parts `hidden` apart) -> dctx rows `ldo` apart.
  void run(int64_t h, const float* rows, int64_t ld, float* out, int64_t ldo) {
    const int64_t d = base_.hidden;
    for (int64_t t = 0; t < s_; ++t) {
      const float *dq = rows + t * ld, *q = base_.q + t * d + h * e_;
      float* query = queries + t * 2 * e_;
#pragma omp simd
      for (int64_t j = 0; j < e_; ++j) {
        query[j] = q[j] + dq[j];
        query[e_ + j] = dq[j];
      }
      for (int64_t j = 0; j < e_; j += kPanel) {
        const int64_t width = min(kPanel, e_ - j);
        const Pair dv = load_pair(dq + 2 * d + j, width), v = load_pair(base_.v + t * d + h * e_ + j, width);
        float* panel = value_panels + j / kPanel * value_stride_ + t * kPanel;
        store_pair(panel, {v.lo + dv.lo, v.hi + dv.hi}, kPanel);
        store_pair(panel + keys_ * kPanel, dv, kPanel);
      }
    }
    pack_transposed(rows + d, ld, s_, e_, key_panels, score_stride_);
    multiply_panels(queries, 2 * e_, s_, key_panels, score_stride_, 2 * e_, keys_, scores, keys_);
    for (int64_t t = 0; t < s_; ++t) delta_softmax_row(weights + t * weights_ld() + keys_, scores + t * keys_, base_.scale, keys_, weights + t * weights_ld());
    multiply_panels(weights, weights_ld(), s_, value_panels, value_stride_, keys_ + s_, e_, out, ldo);
  }

 private:
  // Row length of [dp | p].
  int64_t weights_ld() const { return 2 * keys_; }

  const AttentionBase& base_;
  const int64_t s_, e_;
  const int64_t keys_;  // S padded to whole vectors
  const int64_t score_stride_, value_stride_;
  Scratch<float> scratch_;
  float* queries;       // [S, 2e]
  float* key_panels;    // [panels of S, 2e, kPanel]
  float* weights;       // [S, keys + keys]  dp | p, both zero padded
  float* value_panels;  // [panels of e, keys + S, kPanel]
  float* scores;        // [S, keys]
};

}  // namespace

void delta_attention(const DeltaAttention& args) {
  const AttentionBase& base = args.base;
  const int64_t d = base.hidden, e = d / base.heads, n = args.candidates;
  constexpr int64_t kGroup = 16;  // candidates that share a head's base operands
  const int64_t groups = block_count(n, kGroup);
#pragma omp parallel num_threads(args.threads) if (args.threads > 1 && groups > 1)
  {
    HeadProducts products(base);
#pragma omp for schedule(dynamic)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t h = 0; h < base.heads; ++h) {
        products.begin_head(h);
        for (int64_t c = block_begin(n, groups, g); c < block_begin(n, groups, g + 1); ++c)
          products.run(h, args.dqkv + c * 3 * d + h * e, n * 3 * d, args.out + c * d + h * e, n * d);
      }
  }
}

}  // namespace pyneuro::PN_ISA
