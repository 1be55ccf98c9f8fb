// Attention of a difference when every row changed, on tensor cores: fp16 differences, heads of 32 or 64, up to 128 tokens.
//
// A block serves one head and a few candidates, a warp sixteen query rows. In a candidate's unit u,
//   scores   ds = u scale ((q + u dq) dkᵀ + dq kᵀ)
//   context  dctx = (dp / u) v + (p + dp) dv
// and the scores never leave the registers: the sums of the first product are, lane by lane, the left operand of the second.
#include "cuda/ptx.cuh"
#include "cuda/softmax.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kTile = 16;
constexpr int kMostTokens = 128;
constexpr int64_t kCandidates = 8;  // a block's
constexpr int kWarpsAtOnce = 12;   // of a multiprocessor: what its registers hold

__device__ __forceinline__ unsigned pack(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  unsigned bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// q + u dq
__device__ __forceinline__ unsigned moved(unsigned q, unsigned dq, float unit) {
  __half2 base, change;
  memcpy(&base, &q, sizeof base);
  memcpy(&change, &dq, sizeof change);
  const float2 a = __half22float2(base), b = __half22float2(change);
  return pack(a.x + unit * b.x, a.y + unit * b.y);
}

// Sum over the four lanes that share a row of a tile.
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Changes of the scores of a lane's two rows become changes of the probabilities, which p(tile, values) gives.
template <int Tiles, class Probability>
__device__ __forceinline__ void delta_softmax_rows(Probability p, float (&ds)[Tiles][4]) {
  constexpr bool kRecompute = Tiles > 6;  // expm1 twice rather than in registers
  float mean[2] = {0.0f, 0.0f};
#pragma unroll
  for (int i = 0; i < Tiles; ++i) {
    float before[4];
    p(i, before);
#pragma unroll
    for (int c = 0; c < 4; ++c) mean[c / 2] += before[c] * expm1_fast(ds[i][c]);
  }
  bool near = true;
  float inverse[2];
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    mean[row] = row_sum(mean[row]);
    near = near && mean[row] >= kLeastMean && mean[row] <= kMostMean;
    inverse[row] = 1.0f / (1.0f + mean[row]);
  }
  if (__all_sync(kAllLanes, near)) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      float before[4];
      p(i, before);
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if constexpr (kRecompute) forget(ds[i][c]);
        ds[i][c] = delta_softmax(before[c], expm1_fast(ds[i][c]), mean[c / 2], inverse[c / 2]);
      }
    }
    return;
  }
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const bool far = !(mean[row] >= kLeastMean && mean[row] <= kMostMean);
    float likeliest = -INFINITY, shift = 0.0f, z = 0.0f;
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      float before[4];
      p(i, before);
#pragma unroll
      for (int c = 2 * row; c < 2 * row + 2; ++c) {
        forget(ds[i][c]);
        const float after = before[c] > 0.0f ? logf(before[c]) + ds[i][c] : -INFINITY;
        if (after > likeliest) {
          likeliest = after;
          shift = ds[i][c];
        }
      }
    }
    shift = shift_of_likeliest(likeliest, shift, 4);
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      float before[4];
      p(i, before);
#pragma unroll
      for (int c = 2 * row; c < 2 * row + 2; ++c) {
        forget(ds[i][c]);
        z += before[c] * exp_fast(ds[i][c] - shift);
      }
    }
    z = row_sum(z);
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      float before[4];
      p(i, before);
#pragma unroll
      for (int c = 2 * row; c < 2 * row + 2; ++c) {
        forget(ds[i][c]);
        ds[i][c] = far ? delta_softmax_far(before[c], exp_fast(ds[i][c] - shift), z) : delta_softmax(before[c], expm1_fast(ds[i][c]), mean[row], inverse[row]);
      }
    }
  }
}

