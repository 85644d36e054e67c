#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention_buffers.h"
#include "kernels/cuda/attention_flashinfer.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {
namespace {

// Sequences with so many rows are FA3's, if there are enough of them.
constexpr int64_t kLongRows = 256;

struct PlannedCall {
  FlashCall call;
  FlashPlan plan;
  bool fa3 = false;
};

// What one step launches for all layers of a shape.
struct ShapePlan {
  AttentionShape shape;
  std::vector<PlannedCall> calls;
};

// The pages of one KV group, as the step's plans find them.
struct GroupPages {
  FlashArrays host, device;
  std::vector<int32_t> kv_length;  // host.kv_length
};

// What a captured graph has in its kernels' arguments: memory that stays where it is.
struct GraphPages {
  DeviceMemory memory;
  int64_t capacity_pages = 0;
  FlashArrays host, device;
};
struct GraphPlan {
  DeviceMemory schedule;
  ShapePlan plan;
};
struct Graph {
  std::map<int, GraphPages> pages;  // by KV group
  std::vector<GraphPlan> plans;
};

// Where the arrays of FlashArrays lie within one block of integers.
FlashArrays ArraysIn(const void* block, int64_t sequences) {
  const auto* const q = static_cast<const int32_t*>(block);
  FlashArrays arrays;
  arrays.q_indptr = q;
  arrays.page_indptr = q + sequences + 1;
  arrays.last_page_len = q + 2 * (sequences + 1);
  arrays.pages = q + 2 * (sequences + 1) + sequences;
  return arrays;
}
int64_t ArraysBytes(int64_t sequences, int64_t pages) {
  return (2 * (sequences + 1) + sequences + pages) * int64_t{sizeof(int32_t)};
}

// Fills a block with `sequences` sequences of the group. q_indptr: null for one row each.
void FillArrays(const KvGroupView& view, const int32_t* q_indptr, int64_t sequences, void* block) {
  const FlashArrays arrays = ArraysIn(block, sequences);
  const auto copy = [](const int32_t* from, int64_t count, const int32_t* to) {
    std::memcpy(Mutable(to), from, static_cast<size_t>(count) * sizeof(int32_t));
  };
  for (int64_t i = 0; i <= sequences; ++i) {
    Mutable(arrays.q_indptr)[i] = q_indptr == nullptr ? static_cast<int32_t>(i) : q_indptr[i];
  }
  copy(view.page_indptr, sequences + 1, arrays.page_indptr);
  copy(view.last_page_len, sequences, arrays.last_page_len);
  copy(view.pages, view.page_indptr[sequences], arrays.pages);
}

FlashArrays From(FlashArrays arrays, int64_t sequence) {
  arrays.q_indptr += sequence;
  arrays.page_indptr += sequence;
  arrays.last_page_len += sequence;
  if (arrays.kv_length != nullptr) arrays.kv_length += sequence;
  return arrays;
}

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether FlashInfer's kernels take such layers.
bool IsFlash(const Matrix& qkv, const AttentionShape& shape, const void* kv_data,
             const Matrix& out) {
  constexpr int64_t kMaxPageBytes = int64_t{1} << 31;
  const QkvShape& heads = shape.heads;
  const KvLayer& kv = shape.kv;
  return kv.dtype == DType::kBF16 && qkv.dtype == DType::kBF16 && out.dtype == DType::kBF16 &&
         (heads.head_dim == 64 || heads.head_dim == 128) &&
         heads.query_heads % heads.kv_heads == 0 && kv.page_stride_bytes % 16 == 0 &&
         kv.page_stride_bytes < kMaxPageBytes && qkv.stride % 8 == 0 && out.stride == out.cols &&
         IsAligned(qkv.data) && IsAligned(kv_data) && IsAligned(out.data);
}

// Sequences of one kind are worked on together: 0 decode, 1 short pieces, 2 long ones.
int KindOf(int64_t rows) { return rows == 1 ? 0 : rows < kLongRows ? 1 : 2; }

class FlashAttention final : public PagedAttention {
 public:
  explicit FlashAttention(std::unique_ptr<AlternatingStaging> staging)
      : staging_(std::move(staging)) {}

