#include "kernels/cuda/attention_graphs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace mneme::cuda {
namespace {

// Null, with the failure latched, if there is not that much.
DeviceMemory Allocate(int64_t bytes, ErrorLatch* errors) {
  absl::StatusOr<DeviceMemory> memory = AllocateDevice(bytes);
  if (memory.ok()) return *std::move(memory);
  errors->Fail(std::string(memory.status().message()));
  return nullptr;
}

}  // namespace

bool GraphPlans::Prepare(uint64_t key, absl::Span<const AttentionShape> shapes, const Step& step,
                         Planner* planner, const LaunchContext& context) {
  const StepView& view = step.host_view();
  const int64_t sequences = view.padded_rows;
  if (view.num_sequences != sequences) {
    context.errors->Fail(absl::StrCat("a step of ", view.num_sequences, " sequences and ",
                                      sequences, " rows cannot be captured in a graph"));
    return true;
  }
  Graph& graph = graphs_[key];
  const bool seen = !graph.plans.empty();
  for (const AttentionShape& shape : shapes) {
    if (Find(key, shape) != nullptr) continue;
    graph.plans.push_back({nullptr, {shape, {}}});
    graph.pages[shape.kv.group];
  }
  bool stayed = true;
  for (auto& [group, pages] : graph.pages) {
    stayed &= SendPages(view.groups[group], sequences, &pages, planner, context);
  }
  for (Plan& plan : graph.plans) {
    PlanShape(sequences, graph.pages[plan.plan.shape.kv.group], &plan, planner, context);
  }
  return stayed || !seen;
}

const ShapePlan* GraphPlans::Find(uint64_t key, const AttentionShape& shape) const {
  const auto graph = graphs_.find(key);
  if (graph == graphs_.end()) return nullptr;
  for (const Plan& plan : graph->second.plans) {
    if (plan.plan.shape == shape) return &plan.plan;
  }
  return nullptr;
}

bool GraphPlans::SendPages(const KvGroupView& view, int64_t sequences, Pages* pages,
                           Planner* planner, const LaunchContext& context) {
  if (!context.errors->ok()) return true;
  const int64_t num_pages = view.page_indptr[sequences];
  const bool fits = num_pages <= pages->capacity_pages;
  if (!fits) {
    constexpr int64_t kFirstPages = 4096;
    pages->capacity_pages = std::max(kFirstPages, 2 * num_pages);
    pages->memory = Allocate(ArraysBytes(sequences, pages->capacity_pages), context.errors);
  }
  const int64_t bytes = ArraysBytes(sequences, num_pages);
  void* const staged = planner->Stage(bytes, context.errors);
  if (!context.errors->ok()) return fits;
  FillArrays(view, nullptr, sequences, staged);
  planner->Send(staged, pages->memory.get(), bytes, context);
  pages->host = ArraysIn(staged, sequences);
  pages->device = ArraysIn(pages->memory.get(), sequences);
  return fits;
}

void GraphPlans::PlanShape(int64_t sequences, const Pages& pages, Plan* plan, Planner* planner,
                           const LaunchContext& context) {
  if (!context.errors->ok()) return;
  const bool is_new = plan->plan.calls.empty();
  if (is_new) plan->plan.calls.resize(1);
  PlannedCall& planned = plan->plan.calls[0];
  FlashCall& call = planned.call;
  call.shape = plan->plan.shape;
  call.sequences = call.rows = sequences;
  call.graph = true;
  call.host = pages.host;
  call.device = pages.device;
  const FlashPlanBytes bytes = planner->PlanBytes(planned, context);
  if (is_new) plan->schedule = Allocate(bytes.schedule, context.errors);
  if (!context.errors->ok()) return;
  const FlashPlan before = planned.plan;
  planner->Plan(bytes, plan->schedule.get(), &planned, context);
  if (is_new) return;
  if (before.layout != planned.plan.layout) {
    context.errors->Fail("attention's plan differs from the one that its graph was captured with");
  }
  planned.plan.partials = before.partials;
}

}  // namespace mneme::cuda
