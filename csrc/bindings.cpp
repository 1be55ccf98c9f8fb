// The native module: raw addresses and sizes in, nothing out. Shapes are checked by the callers in pyneuro/ops; torch never enters here.
#include "bindings.h"

#include <string>

using namespace pyneuro;
using namespace pyneuro::bindings;

namespace {

struct Weight {
  Address panels;
  int64_t out, in;
  bool bf16;
  operator PackedWeight() const { return {reinterpret_cast<const void*>(panels), out, in, bf16}; }
};
struct Frozen {
  Address weight;
  int64_t out, in;
  bool bf16;
  operator FrozenWeight() const { return {reinterpret_cast<const void*>(weight), out, in, bf16}; }
};
const Kernels& kernels(const std::string& isa) {
  const Kernels* k = find_kernels(isa.c_str());
  if (k == nullptr) throw py::value_error("no kernels for instruction set '" + isa + "' on this machine");
  return *k;
}

template <class Args>
void call(void (*kernel)(const Args&), const Args& args) {
  py::gil_scoped_release release;
  kernel(args);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "pyneuro's CPU kernels. Arrays are addresses of contiguous fp32 data; see csrc/include/pyneuro/kernels.h for shapes.";

  py::class_<Weight>(m, "Weight").def(py::init<Address, int64_t, int64_t, bool>(), py::arg("panels"), py::arg("out"), py::arg("in_"), py::arg("bf16"));
  py::class_<Frozen>(m, "Frozen").def(py::init<Address, int64_t, int64_t, bool>(), py::arg("weight"), py::arg("out"), py::arg("in_"), py::arg("bf16"));
  define_base_run(m);

  m.def(
      "instruction_sets",
      [] {
        py::dict found;
        for (const char* isa : {"avx512", "avx2", "baseline"})
          if (const Kernels* k = find_kernels(isa)) {
            py::dict d;
            d["panel_width"] = k->panel_width;
            d["tile_rows"] = k->tile_rows;
            d["bf16"] = k->bf16;
            found[isa] = d;
          }
        return found;
      },
      "Instruction sets this build holds and this machine runs, best first, with their packing width and tile height.");

  m.def(
      "delta_linear",
      [](const std::string& isa, Address dx, const Weight& w, Address out, int64_t rows, int threads) {
        call(kernels(isa).delta_linear, DeltaLinear{floats(dx), w, floats_out(out), rows, threads});
      },
      py::arg("isa"), py::arg("dx"), py::arg("weight"), py::arg("out"), py::arg("rows"), py::arg("threads"));
  m.def(
      "delta_layernorm",
      [](const std::string& isa, Address du, const Norm& base, Address out, int64_t tokens, int64_t candidates, int64_t hidden, int threads) {
        call(kernels(isa).delta_layernorm, DeltaLayerNorm{floats(du), base, floats_out(out), tokens, candidates, hidden, threads});
      },
      py::arg("isa"), py::arg("du"), py::arg("base"), py::arg("out"), py::arg("tokens"), py::arg("candidates"), py::arg("hidden"), py::arg("threads"));
  m.def(
      "delta_linear_norm",
      [](const std::string& isa, Address dx, Address residual, const Weight& w, const Norm& base, Address out, int64_t tokens, int64_t candidates, int threads) {
        call(kernels(isa).delta_linear_norm, DeltaLinearNorm{floats(dx), floats(residual), w, base, floats_out(out), tokens, candidates, threads});
      },
      py::arg("isa"), py::arg("dx"), py::arg("residual"), py::arg("weight"), py::arg("base"), py::arg("out"), py::arg("tokens"), py::arg("candidates"), py::arg("threads"));
  m.def(
      "delta_feed_forward",
      [](const std::string& isa, Address dx, const Weight& in, const Weight& out_w, Address pre_gelu, Address series, const Norm& base, Address out, int64_t tokens,
         int64_t candidates, int threads) {
        call(kernels(isa).delta_feed_forward,
             DeltaFeedForward{floats(dx), in, out_w, floats(pre_gelu), floats(series), base, floats_out(out), tokens, candidates, threads});
      },
      py::arg("isa"), py::arg("dx"), py::arg("in_weight"), py::arg("out_weight"), py::arg("pre_gelu"), py::arg("series"), py::arg("base"), py::arg("out"), py::arg("tokens"),
      py::arg("candidates"), py::arg("threads"));
  m.def(
      "delta_attention",
      [](const std::string& isa, Address dqkv, const Attention& base, Address out, int64_t candidates, int threads) {
        call(kernels(isa).delta_attention, DeltaAttention{floats(dqkv), base, floats_out(out), candidates, threads});
      },
      py::arg("isa"), py::arg("dqkv"), py::arg("base"), py::arg("out"), py::arg("candidates"), py::arg("threads"));
  m.def(
      "delta_attention_row0",
      [](const std::string& isa, Address dqkv, const Attention& base, Address out, int64_t candidates, int threads) {
        call(kernels(isa).delta_attention_row0, DeltaAttentionRow0{floats(dqkv), base, floats_out(out), candidates, threads});
      },
      py::arg("isa"), py::arg("dqkv"), py::arg("base"), py::arg("out"), py::arg("candidates"), py::arg("threads"));
  m.def(
      "delta_attention_row0_dense",
      [](const std::string& isa, Address dx, Address dq0, const Attention& base, const Weight& key_transposed, const Weight& value_heads, Address out, int64_t candidates,
         int threads) {
        call(kernels(isa).delta_attention_row0_dense,
             DeltaAttentionRow0Dense{floats(dx), floats(dq0), base, key_transposed, value_heads, floats_out(out), candidates, threads});
      },
      py::arg("isa"), py::arg("dx"), py::arg("dq0"), py::arg("base"), py::arg("key_transposed"), py::arg("value_heads"), py::arg("out"), py::arg("candidates"),
      py::arg("threads"));
  m.def(
      "delta_attention_low_rank",
      [](const std::string& isa, Address dqkv, Address dx, const Attention& base, Address context_rows, Address value_row, const Weight& output, const Norm& norm, Address out,
         int64_t candidates, int threads) {
        call(kernels(isa).delta_attention_low_rank,
             DeltaAttentionLowRank{floats(dqkv), floats(dx), base, floats(context_rows), floats(value_row), output, norm, floats_out(out), candidates, threads});
      },
      py::arg("isa"), py::arg("dqkv"), py::arg("dx"), py::arg("base"), py::arg("context_rows"), py::arg("value_row"), py::arg("output"), py::arg("norm"), py::arg("out"),
      py::arg("candidates"), py::arg("threads"));

  // Addresses of 0 are absent arguments.
  m.def(
      "masked_linear",
      [](const std::string& isa, Address x, const Frozen& w, Address scores, float threshold, Address bits, Address bias, bool mask_bias, Address y, int64_t rows,
         int threads) {
        call(kernels(isa).masked_linear, MaskedLinear{reinterpret_cast<const void*>(x), w, floats(scores), threshold, reinterpret_cast<uint8_t*>(bits),
                                                      reinterpret_cast<const void*>(bias), mask_bias, reinterpret_cast<void*>(y), rows, threads});
      },
      py::arg("isa"), py::arg("x"), py::arg("weight"), py::arg("scores"), py::arg("threshold"), py::arg("bits"), py::arg("bias"), py::arg("mask_bias"), py::arg("y"),
      py::arg("rows"), py::arg("threads"));
  m.def(
      "masked_linear_backward",
      [](const std::string& isa, Address dy, Address x, const Frozen& w, Address bits, Address dx, Address dscores, int64_t rows, int threads) {
        call(kernels(isa).masked_linear_backward,
             MaskedLinearBackward{reinterpret_cast<const void*>(dy), reinterpret_cast<const void*>(x), w, reinterpret_cast<const uint8_t*>(bits),
                                  reinterpret_cast<void*>(dx), floats_out(dscores), rows, threads});
      },
      py::arg("isa"), py::arg("dy"), py::arg("x"), py::arg("weight"), py::arg("bits"), py::arg("dx"), py::arg("dscores"), py::arg("rows"), py::arg("threads"));
  m.def(
      "masked_linear_multi",
      [](const std::string& isa, Address x, bool shared, const Frozen& w, Address bits, Address bias, bool mask_bias, Address y, int64_t masks, int64_t rows, int threads) {
        call(kernels(isa).masked_linear_multi,
             MaskedLinearMulti{reinterpret_cast<const void*>(x), shared, w, reinterpret_cast<const uint8_t*>(bits), reinterpret_cast<const void*>(bias), mask_bias,
                               reinterpret_cast<void*>(y), masks, rows, threads});
      },
      py::arg("isa"), py::arg("x"), py::arg("shared"), py::arg("weight"), py::arg("bits"), py::arg("bias"), py::arg("mask_bias"), py::arg("y"), py::arg("masks"),
      py::arg("rows"), py::arg("threads"));
}
