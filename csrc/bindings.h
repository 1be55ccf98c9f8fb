// What both native modules hand to their kernels: addresses and sizes in, checked by the callers in pyneuro/ops; torch never enters here.
#pragma once
#include <pybind11/pybind11.h>

#include "pyneuro/kernels.h"

namespace pyneuro::bindings {

namespace py = pybind11;

using Address = uintptr_t;

inline const float* floats(Address a) { return reinterpret_cast<const float*>(a); }
inline float* floats_out(Address a) { return reinterpret_cast<float*>(a); }

struct Norm {
  Address centred, rstd, gamma;
  operator NormBase() const { return {floats(centred), floats(rstd), floats(gamma)}; }
};
struct Attention {
  Address q, k, v, p;
  int64_t tokens, hidden, heads;
  float scale;
  operator AttentionBase() const { return {floats(q), floats(k), floats(v), floats(p), tokens, hidden, heads, scale}; }
};

// Each module has its own copy of these classes.
inline void define_base_run(py::module_& m) {
  py::class_<Norm>(m, "Norm", py::module_local()).def(py::init<Address, Address, Address>(), py::arg("centred"), py::arg("rstd"), py::arg("gamma"));
  py::class_<Attention>(m, "Attention", py::module_local())
      .def(py::init<Address, Address, Address, Address, int64_t, int64_t, int64_t, float>(), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("p"), py::arg("tokens"),
           py::arg("hidden"), py::arg("heads"), py::arg("scale"));
}

}  // namespace pyneuro::bindings