  bool BeginStep(const Step& step, uint64_t graph_key, const LaunchContext& context) override;
  void Run(Matrix qkv, const AttentionShape& shape, const void* kv_data, Matrix out,
           const LaunchContext& context) override;

 private:
  // The step's plan for layers of a shape; null where a graph has none.
  const ShapePlan* FindPlan(const AttentionShape& shape) const;
  void PlanStep(const AttentionShape& shape, const LaunchContext& context);
  const GroupPages& StepPages(const KvLayer& kv, const LaunchContext& context);
  void PlanGraph(const AttentionShape& shape, GraphPlan* plan, const GraphPages& pages,
                 const LaunchContext& context);
  bool SendGraphPages(int group, GraphPages* pages, const LaunchContext& context);
  void Plan(PlannedCall* planned, void* schedule, const FlashPlanBytes& bytes,
            const LaunchContext& context);
  void* Send(const void* staged, void* device, int64_t bytes, const LaunchContext& context);

  std::unique_ptr<AlternatingStaging> staging_;
  Arena<DeviceMemory> step_memory_{AllocateDevice};  // of an eager step's plans
  Scratch partials_;                                 // of all plans: one launch after another

  const Step* step_ = nullptr;
  std::vector<AttentionShape> shapes_;    // that FlashInfer's kernels ran
  std::map<int, GroupPages> step_pages_;  // by KV group
  std::vector<ShapePlan> step_plans_;
  std::map<uint64_t, Graph> graphs_;
  Graph* graph_ = nullptr;  // that is captured or replayed; null: eager
};

bool FlashAttention::BeginStep(const Step& step, uint64_t graph_key, const LaunchContext& context) {
  step_ = &step;
  graph_ = nullptr;
  step_pages_.clear();
  step_plans_.clear();
  step_memory_.Reset();
  staging_->Rotate(context);
  if (graph_key == 0) return true;

  graph_ = &graphs_[graph_key];
  const bool seen = !graph_->plans.empty();
  bool fits = true;
  for (const AttentionShape& shape : shapes_) graph_->pages[shape.kv.group];
  for (auto& [group, pages] : graph_->pages) fits &= SendGraphPages(group, &pages, context);
  graph_->plans.resize(shapes_.size());
  for (size_t i = 0; i < shapes_.size() && context.errors->ok(); ++i) {
    PlanGraph(shapes_[i], &graph_->plans[i], graph_->pages[shapes_[i].kv.group], context);
  }
  return fits || !seen;
}

const ShapePlan* FlashAttention::FindPlan(const AttentionShape& shape) const {
  if (graph_ != nullptr) {
    for (const GraphPlan& plan : graph_->plans) {
      if (plan.plan.shape == shape) return &plan.plan;
    }
    return nullptr;
  }
  for (const ShapePlan& plan : step_plans_) {
    if (plan.shape == shape) return &plan;
  }
  return nullptr;
}

void FlashAttention::Run(Matrix qkv, const AttentionShape& shape, const void* kv_data, Matrix out,
                         const LaunchContext& context) {
  if (!context.errors->ok()) return;
  if (!IsFlash(qkv, shape, kv_data, out)) {
    PlainAttention(step_->device_view(), step_->batch().padded_rows, qkv, shape, kv_data, out,
                   context);
    return;
  }
  const ShapePlan* plan = FindPlan(shape);
  if (plan == nullptr && graph_ == nullptr) {
    PlanStep(shape, context);
    plan = FindPlan(shape);
  }
  if (plan == nullptr) {
    context.errors->Fail("attention of a shape that no step had before is captured in a graph");
    return;
  }
  for (const PlannedCall& planned : plan->calls) {
    if (planned.fa3) {
      Fa3Run(planned.call, planned.plan, qkv, kv_data, out, context);
    } else {
      Fa2Run(planned.call, planned.plan, qkv, kv_data, out, context);
    }
  }
  const int64_t rows = static_cast<int64_t>(step_->batch().token_ids.size());
  if (graph_ == nullptr && rows < out.rows && context.errors->ok()) {
    const Matrix padding = out.Rows(rows, out.rows - rows);
    const int64_t bytes = padding.rows * padding.stride * SizeOf(padding.dtype);
    context.errors->Check(
        cudaMemsetAsync(padding.data, 0, static_cast<size_t>(bytes), context.stream),
        "cudaMemsetAsync");
  }
}

void* FlashAttention::Send(const void* staged, void* device, int64_t bytes,
                           const LaunchContext& context) {
  if (context.errors->ok()) {
    context.errors->Check(cudaMemcpyAsync(device, staged, static_cast<size_t>(bytes),
                                          cudaMemcpyHostToDevice, context.stream),
                          "sending attention's pages");
  }
  return device;
}

// Makes the plan's schedule in staging and sends it to `schedule`.
void FlashAttention::Plan(PlannedCall* planned, void* schedule, const FlashPlanBytes& bytes,
                          const LaunchContext& context) {
  void* const staged = staging_->Take(bytes.schedule, context.errors);
  planned->plan.schedule = schedule;
  if (!context.errors->ok()) return;
  if (planned->fa3) {
    Fa3Plan(planned->call, bytes, staged, &planned->plan, context);
  } else {
    planned->plan.partials = partials_.Get(bytes.partials, context.errors);
    Fa2Plan(planned->call, bytes, staged, &planned->plan, context);
  }
}

// --- Eager steps: everything is made for the step, in memory that the next one reuses. ---

const GroupPages& FlashAttention::StepPages(const KvLayer& kv, const LaunchContext& context) {
  const auto [it, is_new] = step_pages_.try_emplace(kv.group);
  GroupPages& pages = it->second;
  if (!is_new) return pages;
  const KvGroupView& view = step_->host_view().groups[kv.group];
  const auto sequences = static_cast<int64_t>(step_->batch().sequences.size());
  const int64_t bytes = ArraysBytes(sequences, view.page_indptr[sequences]);
  void* const staged = staging_->Take(bytes, context.errors);
  void* const device = step_memory_.Take(bytes, context.errors);
  if (!context.errors->ok()) return pages;
  FillArrays(view, step_->host_view().first_row, sequences, staged);
  pages.host = ArraysIn(staged, sequences);
  pages.device = ArraysIn(Send(staged, device, bytes, context), sequences);
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t full_pages = int64_t{view.page_indptr[i + 1]} - view.page_indptr[i] - 1;
    pages.kv_length.push_back(
        static_cast<int32_t>(full_pages * kv.page_tokens + view.last_page_len[i]));
  }
  pages.host.kv_length = pages.kv_length.data();
  return pages;
}

