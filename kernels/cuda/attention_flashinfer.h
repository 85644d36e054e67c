#ifndef MNEME_KERNELS_CUDA_ATTENTION_FLASHINFER_H_
#define MNEME_KERNELS_CUDA_ATTENTION_FLASHINFER_H_

// FlashInfer's two attention kernels behind plain functions: FA2 for short pieces, FA3 for long
// ones. Each lives in a file of its own, since their headers exclude each other. bf16,
// head sizes 64 and 128, whole groups of query heads. Failures are latched; nothing is thrown.

#include <array>
#include <cstdint>
#include <exception>
#include <string>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"

namespace mneme::cuda {

// Where a step's sequences find their rows and pages. Positions and lengths count from slot 0 of a
// sequence's first page. Entries may be absolute: only `pages` is indexed by page_indptr.
struct FlashArrays {
  const int32_t* q_indptr = nullptr;       // [sequences + 1] into the rows
  const int32_t* page_indptr = nullptr;    // [sequences + 1] into pages
  const int32_t* last_page_len = nullptr;  // [sequences] 1 … page_tokens; 0 without pages
  const int32_t* kv_length = nullptr;      // [sequences] (host only)
  const int32_t* pages = nullptr;          // (device only)
};

// Consecutive sequences of a step that one launch works on.
struct FlashCall {
  AttentionShape shape;
  int64_t sequences = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  FlashArrays host, device;  // of the call's first sequence on
};

// A schedule: where its parts lie, in FlashInfer's own terms, and the memory that holds them.
struct FlashPlan {
  std::array<int64_t, 15> layout{};
  void* schedule = nullptr;  // device
  void* partials = nullptr;  // device; results of parts of a long context, between two kernels
};

struct FlashPlanBytes {
  int64_t schedule = 0;
  int64_t partials = 0;
};

// Device memory that the plan of `call` takes.
FlashPlanBytes Fa2PlanBytes(const FlashCall& call, const LaunchContext& context);
// Writes the schedule into `staging` (pinned, as large as the schedule), queues its copy to
// plan->schedule and fills plan->layout. `staging` must stay untouched until the copy is done.
void Fa2Plan(const FlashCall& call, const FlashPlanBytes& bytes, void* staging, FlashPlan* plan,
             const LaunchContext& context);
// qkv and out are the whole step's; out has no gaps between rows.
void Fa2Run(const FlashCall& call, const FlashPlan& plan, Matrix qkv, const void* kv_data,
            Matrix out, const LaunchContext& context);

// Whether FA3 takes the call and is the faster one. It has a block for each query head and tile of
// rows: where they leave more than half of the device idle, FA2 gains by sharing out a long
// context.
bool PrefersFa3(const FlashCall& call, const LaunchContext& context);
FlashPlanBytes Fa3PlanBytes(const FlashCall& call, const LaunchContext& context);
void Fa3Plan(const FlashCall& call, const FlashPlanBytes& bytes, void* staging, FlashPlan* plan,
             const LaunchContext& context);
void Fa3Run(const FlashCall& call, const FlashPlan& plan, Matrix qkv, const void* kv_data,
            Matrix out, const LaunchContext& context);

// Calls what may throw or return an error of CUDA.
template <typename Call>
void Guarded(const char* what, const LaunchContext& context, Call&& call) {
  if (!context.errors->ok()) return;
  try {
    context.errors->Check(call(), what);
  } catch (const std::exception& error) {
    context.errors->Fail(std::string(what) + ": " + error.what());
  }
}

// FlashInfer takes pointers to mutable integers but only reads them.
inline int32_t* Mutable(const int32_t* p) { return const_cast<int32_t*>(p); }

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_FLASHINFER_H_
