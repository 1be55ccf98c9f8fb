// The first half of a feed-forward block on Hopper's tensor cores: out[t, n] = GELU difference of x[t, n] Wᵀ, the difference form an epilogue on the
// fp32 sums, so that the [S, N, f] intermediate is written once and never read back.
#include <cutlass/cutlass.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/sm90_callbacks_tma_warpspecialized.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "cuda/gemm/delta_gelu_op.cuh"

namespace pyneuro::cuda {
namespace {

using cute::_0;
using cute::_1;
using cute::_2;
using cute::_64;
using cute::_128;
using cute::Shape;
using cute::Stride;
namespace fusion = cutlass::epilogue::fusion;

template <class Tile, class Cluster, class MainSchedule, class EpilogueSchedule>
struct Product {
  using OfToken = fusion::Sm90RowBroadcast<0, Tile, float, float, Stride<_0, _1, int64_t>>;
  using OfCandidate = fusion::Sm90ColBroadcast<0, Tile, float, float, Stride<_1, _0, _0>>;
  using Fusion = fusion::Sm90EVT<fusion::Sm90Compute<DeltaGeluOp, Half, float, cutlass::FloatRoundStyle::round_to_nearest>, fusion::Sm90AccFetch, OfCandidate, OfToken, OfToken, OfToken,
                                 OfToken, OfToken>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
                                                                             cutlass::epilogue::collective::EpilogueTileAuto, float, float, void, RowMajor, kAligned, Half, RowMajor,
                                                                             kAligned, EpilogueSchedule, Fusion>::CollectiveOp;
  using Main = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Half, RowMajor, kAligned, Half, ColumnMajor, kAligned, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(sizeof(typename Epilogue::SharedStorage))>, MainSchedule>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<Shape<int, int, int, int>, Main, Epilogue>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;

  static cudaError_t run(const DeltaGeluLinear& args, cudaStream_t stream) {
    const int m = static_cast<int>(args.candidates), n = static_cast<int>(args.width), k = static_cast<int>(args.hidden), tokens = static_cast<int>(args.tokens);
    const int64_t f = args.width, d = args.hidden;
    typename Gemm::Arguments arguments{
        cutlass::gemm::GemmUniversalMode::kGemm,
        {m, n, k, tokens},
        {static_cast<const Half*>(args.x), {d, _1{}, args.candidates * d}, static_cast<const Half*>(args.weight), {d, _1{}, int64_t(0)}},
        {delta_gelu_arguments<Fusion, OfToken>(args),
         nullptr,
         {},
         static_cast<Half*>(args.out),
         {f, _1{}, args.candidates * f}}};
    Gemm gemm;
    if (gemm.can_implement(arguments) != cutlass::Status::kSuccess || Gemm::get_workspace_size(arguments) > 0) return cudaErrorInvalidValue;
    if (gemm.initialize(arguments, nullptr, stream) != cutlass::Status::kSuccess) return cudaErrorInvalidValue;
    return gemm.run(stream) == cutlass::Status::kSuccess ? cudaSuccess : cudaErrorLaunchFailure;
  }
};

using Fused = Product<Shape<_128, _128, _64>, Shape<_2, _1, _1>, cutlass::gemm::KernelTmaWarpSpecializedPingpong, cutlass::epilogue::TmaWarpSpecialized>;

}  // namespace

cudaError_t delta_gelu_linear_sm90(const DeltaGeluLinear& args, cudaStream_t stream) {
  if (args.tokens * args.candidates == 0) return cudaSuccess;
  return Fused::run(args, stream);
}

}  // namespace pyneuro::cuda