void FlashAttention::PlanStep(const AttentionShape& shape, const LaunchContext& context) {
  bool known = false;
  for (const AttentionShape& other : shapes_) known |= other == shape;
  if (!known) shapes_.push_back(shape);
  step_plans_.push_back({shape, {}});
  const GroupPages& pages = StepPages(shape.kv, context);
  const auto sequences = step_->batch().sequences;
  for (size_t begin = 0, end = 0; begin < sequences.size() && context.errors->ok(); begin = end) {
    PlannedCall planned;
    FlashCall& call = planned.call;
    const int kind = KindOf(sequences[begin].row_count);
    for (; end < sequences.size() && KindOf(sequences[end].row_count) == kind; ++end) {
      call.rows += sequences[end].row_count;
    }
    const auto first = static_cast<int64_t>(begin);
    call.shape = shape;
    call.sequences = static_cast<int64_t>(end) - first;
    call.first_row = sequences[begin].first_row;
    call.host = From(pages.host, first);
    call.device = From(pages.device, first);
    if (call.rows == 0) continue;
    planned.fa3 = kind == 2 && PrefersFa3(call, context);
    const FlashPlanBytes bytes =
        planned.fa3 ? Fa3PlanBytes(call, context) : Fa2PlanBytes(call, context);
    Plan(&planned, step_memory_.Take(bytes.schedule, context.errors), bytes, context);
    step_plans_.back().calls.push_back(planned);
  }
}

