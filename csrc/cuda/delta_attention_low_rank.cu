// Rows 1 to S - 1 of the attention block of the layer after a row-0 change: rank 3H a row (docs/method.md), then the LayerNorm difference. A warp
// serves one token and a few candidates, which share the reads of the base run's rows.
#include "cuda/norm.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kWarps = 8;
// Candidates of a warp: two, where their rows fit the registers.
template <int W, int V>
constexpr int kTogether = W > 1 && V * W <= 32 ? 2 : 1;

template <class T, int W, int V>
__global__ void __launch_bounds__(kWarps* kWarp, 1) low_rank_kernel(DeltaAttentionLowRank args) {
  const AttentionBase& base = args.base;
  const int64_t s = base.tokens, d = base.hidden, heads = base.heads, e = d / heads, n_all = args.candidates, token = 1 + blockIdx.y;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp) * kTogether<W, V>;
  if (first >= n_all) return;
  const int lane = threadIdx.x % kWarp;
  int64_t candidate[kTogether<W, V>];  // the last one again where there are no more
  float unit[kTogether<W, V>];
  Row<W, V> du[kTogether<W, V>];
#pragma unroll
  for (int c = 0; c < kTogether<W, V>; ++c) {
    candidate[c] = first + c < n_all ? first + c : n_all - 1;
    unit[c] = args.unit == nullptr ? 1.0f : args.unit[candidate[c]];
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int i = 0; i < W; ++i) du[c].x[v][i] = 0.0f;
    }
  }
  for (int64_t h = 0; h < heads; ++h) {
    PatchedKeyWeights weights[kTogether<W, V>];
#pragma unroll
    for (int c = 0; c < kTogether<W, V>; ++c) {
      const T* dk = static_cast<const T*>(args.dqkv) + candidate[c] * 3 * d + d + h * e;
      float sum = 0.0f;
      for (int64_t j = lane; j < e; j += kWarp) sum += base.q[token * d + h * e + j] * to_float(dk[j]);
      weights[c] = patched_key_weights(base.p[(h * s + token) * s], args.rest[h * s + token], warp_sum(sum) * base.scale * unit[c]);
      weights[c].context /= unit[c];
      weights[c].base /= unit[c];
    }
    const float *context = args.context_rows + (token * heads + h) * d, *value = args.value_row + h * d;
    const T* changes = static_cast<const T*>(args.value_changes) + h * n_all * d;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int64_t at = Row<W, V>::column(v);
      if (at < d) {
        float along_context[W], along_base[W];
        load(context + at, along_context);
        load(value + at, along_base);
#pragma unroll
        for (int c = 0; c < kTogether<W, V>; ++c) {
          float along_change[W];
          load(changes + candidate[c] * d + at, along_change);
#pragma unroll
          for (int i = 0; i < W; ++i) du[c].x[v][i] += weights[c].context * along_context[i] + weights[c].base * along_base[i] + weights[c].value * along_change[i];
        }
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kTogether<W, V>; ++c) {
    delta_layernorm_row(du[c], args.norm.centred + token * d, args.norm.rstd[token], args.norm.gamma, unit[c], d);
    T* out = static_cast<T*>(args.out) + (token * n_all + candidate[c]) * d;
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (first + c < n_all && du[c].column(v) < d) store(out + du[c].column(v), du[c].x[v]);
  }
}

}  // namespace

cudaError_t delta_attention_low_rank(const DeltaAttentionLowRank& args, cudaStream_t stream) {
  if (args.candidates == 0 || args.base.tokens < 2) return cudaSuccess;
  return for_storage(args.storage, [&]<class T>(T*) {
    const int64_t d = args.base.hidden;
    const bool wide = is_wide<T>(d, args.context_rows, args.value_row, args.value_changes, args.norm.centred, args.norm.gamma, args.out);
    return for_row_width<T>(d, wide, [&]<int W, int V>() {
      const dim3 grid(blocks_for(args.candidates, kWarps * kTogether<W, V>), static_cast<unsigned>(args.base.tokens - 1));
      PN_LAUNCH((low_rank_kernel<T, W, V>), grid, dim3(kWarps * kWarp), 0, stream, args);
      return cudaGetLastError();
    });
  });
}

}  // namespace pyneuro::cuda
