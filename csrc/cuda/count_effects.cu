// Streaming moments of predicted effects: one sample more for every neuron. A thread a neuron, which nobody else writes: the same sums in any order
// of the threads.
#include "cuda/device.cuh"

namespace pyneuro::cuda {
namespace {

constexpr int kThreads = 128;

// One column of one neuron in `sums`, a row [N] a quantity.
struct Column {
  double* sums;
  int64_t neurons, labels;
  __device__ double& mean(int quantity) const { return sums[quantity * neurons]; }
  __device__ double& deviations(int quantity) const { return sums[(3 + quantity) * neurons]; }
  __device__ double& low() const { return sums[6 * neurons]; }
  __device__ double& high() const { return sums[7 * neurons]; }
  __device__ double& magnitude() const { return sums[8 * neurons]; }
  __device__ double& label_mean(int64_t k) const { return sums[(9 + k) * neurons]; }
  __device__ double& label_deviations(int64_t k) const { return sums[(9 + labels + k) * neurons]; }
  __device__ double& half_mean(int64_t half) const { return sums[(9 + 2 * labels + half) * neurons]; }
};
__host__ __device__ constexpr int64_t quantities(int64_t labels) { return 11 + 2 * labels; }

// Among equal effects the smallest sample number stays.
__device__ __forceinline__ void note_extreme(double effect, int64_t sample, bool reached, double& extreme, int64_t& where) {
  if (!reached || (effect == extreme && where >= 0 && sample >= where)) return;
  extreme = effect;
  where = sample;
}

__device__ __forceinline__ void count(const CountEffects& args, const Terms& terms, int64_t j, int64_t n) {
  const Column c{args.sums + j * quantities(args.labels) * args.neurons + n, args.neurons, args.labels};
  const double values[3] = {terms.effect, terms.log_ratio, terms.difference};
  for (int quantity = 0; quantity < 3; ++quantity) c.deviations(quantity) += add_to_mean(args.weight, values[quantity], c.mean(quantity));
  if (args.label >= 0) c.label_deviations(args.label) += add_to_mean(args.label_weight, terms.effect, c.label_mean(args.label));
  add_to_mean(args.half_weight, terms.effect, c.half_mean(args.half));
  c.magnitude() += fabs(terms.effect);
  int64_t* samples = args.samples + j * 2 * args.neurons + n;
  note_extreme(terms.effect, args.sample, terms.effect <= c.low(), c.low(), samples[0]);
  note_extreme(terms.effect, args.sample, terms.effect >= c.high(), c.high(), samples[args.neurons]);
}

__global__ void __launch_bounds__(kThreads) count_kernel(CountEffects args) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, n_all = args.neurons;
  if (n >= n_all || args.bad[n] >= 0) return;
  const int classes = args.response.classes;
  double reach = 0.0, left_out = 0.0, largest = 0.0;
  Terms first{}, second{};
  for (int64_t t = 0; t < args.treatments; ++t) {
    const LogitChanges delta{args.found + args.where[t * n_all + n] * classes};
    double low = 0.0, high = 0.0;
    bool finite = true;
    for (int c = 1; c < classes; ++c) {
      finite = finite && fabs(delta[c]) < INFINITY;  // false for NaN
      low = fmin(low, delta[c]), high = fmax(high, delta[c]);
    }
    if (!finite) {
      args.bad[n] = args.sample;
      return;
    }
    const Terms terms = response_terms(args.response, delta);
    count(args, terms, t, n);
    if (t == 0) first = terms;
    if (t == 1) second = terms;
    reach += high - low;
    left_out += delta.kept[classes - 1];
    largest = fmax(largest, fabs(terms.effect));
  }
  if (args.treatments >= 2) {
    const Terms contrast = first - second;
    count(args, contrast, args.treatments, n);
    largest = fmax(largest, fabs(contrast.effect));
  }
  const ResponseKind kind = args.response.kind;
  const double sensitivity = args.sensitivity * (kind == ResponseKind::kl ? reach : 1.0);
  const double size = sensitivity * left_out * (kind == ResponseKind::probability || kind == ResponseKind::odds ? 1.0 + largest : 1.0);
  if (!args.exact[n]) args.sizes[n] += size;
  args.sizes[n_all + n] += sensitivity * reach;
  args.sizes[2 * n_all + n] += sqrt(sensitivity * sensitivity * left_out);
}

}  // namespace

cudaError_t count_effects(const CountEffects& args, cudaStream_t stream) {
  if (args.response.classes > kMostClasses) return cudaErrorInvalidValue;
  if (args.neurons == 0) return cudaSuccess;
  PN_LAUNCH(count_kernel, dim3(blocks_for(args.neurons, kThreads)), dim3(kThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pyneuro::cuda
