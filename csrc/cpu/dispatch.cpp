// Chooses among the instruction sets this build holds and this machine has.
#include <cstring>

#include "pyneuro/kernels.h"

namespace pyneuro {

namespace baseline {
extern const Kernels kernels;
}
#if defined(PN_BUILD_X86)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

namespace {

bool machine_has(const char* isa) {
#if defined(PN_BUILD_X86)
  if (std::strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("x86-64-v4");
  if (std::strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("x86-64-v3");
#endif
  return std::strcmp(isa, "baseline") == 0;
}

#if defined(PN_BUILD_X86)
// The avx512 table as this machine can run it: bf16 is an extension of its own.
Kernels avx512_here() {
  Kernels k = avx512::kernels;
  k.bf16 = k.bf16 && __builtin_cpu_supports("avx512bf16");
  return k;
}
#endif

}  // namespace

const Kernels* find_kernels(const char* isa) {
  if (!machine_has(isa)) return nullptr;
#if defined(PN_BUILD_X86)
  static const Kernels avx512_kernels = avx512_here();
  if (std::strcmp(isa, "avx512") == 0) return &avx512_kernels;
  if (std::strcmp(isa, "avx2") == 0) return &avx2::kernels;
#endif
  return std::strcmp(isa, "baseline") == 0 ? &baseline::kernels : nullptr;
}

}  // namespace pyneuro
