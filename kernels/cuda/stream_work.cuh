#ifndef MNEME_KERNELS_CUDA_STREAM_WORK_CUH_
#define MNEME_KERNELS_CUDA_STREAM_WORK_CUH_

// What a launch of weight_stream.cuh works on, and how it is launched.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/backend.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/stream_plan.h"

namespace mneme::cuda {

// The weights of a group and its rows of x.
struct StreamGroup {
  const char* weights;
  int32_t first_row;
  int32_t row_count;
};

// What the groups of a launch share.
struct StreamArgs {
  int32_t n = 0, k = 0;
  const __nv_bfloat16* x = nullptr;
  int64_t x_stride = 0;
  float4* partials = nullptr;    // [unit][lane], if k is cut
  uint32_t* arrivals = nullptr;  // [group, tile], zero between launches
};

// A launch's work. Out: void operator()(group, weight row, row of x within the group, sum). If
// Out::kFused, it also has
//   norm(): StreamNorm, on the rows of x; only where k is not cut and there is one group;
//   gated(): the weights are gates above equally many ups. A tile has the same rows of both, and
//            StoreGated(row of the gates, row of x, gate, up) takes a thread's two sums.
// If Out::kHasAside, the launch does something else besides, in parts: bool Aside(i) does the i-th,
// or returns false beyond the last. It is for what the kernels in front have left.
template <typename Out>
struct StreamWork {
  const StreamPlan& plan;
  const StreamArgs& args;
  const StreamGroup* groups;
  const Out& out;
};

// The head of a block's shared memory. After it: x, the ring.
struct StreamShared {
  uint64_t full[kMaxStages], empty[kMaxStages];
  uint64_t sums_full[kStorers], sums_empty[kStorers];
  uint64_t squares_full;
  float4 sums[kStorers][kConsumers][32];  // one buffer for each storer
  float squares[kConsumers][kMaxXRows];   // of x, added up, for a norm
};

// Arguments of a product on `x` with the workspace's parts.
inline StreamArgs MakeStreamArgs(int64_t n, const Matrix& x, void* workspace) {
  StreamArgs args;
  args.n = static_cast<int32_t>(n);
  args.k = static_cast<int32_t>(x.cols);
  args.x = static_cast<const __nv_bfloat16*>(x.data);
  args.x_stride = x.stride;
  args.arrivals = static_cast<uint32_t*>(workspace);
  args.partials = reinterpret_cast<float4*>(static_cast<char*>(workspace) + kStreamArrivalBytes);
  return args;
}

// Whether bulk copies can bring the rows of `x` to shared memory.
inline bool CanStreamRows(const Matrix& x) {
  return x.dtype == DType::kBF16 && x.cols % 8 == 0 && x.cols <= INT32_MAX / 2 &&
         reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && (x.rows == 1 || x.stride % 8 == 0);
}

// Launches one block a multiprocessor.
template <auto kKernel, typename... Args>
void LaunchStream(const LaunchContext& context, const char* name, Args&&... args) {
  // Once for each kernel: an attribute of the function.
  static const cudaError_t allowed = [] {
    const cudaError_t error = cudaFuncSetAttribute(
        kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kStreamSharedBytes);
    if (error != cudaSuccess) return error;
    return cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                cudaSharedmemCarveoutMaxShared);
  }();
  context.errors->Check(allowed, name);
  Launch(context, name, kKernel, dim3(static_cast<unsigned>(context.num_sms)), dim3(kStreamThreads),
         kStreamSharedBytes, std::forward<Args>(args)...);
}

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_STREAM_WORK_CUH_
