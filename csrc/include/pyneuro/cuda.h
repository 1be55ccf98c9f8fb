// The device kernels' interface: everything but the large products, which the caller runs through the GPU's matrix library. Plain pointers and
// sizes, no framework. Arrays of differences are token-major, as in kernels.h, and stored in fp32 or fp16; arrays of the base run are fp32.
//
// A stored difference is the true one over its candidate's unit, a power of two chosen once, where the patch enters: fp16 then keeps its eleven
// bits all the way, and every product is linear in it. unit [N] is null where differences are stored as they are.
#pragma once
#include <cstdint>

#include "pyneuro/effects.h"
#include "pyneuro/kernels.h"

#if defined(PN_EMULATE)
#include "emulator/cuda_on_host.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace pyneuro::cuda {

enum class Storage { fp32, fp16 };

// out = LayerNorm difference of (du + residual).
struct DeltaLayerNorm {
  const void* du;        // [S, N, d]
  const void* residual;  // [S, N, d] in any order of its rows, or null
  int64_t residual_token_stride, residual_candidate_stride;
  NormBase base;
  const float* unit;
  void* out;  // [S, N, d], may be du
  Storage storage;
  int64_t tokens, candidates, hidden;
};
cudaError_t delta_layernorm(const DeltaLayerNorm&, cudaStream_t);

// Where a patch enters with rank two: out[t, n] = LayerNorm difference of first[t, n] * A[t, pick_a[n]] + second[t, n] * B[pick_b[n]], the weights
// in the candidate's unit.
struct DeltaEntry {
  const float* first;     // [S, N]
  const float* a;         // [S, ., d], or [., d] with a_token_stride 0
  int64_t a_token_stride;
  const int64_t* pick_a;  // [N]
  const float* second;    // [S, N], or null
  const float* b;         // [., d]
  const int64_t* pick_b;  // [N]
  NormBase base;
  const float* unit;
  void* out;  // [S, N, d]
  Storage storage;
  int64_t tokens, candidates, hidden;
};
cudaError_t delta_entry(const DeltaEntry&, cudaStream_t);

// Q: context of row 0, zero outside the neuron's head.
struct DeltaEntryQuery {
  const int64_t* index;  // [N]  neuron
  const float* change;   // [N]  patched value - base value, true
  AttentionBase base;
  float* out;  // [N, d]  true
  int64_t candidates;
};
cudaError_t delta_entry_query(const DeltaEntryQuery&, cudaStream_t);

// Differences that enter in fp32, into fp16 in their candidates' units.
struct DeltaUnits {
  const float* true_values;  // [N, d]
  void* stored;              // [N, d]  fp16
  float* unit;               // [N]
  int64_t candidates, hidden;
};
cudaError_t delta_units(const DeltaUnits&, cudaStream_t);

// GELU difference, in place.
struct DeltaGelu {
  void* x;                // [S, N, f]
  const float* pre_gelu;  // [S, f]
  const float* series;    // [S, 4, f]
  const float* unit;
  Storage storage;
  int64_t tokens, candidates, width;
};
cudaError_t delta_gelu(const DeltaGelu&, cudaStream_t);

// Taylor coefficients of GELU at a token's values, computed in double.
struct GeluSeries {
  const double* pre_gelu;  // [S, f]
  float* series;           // [S, 4, f]
  int64_t tokens, width;
};
cudaError_t gelu_series(const GeluSeries&, cudaStream_t);

// GELU difference of x Wᵀ, fp16, in one pass on tensor cores. Built where there is CUTLASS, for Ampere and Ada, and for Hopper.
struct DeltaGeluLinear {
  const void* x;       // [S, N, d]
  const void* weight;  // [f, d]
  const float* pre_gelu;
  const float* series;
  const float* unit;
  void* out;  // [S, N, f]
  int64_t tokens, candidates, hidden, width;
};
cudaError_t delta_gelu_linear_sm80(const DeltaGeluLinear&, cudaStream_t);
cudaError_t delta_gelu_linear_sm90(const DeltaGeluLinear&, cudaStream_t);

struct DeltaAttention {
  const void* dqkv;  // [S, N, 3d]
  AttentionBase base;
  const float* unit;
  void* out;  // [S, N, d]
  Storage storage;
  int64_t candidates;
};
// On tensor cores where the shape allows (fp16, heads of 32 or 64, up to 128 tokens), else by plain arithmetic.
cudaError_t delta_attention(const DeltaAttention&, cudaStream_t);
bool delta_attention_has_tensor_core_kernel(const DeltaAttention&);
cudaError_t delta_attention_on_tensor_cores(const DeltaAttention&, cudaStream_t);

struct DeltaAttentionRow0 {
  const void* dqkv;  // [N, 3d]  row 0
  AttentionBase base;
  const float* unit;
  void* out;  // [N, d]
  Storage storage;
  int64_t candidates;
};
cudaError_t delta_attention_row0(const DeltaAttentionRow0&, cudaStream_t);

