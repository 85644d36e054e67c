#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;
constexpr int kMaxCandidates = 16;
constexpr int kTimedRuns = 3;

cudaDataType_t TypeOf(DType dtype) { return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

// Products of fewer multiplications take a microsecond or two whatever computes them.
constexpr int64_t kTunedMultiplications = int64_t{1} << 26;

// Rows that share a plan: few rows differ much from one another, many do not. A transposed matrix
// has features for rows, whose number is always the same.
int64_t PlanRows(const Product& product) {
  const int64_t m = product.m;
  if (product.a_transposed) return m;
  if (m <= 64) return (m + 7) / 8 * 8;
  if (m <= 256) return (m + 31) / 32 * 32;
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(m)));
}

uint32_t AlignmentOf(const void* data) {
  const auto address = reinterpret_cast<uintptr_t>(data);
  return address == 0 ? 256 : std::min(256u, 1u << std::min(std::countr_zero(address), 8));
}

using PreferenceHandle = std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>,
                                         decltype([](cublasLtMatmulPreference_t p) {
                                           cublasLtMatmulPreferenceDestroy(p);
                                         })>;

// A product as the library describes it. It thinks in columns: outᵀ [n, m] = op(b) op(a)ᵀ, so that
// its first operand is our b and its rows are our columns.
class Problem {
 public:
  // `m`: rows to describe.
  Problem(const Product& product, int64_t m) {
    Keep(cublasLtMatmulDescInit(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    Set(CUBLASLT_MATMUL_DESC_TRANSA, product.b_plain ? CUBLAS_OP_N : CUBLAS_OP_T);
    Set(CUBLASLT_MATMUL_DESC_TRANSB, product.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    const int64_t n = product.n, k = product.k;
    const cudaDataType_t in = TypeOf(product.dtype);
    Lay(&b_, in, product.b_plain ? n : k, product.b_plain ? k : n, product.b_stride);
    Lay(&a_, in, product.a_transposed ? m : k, product.a_transposed ? k : m, product.a_stride);
    Lay(&out_, TypeOf(product.out_dtype), n, m, product.out_stride);
  }

  std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle, const Product& product) {
    cublasLtMatmulPreference_t raw = nullptr;
    Keep(cublasLtMatmulPreferenceCreate(&raw));
    const PreferenceHandle preference(raw);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      Keep(cublasLtMatmulPreferenceSetAttribute(raw, attribute, &value, sizeof value));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
    // Where k is split, parts are added up in float32, not in what `out` is of.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
           static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(product.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(product.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(product.out));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(product.out));
    std::array<cublasLtMatmulHeuristicResult_t, kMaxCandidates> results;
    int count = 0;
    if (status_ == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulAlgoGetHeuristic(handle, &operation_, &b_, &a_, &out_, &out_, raw,
                                       kMaxCandidates, results.data(),
                                       &count) != CUBLAS_STATUS_SUCCESS) {
      count = 0;
    }
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& result = results[static_cast<size_t>(i)];
      if (result.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(result.algo);
    }
    return algorithms;
  }

  cublasStatus_t Multiply(cublasLtHandle_t handle, const Product& product,
                          const cublasLtMatmulAlgo_t& algorithm, void* workspace,
                          cudaStream_t stream) {
    if (status_ != CUBLAS_STATUS_SUCCESS) return status_;
    return cublasLtMatmul(handle, &operation_, &product.alpha, product.b, &b_, product.a, &a_,
                          &product.beta, product.out, &out_, product.out, &out_, &algorithm,
                          workspace, static_cast<size_t>(kWorkspaceBytes), stream);
  }

 private:
  template <typename T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    Keep(cublasLtMatmulDescSetAttribute(&operation_, attribute, &value, sizeof value));
  }
  // A matrix whose columns are `stride` elements apart.
  void Lay(cublasLtMatrixLayoutOpaque_t* layout, cudaDataType_t type, int64_t rows, int64_t cols,
           int64_t stride) {
    Keep(cublasLtMatrixLayoutInit(layout, type, static_cast<uint64_t>(rows),
                                  static_cast<uint64_t>(cols), stride));
  }
  void Keep(cublasStatus_t status) {
    if (status_ == CUBLAS_STATUS_SUCCESS) status_ = status;
  }

  cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;  // the first failure
  cublasLtMatmulDescOpaque_t operation_;
  cublasLtMatrixLayoutOpaque_t b_, a_, out_;
};

// What a plan depends on.
using Key = std::tuple<int64_t, int64_t, int64_t,        // rows (PlanRows), n, k
                       int64_t, int64_t, int64_t,        // strides
                       uint32_t, uint32_t, uint32_t,     // alignments
                       bool, bool, bool, DType, DType>;  // transposes, beta, types

Key KeyOf(const Product& p, int64_t rows) {
  return {rows,
          p.n,
          p.k,
          p.a_stride,
          p.b_stride,
          p.out_stride,
          AlignmentOf(p.a),
          AlignmentOf(p.b),
          AlignmentOf(p.out),
          p.a_transposed,
          p.b_plain,
          p.beta != 0,
          p.dtype,
          p.out_dtype};
}

bool IsCapturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) != cudaSuccess ||
         status != cudaStreamCaptureStatusNone;
}

