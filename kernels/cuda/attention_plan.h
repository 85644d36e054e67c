#ifndef MNEME_KERNELS_CUDA_ATTENTION_PLAN_H_
#define MNEME_KERNELS_CUDA_ATTENTION_PLAN_H_

// How attention is planned where the step's lengths decide what is launched.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/attention_buffers.h"
#include "kernels/cuda/attention_flashinfer.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

enum class AttentionKernel : uint8_t { kDecode, kFa2, kFa3 };

struct PlannedCall {
  AttentionKernel kernel = AttentionKernel::kFa2;
  int64_t first_sequence = 0;
  FlashCall call;
  FlashPlan plan;  // not of kDecode
};

// What one step launches for all layers of a shape.
struct ShapePlan {
  AttentionShape shape;
  std::vector<PlannedCall> calls;
};

// The arrays of FlashArrays as one block of integers, in pinned or device memory.
int64_t ArraysBytes(int64_t sequences, int64_t pages);
FlashArrays ArraysIn(const void* block, int64_t sequences);
// Fills a block (of host memory).
void FillArrays(const KvGroupView& view, const int32_t* q_indptr, int64_t sequences, void* block);

// The memory of one stream's plans, and how they get to the device. One thread.
class Planner {
 public:
  explicit Planner(std::unique_ptr<AlternatingStaging> staging) : staging_(std::move(staging)) {}

  // A step begins: what was sent for the ones before has been queued.
  void NextStep(const LaunchContext& context) { staging_->Rotate(context); }
  // Pinned memory of this step. Null, with the failure latched, if there is none.
  void* Stage(int64_t bytes, ErrorLatch* errors) { return staging_->Take(bytes, errors); }
  void Send(const void* staged, void* device, int64_t bytes, const LaunchContext& context) const;
  // Device memory that the call's schedule takes (kFa2, kFa3), and its plan in such memory.
  FlashPlanBytes PlanBytes(const PlannedCall& planned, const LaunchContext& context) const;
  void Plan(const FlashPlanBytes& bytes, void* schedule, PlannedCall* planned,
            const LaunchContext& context);

 private:
  std::unique_ptr<AlternatingStaging> staging_;
  Scratch partials_;  // of all plans: launches come one after another
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_PLAN_H_