// E: width of a head; Tiles: of sixteen tokens. The differences of the next candidate arrive while this one's are worked on.
template <int E, int Tiles>
__global__ void __launch_bounds__(Tiles* kWarp, kWarpsAtOnce / Tiles) attention_mma_kernel(DeltaAttention args) {
  constexpr int kLd = E + 8, kLdP = Tiles * kTile + 8;  // off a power of two: no two lanes of an access in one bank
  constexpr int kArray = Tiles * kTile * kLd, kVectors = E / 8, kThreads = Tiles * kWarp;
  PN_SHARED(__half, shared);
  __half *const k = shared, *const v = k + kArray, *const buffers = v + kArray;  // two of dq, dk, dv
  const AttentionBase& base = args.base;
  const int64_t d = base.hidden, n_all = args.candidates, h = blockIdx.y;
  const int s = static_cast<int>(base.tokens), lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int row = threadIdx.x / kWarp * kTile + g;  // and row + 8

  const int64_t first = blockIdx.x * kCandidates, end = first + kCandidates < n_all ? first + kCandidates : n_all;
  const auto fetch = [&](int64_t n, __half* buffer) {
#pragma unroll 1
    for (int i = threadIdx.x; i < s * kVectors; i += kThreads) {
      const int token = i / kVectors, j = i % kVectors * 8;
      const __half* from = static_cast<const __half*>(args.dqkv) + (token * n_all + n) * 3 * d + h * E + j;
      for (int part = 0; part < 3; ++part) begin_copy(buffer + part * kArray + token * kLd + j, from + part * d);
    }
    end_copies();
  };
  fetch(first, buffers);

  for (int i = threadIdx.x; i < Tiles * kTile * E; i += kThreads) {
    const int token = i / E, j = i % E;
    const bool real = token < s;
    k[token * kLd + j] = __float2half_rn(real ? base.k[token * d + h * E + j] : 0.0f);
    v[token * kLd + j] = __float2half_rn(real ? base.v[token * d + h * E + j] : 0.0f);
    if (!real)
      for (int part = 0; part < 6; ++part) buffers[part * kArray + token * kLd + j] = __float2half_rn(0.0f);
  }
  unsigned q[E / 16][4];
#pragma unroll
  for (int j = 0; j < E / 16; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = row + i % 2 * 8;
      const float* at = base.q + token * d + h * E + j * 16 + 2 * t + i / 2 * 8;
      q[j][i] = token < s ? pack(at[0], at[1]) : 0u;
    }
  }
  float* const all_p = reinterpret_cast<float*>(buffers + 6 * kArray);
  for (int i = threadIdx.x; i < Tiles * kTile * Tiles * kTile; i += kThreads) {
    const int query = i / (Tiles * kTile), key = i % (Tiles * kTile);
    all_p[query * kLdP + key] = query < s && key < s ? base.p[(h * s + query) * s + key] : 0.0f;
  }
  const auto p = [&](int tile, float(&x)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 pair = *reinterpret_cast<const float2*>(all_p + (row + half * 8) * kLdP + tile * 8 + 2 * t);
      x[2 * half] = pair.x, x[2 * half + 1] = pair.y;
    }
  };

  for (int64_t n = first; n < end; ++n) {
    __half* const dq = buffers + (n - first) % 2 * 3 * kArray;
    __half *const dk = dq + kArray, *const dv = dk + kArray;
    if (n + 1 < end) {
      fetch(n + 1, buffers + (n + 1 - first) % 2 * 3 * kArray);
      wait_for_copies<1>();
    } else {
      wait_for_copies<0>();
    }
    __syncthreads();
    const float unit = args.unit == nullptr ? 1.0f : args.unit[n], per_unit = 1.0f / unit, to_scores = unit * base.scale;

    float ds[2 * Tiles][4] = {};
#pragma unroll
    for (int j = 0; j < E; j += 16) {
      unsigned change[4], query[4];
      load_matrices(change, dq + (row - g + lane % 16) * kLd + j + lane / 16 * 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) query[i] = moved(q[j / 16][i], change[i], unit);
#pragma unroll
      for (int i = 0; i < 2 * Tiles; ++i) {
        unsigned keys[4];  // of dk, then of k
        load_matrices(keys, (lane < 16 ? dk : k) + (i * 8 + lane % 8) * kLd + j + lane / 8 % 2 * 8);
        mma_16x8x16(ds[i], query, {keys[0], keys[1]});
        mma_16x8x16(ds[i], change, {keys[2], keys[3]});
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * Tiles; ++i) {
#pragma unroll
      for (int c = 0; c < 4; ++c) ds[i][c] *= to_scores;
    }
    delta_softmax_rows(p, ds);

    float context[E / 8][4] = {};
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      unsigned along_base[4], along_change[4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int tile = 2 * i + half;
        float before[4];
        p(tile, before);
#pragma unroll
        for (int c = 0; c < 4; c += 2) {
          along_base[2 * half + c / 2] = pack(ds[tile][c] * per_unit, ds[tile][c + 1] * per_unit);
          along_change[2 * half + c / 2] = pack(before[c] + ds[tile][c], before[c + 1] + ds[tile][c + 1]);
        }
      }
      const int at = (i * kTile + lane % 16) * kLd + lane / 16 * 8;
#pragma unroll
      for (int j = 0; j < E; j += 16) {
        unsigned value[4];
        load_matrices_transposed(value, v + at + j);
        mma_16x8x16(context[j / 8], along_base, {value[0], value[1]});
        mma_16x8x16(context[j / 8 + 1], along_base, {value[2], value[3]});
        load_matrices_transposed(value, dv + at + j);
        mma_16x8x16(context[j / 8], along_change, {value[0], value[1]});
        mma_16x8x16(context[j / 8 + 1], along_change, {value[2], value[3]});
      }
    }

    // Through this warp's own rows of dq, which nobody reads any more, so that whole vectors leave.
    __syncwarp();
#pragma unroll
    for (int j = 0; j < E / 8; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<unsigned*>(dq + (row + half * 8) * kLd + j * 8 + 2 * t) = pack(context[j][2 * half], context[j][2 * half + 1]);
    }
    __syncwarp();
    for (int i = lane; i < kTile * kVectors; i += kWarp) {
      const int token = row - g + i / kVectors, j = i % kVectors * 8;
      if (token < s)
        *reinterpret_cast<uint4*>(static_cast<__half*>(args.out) + (token * n_all + n) * d + h * E + j) = *reinterpret_cast<const uint4*>(dq + token * kLd + j);
    }
    __syncthreads();  // before the next fetch into these buffers
  }
}

