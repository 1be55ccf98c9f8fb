// The device kernels as a module: device addresses, sizes and the stream in, nothing out. Launches only; nothing waits for the device.
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings.h"
#include "pyneuro/cuda.h"

using namespace pyneuro;
using namespace pyneuro::bindings;

#ifndef PN_CUDA_MODULE
#define PN_CUDA_MODULE _cuda
#endif

namespace {

template <class T>
const T* in(Address a) {
  return reinterpret_cast<const T*>(a);
}
double* doubles_out(Address a) { return reinterpret_cast<double*>(a); }
void* any(Address a) { return reinterpret_cast<void*>(a); }
cuda::Storage storage(bool half) { return half ? cuda::Storage::fp16 : cuda::Storage::fp32; }

template <class Args>
void launch(cudaError_t (*kernel)(const Args&, cudaStream_t), const Args& args, Address stream) {
  cudaError_t error;
  {
    py::gil_scoped_release release;
    error = kernel(args, reinterpret_cast<cudaStream_t>(stream));
  }
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

}  // namespace

PYBIND11_MODULE(PN_CUDA_MODULE, m) {
  m.doc() = "pyneuro's device kernels. Arrays are addresses of contiguous data; see csrc/include/pyneuro/cuda.h for shapes.";
  define_base_run(m);
#if defined(PN_EMULATE)
  m.attr("emulated") = true;
  m.attr("architectures") = "host";
#else
  m.attr("emulated") = false;
  m.attr("architectures") = PN_CUDA_ARCHITECTURES;
#endif

#if defined(PN_CUTLASS)
  m.attr("product_epilogues") = true;
  const auto define_product = [&](const char* name, auto kernel) {
    m.def(name, [kernel](Address x, Address weight, Address pre_gelu, Address series, Address unit, Address out, int64_t tokens, int64_t candidates, int64_t hidden, int64_t width,
                         Address stream) { launch(kernel, {any(x), any(weight), floats(pre_gelu), floats(series), floats(unit), any(out), tokens, candidates, hidden, width}, stream); });
  };
  define_product("delta_gelu_linear_sm80", cuda::delta_gelu_linear_sm80);
  define_product("delta_gelu_linear_sm90", cuda::delta_gelu_linear_sm90);
#else
  m.attr("product_epilogues") = false;
#endif

  m.def(
      "delta_layernorm",
      [](Address du, Address residual, int64_t residual_token_stride, int64_t residual_candidate_stride, const Norm& base, Address unit, Address out, bool half, int64_t tokens,
         int64_t candidates, int64_t hidden, Address stream) {
        launch(cuda::delta_layernorm,
               {any(du), any(residual), residual_token_stride, residual_candidate_stride, base, floats(unit), any(out), storage(half), tokens, candidates, hidden}, stream);
      });
  m.def("delta_entry", [](Address first, Address a, int64_t a_token_stride, Address pick_a, Address second, Address b, Address pick_b, const Norm& base, Address unit, Address out,
                          bool half, int64_t tokens, int64_t candidates, int64_t hidden, Address stream) {
    launch(cuda::delta_entry,
           {floats(first), floats(a), a_token_stride, in<int64_t>(pick_a), floats(second), floats(b), in<int64_t>(pick_b), base, floats(unit), any(out), storage(half), tokens,
            candidates, hidden},
           stream);
  });
  m.def("delta_entry_query", [](Address index, Address change, const Attention& base, Address out, int64_t candidates, Address stream) {
    launch(cuda::delta_entry_query, {in<int64_t>(index), floats(change), base, floats_out(out), candidates}, stream);
  });
  m.def("delta_units", [](Address true_values, Address stored, Address unit, int64_t candidates, int64_t hidden, Address stream) {
    launch(cuda::delta_units, {floats(true_values), any(stored), floats_out(unit), candidates, hidden}, stream);
  });
  m.def("gelu_series", [](Address pre_gelu, Address series, int64_t tokens, int64_t width, Address stream) {
    launch(cuda::gelu_series, {in<double>(pre_gelu), floats_out(series), tokens, width}, stream);
  });
  m.def("delta_gelu", [](Address x, Address pre_gelu, Address series, Address unit, bool half, int64_t tokens, int64_t candidates, int64_t width, Address stream) {
    launch(cuda::delta_gelu, {any(x), floats(pre_gelu), floats(series), floats(unit), storage(half), tokens, candidates, width}, stream);
  });
  m.def("delta_attention", [](Address dqkv, const Attention& base, Address unit, Address out, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_attention, {any(dqkv), base, floats(unit), any(out), storage(half), candidates}, stream);
  });
  m.def("delta_attention_row0", [](Address dqkv, const Attention& base, Address unit, Address out, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_attention_row0, {any(dqkv), base, floats(unit), any(out), storage(half), candidates}, stream);
  });
  m.def("delta_softmax_row0", [](Address scores, Address changes, int64_t ld, const Attention& base, Address unit, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_softmax_row0, {any(scores), any(changes), ld, base, floats(unit), storage(half), candidates}, stream);
  });
  m.def("delta_low_rank_weights", [](Address scores, const Attention& base, Address rest, Address unit, Address along_base, Address along_change, int64_t ld_base, int64_t ld_change,
                                     bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_low_rank_weights, {any(scores), base, floats(rest), floats(unit), any(along_base), any(along_change), ld_base, ld_change, storage(half), candidates}, stream);
  });
  m.def("delta_head", [](Address pooler, Address pooled, Address classifier, Address out, int64_t candidates, int64_t hidden, int64_t classes, Address stream) {
    launch(cuda::delta_head, {floats(pooler), in<double>(pooled), in<double>(classifier), doubles_out(out), candidates, hidden, classes}, stream);
  });
  m.def("adjoint_query", [](Address index, Address change, Address k, Address p, Address along, Address strength, Address out, int64_t candidates, int64_t differences,
                            int64_t tokens, int64_t hidden, int64_t heads, Address stream) {
    launch(cuda::adjoint_query,
           {in<int64_t>(index), in<double>(change), floats(k), floats(p), floats(along), floats(strength), doubles_out(out), candidates, differences, tokens, hidden, heads}, stream);
  });
  m.def("adjoint_key", [](Address index, Address change, Address q, Address p, Address rest, Address along_rest, Address along_first, Address strength, Address out,
                          int64_t candidates, int64_t differences, int64_t tokens, int64_t hidden, int64_t heads, Address stream) {
    launch(cuda::adjoint_key,
           {in<int64_t>(index), in<double>(change), floats(q), floats(p), floats(rest), floats(along_rest), floats(along_first), floats(strength), doubles_out(out), candidates,
            differences, tokens, hidden, heads},
           stream);
  });
  m.def("adjoint_norm", [](Address index, Address change, Address products, Address squares, Address facts, Address out, int64_t candidates, int64_t differences,
                           int64_t directions, int64_t hidden, Address stream) {
    launch(cuda::adjoint_norm, {in<int64_t>(index), in<double>(change), in<double>(products), in<double>(squares), in<double>(facts), doubles_out(out), candidates, differences, directions, hidden},
           stream);
  });
  m.attr("most_classes") = kMostClasses;
  m.def("count_effects", [](Address found, Address where, Address exact, int kind, int target, int likeliest, const std::vector<double>& weights, double log_base, double base,
                            double sensitivity, double weight, double label_weight, double half_weight, int64_t sample, int64_t label, int64_t half, Address sums, Address samples,
                            Address bad, Address sizes, int64_t neurons, int64_t treatments, int64_t labels, Address stream) {
    ResponseAt response{static_cast<ResponseKind>(kind), static_cast<int>(weights.size()), target, likeliest, {}, log_base, base};
    std::copy_n(weights.begin(), std::min<size_t>(weights.size(), kMostClasses), response.weights);
    launch(cuda::count_effects,
           {in<double>(found), in<int64_t>(where), in<int64_t>(exact), response, sensitivity, weight, label_weight, half_weight, sample, label, half,
            doubles_out(sums), reinterpret_cast<int64_t*>(samples), reinterpret_cast<int64_t*>(bad), doubles_out(sizes), neurons, treatments, labels},
           stream);
  });
  m.def("mask_weight", [](Address weight, bool two_bytes, Address scores, float threshold, Address bits, Address masked, int64_t out, int64_t in_, Address stream) {
    launch(cuda::mask_weight, {any(weight), two_bytes, floats(scores), threshold, reinterpret_cast<uint8_t*>(bits), any(masked), out, in_}, stream);
  });
}
