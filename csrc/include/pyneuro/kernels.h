// The native kernels: plain pointers and sizes, no framework. Differences are token-major: [S, N, d], all candidates of one token together,
// so the base value of a token is one row vector for all of them.
//
//   S tokens, N candidates, d hidden, f intermediate, H heads, e = d / H.  All arrays fp32, contiguous, unless a comment says otherwise.
#pragma once
#include <cstdint>

namespace pyneuro {

// y = x Wᵀ for W [out, in], packed in panels of `panel_width` output rows (zero padded), see pyneuro/ops/packing.py.
struct PackedWeight {
  const void* panels;  // fp32 [ceil(out / width), in, width], or bf16 [ceil(out / width), ceil(in / 2), width, 2]
  int64_t out;
  int64_t in;
  bool bf16;
};

// What LayerNorm's difference needs of the base run.
struct NormBase {
  const float* centred;  // [S, d]  u - mean(u)
  const float* rstd;     // [S]     1 / sqrt(var(u) + eps)
  const float* gamma;    // [d]
};

// What the attention's difference needs of the base run.
struct AttentionBase {
  const float* q;  // [S, d]
  const float* k;  // [S, d]
  const float* v;  // [S, d]
  const float* p;  // [H, S, S]  probabilities, row = query
  int64_t tokens;
  int64_t hidden;
  int64_t heads;
  float scale;  // 1 / sqrt(e)
};

struct DeltaLinear {
  const float* dx;  // [M, in]
  PackedWeight weight;
  float* out;  // [M, out]
  int64_t rows;
  int threads;
};

struct DeltaLayerNorm {
  const float* du;  // [S, N, d]
  NormBase base;
  float* out;  // [S, N, d], may be du
  int64_t tokens, candidates, hidden;
  int threads;
};

// LayerNorm difference of (dx Wᵀ + residual): attention output, or the second half of the feed-forward block.
struct DeltaLinearNorm {
  const float* dx;        // [S, N, in]
  const float* residual;  // [S, N, d]
  PackedWeight weight;    // [d, in]
  NormBase base;
  float* out;  // [S, N, d]
  int64_t tokens, candidates;
  int threads;
};

// The whole feed-forward block: dx1 -> W_I -> GELU -> W_O -> + dx1 -> LayerNorm, a block of candidates of one token at a time, so that the
// [.., f] intermediate never leaves the cache.
struct DeltaFeedForward {
  const float* dx;  // [S, N, d]
  PackedWeight in_weight;
  PackedWeight out_weight;
  const float* pre_gelu;  // [S, f]     base value before GELU
  const float* series;    // [S, 4, f]  its Taylor coefficients
  NormBase base;
  float* out;  // [S, N, d]
  int64_t tokens, candidates;
  int threads;
};

// Attention when every row changed: dqkv -> dctx.
struct DeltaAttention {
  const float* dqkv;  // [S, N, 3d]
  AttentionBase base;
  float* out;  // [S, N, d]
  int64_t candidates;
  int threads;
};

// Attention row 0 when only row 0 of the layer's input changed.
struct DeltaAttentionRow0 {
  const float* dqkv;  // [N, 3d]  row 0
  AttentionBase base;
  float* out;  // [N, d]
  int64_t candidates;
  int threads;
};

// Attention row 0 when every row changed, without a d x d product on any row but 0 (last layer).
struct DeltaAttentionRow0Dense {
  const float* dx;   // [S, N, d]
  const float* dq0;  // [N, d]
  AttentionBase base;
  PackedWeight key_transposed;  // W_Kᵀ [d, d]: K range of a head = its e rows of W_K
  PackedWeight value_heads;     // W_V packed head by head, [H] x [e, d]
  float* out;                   // [N, d]
  int64_t candidates;
  int threads;
};

// Attention block (attention, output projection, residual, LayerNorm) of the layer after a row-0 change: every other row's score moved
// against row 0 alone, so its change has rank 3H.
struct DeltaAttentionLowRank {
  const float* dqkv;  // [N, 3d]  row 0
  const float* dx;    // [N, d]   row 0
  AttentionBase base;
  const float* context_rows;  // [S, H, d]  W_AO (ctx_h[t] - p_h[t, 0] v_h[0]), head by head
  const float* value_row;     // [H, d]     W_AO v_h[0]
  PackedWeight output;        // W_AO, fp32
  NormBase norm;
  float* out;  // [S, N, d]
  int64_t candidates;
  int threads;
};

// A weight that training does not change, as torch holds it.
struct FrozenWeight {
  const void* weight;  // [out, in], fp32 or bf16; x, y, bias and their gradients are of its type
  int64_t out, in;
  bool bf16;
};

// y = x (W o M)^T + b. M is given as bits [out, ceil(in / 8)], entry k of a row being bit k % 8 of byte k / 8; or decided as [scores > threshold],
// and the bits written.
struct MaskedLinear {
  const void* x;  // [M, in]
  FrozenWeight weight;
  const float* scores;  // [out, in], or null
  float threshold;
  uint8_t* bits;
  const void* bias;  // [out], or null
  bool mask_bias;    // an entry counts where its row of M has any
  void* y;           // [M, out]
  int64_t rows;
  int threads;
};

// dx = dy (W o M), and the straight-through gradient dS = (dy^T x) o W of the scores.
struct MaskedLinearBackward {
  const void* dy;  // [M, out]
  const void* x;   // [M, in]
  FrozenWeight weight;
  const uint8_t* bits;
  void* dx;        // [M, in], or null
  float* dscores;  // [out, in], or null
  int64_t rows;
  int threads;
};

// y_t = x_t (W o M_t)^T + b for T masks.
struct MaskedLinearMulti {
  const void* x;  // [T, M, in], or [M, in] for all
  bool shared;
  FrozenWeight weight;
  const uint8_t* bits;  // [T, out, ceil(in / 8)]
  const void* bias;
  bool mask_bias;
  void* y;  // [T, M, out]
  int64_t masks, rows;
  int threads;
};

// One instruction set's kernels.
struct Kernels {
  const char* isa;
  int panel_width;
  int tile_rows;
  bool bf16;
  void (*delta_linear)(const DeltaLinear&);
  void (*delta_layernorm)(const DeltaLayerNorm&);
  void (*delta_linear_norm)(const DeltaLinearNorm&);
  void (*delta_feed_forward)(const DeltaFeedForward&);
  void (*delta_attention)(const DeltaAttention&);
  void (*delta_attention_row0)(const DeltaAttentionRow0&);
  void (*delta_attention_row0_dense)(const DeltaAttentionRow0Dense&);
  void (*delta_attention_low_rank)(const DeltaAttentionLowRank&);
  void (*masked_linear)(const MaskedLinear&);
  void (*masked_linear_backward)(const MaskedLinearBackward&);
  void (*masked_linear_multi)(const MaskedLinearMulti&);
};

// The kernels of `isa` ("avx512", "avx2", "baseline"), or nullptr where this build or this machine has none.
const Kernels* find_kernels(const char* isa);

}  // namespace pyneuro
