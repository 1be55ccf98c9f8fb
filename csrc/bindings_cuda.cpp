// The device kernels as a module: device addresses, sizes and the stream in, nothing out. Launches only; nothing waits for the device.
#include <string>

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

  m.def(
      "delta_layernorm",
      [](Address du, Address residual, const Norm& base, Address unit, Address out, bool half, int64_t tokens, int64_t candidates, int64_t hidden, Address stream) {
        launch(cuda::delta_layernorm, {any(du), any(residual), base, floats(unit), any(out), storage(half), tokens, candidates, hidden}, stream);
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
  m.def("delta_gelu", [](Address x, Address pre_gelu, Address series, Address unit, bool half, int64_t tokens, int64_t candidates, int64_t width, Address stream) {
    launch(cuda::delta_gelu, {any(x), floats(pre_gelu), floats(series), floats(unit), storage(half), tokens, candidates, width}, stream);
  });
  m.def("delta_attention", [](Address dqkv, const Attention& base, Address unit, Address out, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_attention, {any(dqkv), base, floats(unit), any(out), storage(half), candidates}, stream);
  });
  m.def("delta_attention_row0", [](Address dqkv, const Attention& base, Address unit, Address out, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_attention_row0, {any(dqkv), base, floats(unit), any(out), storage(half), candidates}, stream);
  });
  m.def("delta_attention_pool", [](Address dx, Address dq0, Address key_rows, const Attention& base, Address unit, Address pooled, Address from_base, bool half, int64_t candidates,
                                   Address stream) {
    launch(cuda::delta_attention_pool, {any(dx), any(dq0), any(key_rows), base, floats(unit), any(pooled), any(from_base), storage(half), candidates}, stream);
  });
  m.def("delta_attention_low_rank", [](Address dqkv, const Attention& base, Address rest, Address context_rows, Address value_row, Address value_changes, const Norm& norm,
                                       Address unit, Address out, bool half, int64_t candidates, Address stream) {
    launch(cuda::delta_attention_low_rank,
           {any(dqkv), base, floats(rest), floats(context_rows), floats(value_row), any(value_changes), norm, floats(unit), any(out), storage(half), candidates}, stream);
  });
  m.def("delta_head", [](Address pooler, Address pooled, Address classifier, Address out, int64_t candidates, int64_t hidden, int64_t classes, Address stream) {
    launch(cuda::delta_head, {floats(pooler), in<double>(pooled), in<double>(classifier), reinterpret_cast<double*>(out), candidates, hidden, classes}, stream);
  });
  m.def("mask_weight", [](Address weight, bool two_bytes, Address scores, float threshold, Address bits, Address masked, int64_t out, int64_t in_, Address stream) {
    launch(cuda::mask_weight, {any(weight), two_bytes, floats(scores), threshold, reinterpret_cast<uint8_t*>(bits), any(masked), out, in_}, stream);
  });
}