// k and v of the base run, two buffers of dq, dk, dv, and the probabilities.
constexpr size_t shared_needed(int64_t e, int64_t tiles) {
  const int64_t tokens = tiles * kTile;
  return static_cast<size_t>(8 * tokens * (e + 8)) * sizeof(__half) + static_cast<size_t>(tokens * (tokens + 8)) * sizeof(float);
}

template <int E, int Tiles>
cudaError_t launch(const DeltaAttention& args, cudaStream_t stream) {
  if constexpr (Tiles * kTile > kMostTokens) {
    return cudaErrorInvalidValue;
  } else {
    if (args.base.tokens > Tiles * kTile) return launch<E, Tiles + 1>(args, stream);
    constexpr size_t bytes = shared_needed(E, Tiles);
    if (cudaError_t error = allow_shared(attention_mma_kernel<E, Tiles>, bytes); error != cudaSuccess) return error;
    const dim3 grid(blocks_for(args.candidates, kCandidates), static_cast<unsigned>(args.base.heads));
    PN_LAUNCH((attention_mma_kernel<E, Tiles>), grid, dim3(Tiles * kWarp), bytes, stream, args);
    return cudaGetLastError();
  }
}

}  // namespace

bool delta_attention_has_tensor_core_kernel(const DeltaAttention& args) {
  const int64_t e = args.base.hidden / args.base.heads;
  const bool fits = args.base.tokens <= kMostTokens && shared_needed(e, (args.base.tokens + kTile - 1) / kTile) <= most_shared();
  return args.storage == Storage::fp16 && (e == 32 || e == 64) && fits && is_wide<__half>(args.base.hidden, args.dqkv, args.out);
}

cudaError_t delta_attention_on_tensor_cores(const DeltaAttention& args, cudaStream_t stream) {
  return args.base.hidden / args.base.heads == 64 ? launch<64, 1>(args, stream) : launch<32, 1>(args, stream);
}

}  // namespace pyneuro::cuda