class TunedProductPlans : public ProductPlans {
 public:
  absl::Status Start() {
    ErrorLatch errors;
    cublasLtHandle_t handle = nullptr;
    errors.Check(cublasLtCreate(&handle), "cublasLtCreate");
    handle_.reset(handle);
    MNEME_RETURN_IF_ERROR(errors.status());
    MNEME_ASSIGN_OR_RETURN(workspace_, AllocateDevice(kWorkspaceBytes));
    MNEME_ASSIGN_OR_RETURN(begin_, CreateEventHandle(cudaEventDefault));
    MNEME_ASSIGN_OR_RETURN(end_, CreateEventHandle(cudaEventDefault));
    return absl::OkStatus();
  }

  void Run(const Product& product, const LaunchContext& context) override;

 private:
  // The plan of `key`, found for these operands if there is none yet; null if there is no way to
  // compute such a product.
  const cublasLtMatmulAlgo_t* Find(const Key& key, const Product& product,
                                   const LaunchContext& context);
  // The fastest of the candidates on this device; the first where they cannot be tried.
  cublasLtMatmulAlgo_t Fastest(const std::vector<cublasLtMatmulAlgo_t>& candidates, Product product,
                               Problem* problem, const LaunchContext& context);
  // Milliseconds of the best of a few runs; infinite if the algorithm fails.
  float Time(const cublasLtMatmulAlgo_t& algorithm, const Product& product, Problem* problem,
             const LaunchContext& context);

  std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>,
                  decltype([](cublasLtHandle_t handle) { cublasLtDestroy(handle); })>
      handle_;
  DeviceMemory workspace_;
  EventHandle begin_, end_;
  std::map<Key, cublasLtMatmulAlgo_t> plans_;
};

void TunedProductPlans::Run(const Product& product, const LaunchContext& context) {
  if (product.m == 0 || product.n == 0 || !context.errors->ok()) return;
  // A plan for more rows may not take these: then they get one of their own.
  for (const int64_t rows : {PlanRows(product), product.m}) {
    const cublasLtMatmulAlgo_t* const plan = Find(KeyOf(product, rows), product, context);
    if (plan == nullptr) continue;
    Problem problem(product, product.m);
    const cublasStatus_t status =
        problem.Multiply(handle_.get(), product, *plan, workspace_.get(), context.stream);
    if (status != CUBLAS_STATUS_SUCCESS && rows != product.m) continue;
    context.errors->Check(status, "cublasLtMatmul");
    if (product.bias != nullptr) {
      AddBias(static_cast<const float*>(product.bias),
              {product.out, product.out_dtype, product.m, product.n, product.out_stride}, context);
    }
    return;
  }
  context.errors->Fail(absl::StrCat("cuBLASLt has no way to multiply [", product.m, ", ", product.k,
                                    "] by [", product.k, ", ", product.n, "]"));
}

const cublasLtMatmulAlgo_t* TunedProductPlans::Find(const Key& key, const Product& product,
                                                    const LaunchContext& context) {
  if (const auto found = plans_.find(key); found != plans_.end()) return &found->second;
  Problem rounded(product, std::get<0>(key));
  const std::vector<cublasLtMatmulAlgo_t> candidates = rounded.Candidates(handle_.get(), product);
  if (candidates.empty()) return nullptr;
  Problem actual(product, product.m);
  return &plans_.emplace(key, Fastest(candidates, product, &actual, context)).first->second;
}

cublasLtMatmulAlgo_t TunedProductPlans::Fastest(const std::vector<cublasLtMatmulAlgo_t>& candidates,
                                                Product product, Problem* problem,
                                                const LaunchContext& context) {
  const bool small = product.m * product.n * product.k < kTunedMultiplications;
  if (small || candidates.size() == 1 || IsCapturing(context.stream)) return candidates[0];
  DeviceMemory scratch;
  if (product.beta != 0) {  // repeated runs would add up
    absl::StatusOr<DeviceMemory> memory =
        AllocateDevice(product.m * product.out_stride * SizeOf(product.out_dtype));
    if (!memory.ok()) return candidates[0];
    scratch = *std::move(memory);
    product.out = scratch.get();
  }
  size_t best = 0;
  float best_ms = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < candidates.size(); ++i) {
    const float ms = Time(candidates[i], product, problem, context);
    if (ms < best_ms) std::tie(best, best_ms) = std::pair(i, ms);
  }
  return candidates[best];
}

float TunedProductPlans::Time(const cublasLtMatmulAlgo_t& algorithm, const Product& product,
                              Problem* problem, const LaunchContext& context) {
  float best_ms = std::numeric_limits<float>::infinity();
  for (int i = 0; i <= kTimedRuns; ++i) {
    // Displaces the operands from the cache, where a step does not find its weights either.
    context.errors->Check(
        cudaMemsetAsync(workspace_.get(), 0, static_cast<size_t>(kWorkspaceBytes), context.stream),
        "cudaMemsetAsync");
    context.errors->Check(cudaEventRecord(begin_.get(), context.stream), "cudaEventRecord");
    if (problem->Multiply(handle_.get(), product, algorithm, workspace_.get(), context.stream) !=
        CUBLAS_STATUS_SUCCESS) {
      return std::numeric_limits<float>::infinity();
    }
    context.errors->Check(cudaEventRecord(end_.get(), context.stream), "cudaEventRecord");
    context.errors->Check(cudaEventSynchronize(end_.get()), "trying a product");
    float ms = 0;
    context.errors->Check(cudaEventElapsedTime(&ms, begin_.get(), end_.get()), "cudaEventElapsed");
    if (i > 0) best_ms = std::min(best_ms, ms);  // the first run loads the kernel
  }
  return best_ms;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProductPlans>> ProductPlans::Create() {
  auto plans = std::make_unique<TunedProductPlans>();
  MNEME_RETURN_IF_ERROR(plans->Start());
  return plans;
}

}  // namespace mneme::cuda
