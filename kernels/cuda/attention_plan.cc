#include "kernels/cuda/attention_plan.h"

#include <cstring>

namespace mneme::cuda {

int64_t ArraysBytes(int64_t sequences, int64_t pages) {
  return (2 * (sequences + 1) + sequences + pages) * int64_t{sizeof(int32_t)};
}

FlashArrays ArraysIn(const void* block, int64_t sequences) {
  const auto* const integers = static_cast<const int32_t*>(block);
  FlashArrays arrays;
  arrays.q_indptr = integers;
  arrays.page_indptr = integers + sequences + 1;
  arrays.last_page_len = integers + 2 * (sequences + 1);
  arrays.pages = arrays.last_page_len + sequences;
  return arrays;
}

void FillArrays(const KvGroupView& view, const int32_t* q_indptr, int64_t sequences, void* block) {
  const FlashArrays arrays = ArraysIn(block, sequences);
  const auto copy = [](const int32_t* from, int64_t count, const int32_t* to) {
    std::memcpy(Mutable(to), from, static_cast<size_t>(count) * sizeof(int32_t));
  };
  copy(q_indptr, sequences + 1, arrays.q_indptr);
  copy(view.page_indptr, sequences + 1, arrays.page_indptr);
  copy(view.last_page_len, sequences, arrays.last_page_len);
  copy(view.pages, view.page_indptr[sequences], arrays.pages);
}

void Planner::Send(const void* staged, void* device, int64_t bytes,
                   const LaunchContext& context) const {
  if (!context.errors->ok()) return;
  context.errors->Check(cudaMemcpyAsync(device, staged, static_cast<size_t>(bytes),
                                        cudaMemcpyHostToDevice, context.stream),
                        "sending attention's pages");
}

FlashPlanBytes Planner::PlanBytes(const PlannedCall& planned, const LaunchContext& context) const {
  return planned.kernel == AttentionKernel::kFa3 ? Fa3PlanBytes(planned.call, context)
                                                 : Fa2PlanBytes(planned.call, context);
}

void Planner::Plan(const FlashPlanBytes& bytes, void* schedule, PlannedCall* planned,
                   const LaunchContext& context) {
  void* const staged = Stage(bytes.schedule, context.errors);
  if (!context.errors->ok()) return;
  planned->plan.schedule = schedule;
  if (planned->kernel == AttentionKernel::kFa3) {
    Fa3Plan(planned->call, bytes, staged, &planned->plan, context);
    return;
  }
  planned->plan.partials = partials_.Get(bytes.partials, context.errors);
  Fa2Plan(planned->call, bytes, staged, &planned->plan, context);
}

}  // namespace mneme::cuda
