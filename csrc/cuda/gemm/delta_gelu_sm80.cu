// As delta_gelu_sm90.cu, for Ampere and Ada: the same epilogue by CUTLASS 2's visitors.
#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/default_gemm_universal_with_visitor.h>
// After the kernels, whose headers it leans on.
#include <cutlass/epilogue/threadblock/fusion/visitors.hpp>

#include "cuda/gemm/delta_gelu_op.cuh"

namespace pyneuro::cuda {
namespace {

using cute::_0;
using cute::_1;
using cute::Stride;
namespace visitors = cutlass::epilogue::threadblock;

constexpr int kStages = 4, kEpilogueStages = 1;

using Tile = cutlass::gemm::GemmShape<128, 128, 32>;
using Warp = cutlass::gemm::GemmShape<64, 64, 32>;
using Instruction = cutlass::gemm::GemmShape<16, 8, 16>;
using Threads = visitors::OutputTileThreadLayout<Tile, Warp, Half, kAligned, kEpilogueStages>;
constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;

using OfToken = visitors::VisitorRowBroadcast<Threads, float, Stride<_0, _1, int64_t>>;
using OfCandidate = visitors::VisitorColBroadcast<Threads, float, Stride<_1, _0, _0>>;
using Difference = visitors::Sm80EVT<visitors::VisitorCompute<DeltaGeluOp, Half, float, kRound>, visitors::VisitorAccFetch, OfCandidate, OfToken, OfToken, OfToken, OfToken, OfToken>;
using Store = visitors::VisitorAuxStore<Threads, Half, kRound, Stride<int64_t, _1, int64_t>>;
using Fusion = visitors::Sm80EVT<Store, Difference>;
using Kernel = cutlass::gemm::kernel::DefaultGemmWithVisitor<Half, RowMajor, cutlass::ComplexTransform::kNone, kAligned, Half, ColumnMajor, cutlass::ComplexTransform::kNone, kAligned,
                                                             Half, RowMajor, kAligned, float, float, cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, Tile, Warp, Instruction, Fusion,
                                                             cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<8>, kStages, cutlass::arch::OpMultiplyAdd,
                                                             kEpilogueStages>::GemmKernel;
using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

}  // namespace

cudaError_t delta_gelu_linear_sm80(const DeltaGeluLinear& args, cudaStream_t stream) {
  if (args.tokens * args.candidates == 0) return cudaSuccess;
  const int m = static_cast<int>(args.candidates), n = static_cast<int>(args.width), k = static_cast<int>(args.hidden), tokens = static_cast<int>(args.tokens);
  const int64_t f = args.width, d = args.hidden;
  const typename Fusion::Arguments fusion{delta_gelu_arguments<Difference, OfToken>(args), {static_cast<Half*>(args.out), {f, _1{}, args.candidates * f}}};
  typename Gemm::Arguments arguments(cutlass::gemm::GemmUniversalMode::kBatched, {m, n, k}, tokens, fusion, args.x, args.weight, nullptr, nullptr, args.candidates * d, 0, 0, 0, d, d,
                                     0, 0);
  Gemm gemm;
  if (gemm.can_implement(arguments) != cutlass::Status::kSuccess || Gemm::get_workspace_size(arguments) > 0) return cudaErrorInvalidValue;
  if (gemm.initialize(arguments, nullptr, stream) != cutlass::Status::kSuccess) return cudaErrorInvalidValue;
  return gemm.run(stream) == cutlass::Status::kSuccess ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace pyneuro::cuda