// Row 0 when every row changed, between the products with W_K and with W_V: scores become what the keys weigh then.
struct DeltaSoftmaxRow0 {
  void* scores;   // [N, H, ld]  in: (q_h + dq_h) · W_K,h dx[s]; out: p + dp, true
  void* changes;  // [H, N, S]   in: dq_h · k_h[s]; out: dp
  int64_t ld;
  AttentionBase base;
  const float* unit;
  Storage storage;
  int64_t candidates;
};
cudaError_t delta_softmax_row0(const DeltaSoftmaxRow0&, cudaStream_t);

// After a change of row 0 alone every other row changes with rank 3H (docs/method.md): the weights of the three parts, as two products take them.
struct DeltaLowRankWeights {
  const void* scores;  // [H, S, N]  q_h[t] · dk_h
  AttentionBase base;
  const float* rest;  // [H, S]  sum_{s > 0} p_h[t, s]
  const float* unit;
  void* along_base;    // [S, N, ld_base]   of W_AO,h (ctx_h[t] - p_h[t, 0] v_h[0]) at h, of W_AO,h v_h[0] at H + h
  void* along_change;  // [N, S, ld_change] of W_AO,h dv_h at h
  int64_t ld_base, ld_change;
  Storage storage;
  int64_t candidates;
};
cudaError_t delta_low_rank_weights(const DeltaLowRankWeights&, cudaStream_t);

// Pooler and classifier. In double from the pooler's product on.
struct DeltaHead {
  const float* pooler;       // [N, d]  W_P dx, true
  const double* pooled;      // [d]     tanh output of the base run
  const double* classifier;  // [C, d]
  double* out;               // [N, C]
  int64_t candidates, hidden, classes;
};
cudaError_t delta_head(const DeltaHead&, cudaStream_t);

// The linear method: what a patch of one neuron changes of its own layer, exactly, times the adjoint that begins there. Of every candidate the G
// changes of differences of logits, then the size of what is left out; definitions in pyneuro/ops/reference.py.
struct AdjointQuery {
  const int64_t* index;   // [N]  neuron
  const double* change;   // [N]
  const float* k;         // [S, d]
  const float* p;         // [H, S, S]
  const float* along;     // [H, G, S]  what a unit of weight on a token adds
  const float* strength;  // [H]
  double* out;            // [N, G + 1]
  int64_t candidates, differences, tokens, hidden, heads;
};
cudaError_t adjoint_query(const AdjointQuery&, cudaStream_t);

struct AdjointKey {
  const int64_t* index;      // [N]
  const double* change;      // [N]
  const float* q;            // [S, d]
  const float* p;            // [H, S, S]
  const float* rest;         // [H, S]  1 - p_h[t, 0], summed over the other tokens
  const float* along_rest;   // [H, G, S]  of a token's context without token 0
  const float* along_first;  // [H, G, S]  of token 0's value
  const float* strength;     // [H, S]
  double* out;               // [N, G + 1]
  int64_t candidates, differences, tokens, hidden, heads;
};
cudaError_t adjoint_key(const AdjointKey&, cudaStream_t);

// A change in one of W directions before a LayerNorm of row 0.
struct AdjointNorm {
  const int64_t* index;    // [N]  direction
  const double* change;    // [N]
  const double* products;  // [1 + G, W]  of the directions with the centred row, with the slopes
  const double* squares;   // [W]
  const double* facts;     // [2 + G]  reciprocal deviation, factor of what is left out, slopes times row
  double* out;             // [N, G + 1]
  int64_t candidates, differences, directions, hidden;
};
cudaError_t adjoint_norm(const AdjointNorm&, cudaStream_t);

// One sample into the running statistics of N neurons' predicted effects (pyneuro/effects/moments.py), J of them a neuron: its T treatments and, of
// two or more, the difference of the first two.
struct CountEffects {
  const double* found;   // [M, C]  changes of logits 1 to C - 1 relative to logit 0, then the size of what is left out
  const int64_t* where;  // [T, N]  row of `found` of every treatment and neuron
  const int64_t* exact;  // [N]  1 where nothing is left out, else 0
  ResponseAt response;
  double sensitivity;  // of the response to a logit
  double weight, label_weight, half_weight;  // 1 over the samples by now: all, of this label, in this half
  int64_t sample, label, half;               // label -1 where the sample has none
  double* sums;       // [J, 11 + 2K, N]  of effect, log-ratio and difference: means, squared deviations; smallest and largest effect, sum of |effect|;
                      // by K labels: mean effects, squared deviations; mean effects by half of the samples
  int64_t* samples;   // [J, 2, N]  where the smallest and the largest effect are, -1 before the first
  int64_t* bad;       // [N]  the first sample whose change is not finite, -1 while there is none
  double* sizes;      // [3, N]  sums: of the size left out, of the change of the response to first order, and of what bounds it
  int64_t neurons, treatments, labels;
};
cudaError_t count_effects(const CountEffects&, cudaStream_t);

// W o M with M given by bits [out, ceil(in / 8)], or decided as [scores > threshold] and the bits written.
struct MaskWeight {
  const void* weight;   // [out, in], 2 or 4 bytes a value, copied as it is
  bool two_bytes;
  const float* scores;  // [out, in], or null
  float threshold;
  uint8_t* bits;
  void* masked;  // [out, in], or null where only the bits are wanted
  int64_t out, in;
};
cudaError_t mask_weight(const MaskWeight&, cudaStream_t);

}  // namespace pyneuro::cuda