// --- Graphs: the same launches each time, on memory whose content is sent before each replay. ---

// Returns false if the pages had to be moved to larger memory.
bool FlashAttention::SendGraphPages(int group, GraphPages* pages, const LaunchContext& context) {
  const StepView& view = step_->host_view();
  const int64_t sequences = step_->batch().padded_rows;
  if (view.num_sequences != sequences) {
    context.errors->Fail(absl::StrCat("a step of ", view.num_sequences, " sequences and ",
                                      sequences, " rows cannot be captured in a graph"));
    return true;
  }
  const KvGroupView& group_view = view.groups[group];
  const int64_t num_pages = group_view.page_indptr[sequences];
  const bool fits = num_pages <= pages->capacity_pages;
  if (!fits) {
    constexpr int64_t kFirstPages = 4096;
    pages->capacity_pages = std::max(kFirstPages, 2 * num_pages);
    absl::StatusOr<DeviceMemory> memory =
        AllocateDevice(ArraysBytes(sequences, pages->capacity_pages));
    if (!memory.ok()) {
      context.errors->Fail(std::string(memory.status().message()));
      return false;
    }
    pages->memory = *std::move(memory);
  }
  const int64_t bytes = ArraysBytes(sequences, num_pages);
  void* const staged = staging_->Take(bytes, context.errors);
  if (staged == nullptr) return fits;
  FillArrays(group_view, nullptr, sequences, staged);
  pages->host = ArraysIn(staged, sequences);
  pages->device = ArraysIn(Send(staged, pages->memory.get(), bytes, context), sequences);
  return fits;
}

void FlashAttention::PlanGraph(const AttentionShape& shape, GraphPlan* plan,
                               const GraphPages& pages, const LaunchContext& context) {
  const bool is_new = plan->plan.calls.empty();
  if (is_new) plan->plan = {shape, std::vector<PlannedCall>(1)};
  PlannedCall& planned = plan->plan.calls[0];
  FlashCall& call = planned.call;
  call.shape = shape;
  call.sequences = call.rows = step_->batch().padded_rows;
  call.graph = true;
  call.host = pages.host;
  call.device = pages.device;
  const FlashPlanBytes bytes = Fa2PlanBytes(call, context);
  if (is_new && context.errors->ok()) {
    absl::StatusOr<DeviceMemory> schedule = AllocateDevice(bytes.schedule);
    if (!schedule.ok()) {
      context.errors->Fail(std::string(schedule.status().message()));
      return;
    }
    plan->schedule = *std::move(schedule);
  }
  const FlashPlan before = planned.plan;
  Plan(&planned, plan->schedule.get(), bytes, context);
  // The captured launches have the first plan's grid and addresses.
  if (!is_new) {
    if (before.layout != planned.plan.layout) {
      context.errors->Fail("attention's plan differs from the one that its graph was captured by");
    }
    planned.plan.partials = before.partials;
  }
}

}  // namespace

bool operator==(const AttentionShape& a, const AttentionShape& b) {
  return a.heads.query_heads == b.heads.query_heads && a.heads.kv_heads == b.heads.kv_heads &&
         a.heads.head_dim == b.heads.head_dim && a.kv.dtype == b.kv.dtype &&
         a.kv.page_stride_bytes == b.kv.page_stride_bytes && a.kv.page_tokens == b.kv.page_tokens &&
         a.kv.heads == b.kv.heads && a.kv.head_dim == b.kv.head_dim && a.kv.group == b.kv.group &&
         a.window == b.window && a.scale == b.scale;
}

absl::StatusOr<std::unique_ptr<PagedAttention>> CreatePagedAttention() {
  MNEME_ASSIGN_OR_RETURN(std::unique_ptr<AlternatingStaging> staging, AlternatingStaging::Create());
  return std::make_unique<FlashAttention>(std::move(staging));
}

}  // namespace mneme::cuda
