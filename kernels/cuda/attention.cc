#include "kernels/cuda/attention.h"

#include <map>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cuda/attention_buffers.h"
#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/attention_flashinfer.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {
namespace {

// Sequences with so many rows are FA3's, if there are enough of them.
constexpr int64_t kLongRows = 256;

// The pages of one KV group in an eager step.
struct StepPages {
  FlashArrays host, device;
  std::vector<int32_t> kv_length;  // host.kv_length
};

FlashArrays From(FlashArrays arrays, int64_t sequence) {
  arrays.q_indptr += sequence;
  arrays.page_indptr += sequence;
  arrays.last_page_len += sequence;
  arrays.kv_length += sequence;
  return arrays;
}

bool IsAligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Whether other kernels than the plain one take such layers.
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

// Sequences of one kind are worked on together.
enum class Kind : uint8_t { kDecode, kShort, kLong };
Kind KindOf(const SequenceRows& sequence) {
  if (sequence.row_count == 1) return Kind::kDecode;
  return sequence.row_count < kLongRows ? Kind::kShort : Kind::kLong;
}

AttentionKernel KernelFor(Kind kind, const FlashCall& call, const LaunchContext& context) {
  if (kind == Kind::kDecode && IsDecodeShape(call.shape)) return AttentionKernel::kDecode;
  return kind == Kind::kLong && PrefersFa3(call, context) ? AttentionKernel::kFa3
                                                          : AttentionKernel::kFa2;
}

class FlashAttention final : public PagedAttention {
 public:
  FlashAttention(std::unique_ptr<AlternatingStaging> staging, DeviceMemory decode_workspace)
      : planner_(std::move(staging)), decode_workspace_(std::move(decode_workspace)) {}

  void BeginStep(const Step& step, const LaunchContext& context) override;
  void Run(Matrix qkv, const AttentionShape& shape, void* kv_data, Matrix out,
           const LaunchContext& context) override;
  bool RotateAndRun(Matrix qkv, const QkNorm& norm, Matrix rope, const AttentionShape& shape,
                    void* kv_data, Matrix out, const LaunchContext& context) override;

 private:
  const ShapePlan& StepPlan(const AttentionShape& shape, const LaunchContext& context);
  void PlanCalls(ShapePlan* plan, const LaunchContext& context);
  const StepPages& PagesOf(const KvLayer& kv, const LaunchContext& context);
  void RunCall(const PlannedCall& planned, const Matrix& qkv, void* kv_data, const Matrix& out,
               const LaunchContext& context);
  void ZeroPadding(const Matrix& out, const LaunchContext& context) const;

  Planner planner_;
  DeviceMemory decode_workspace_;

  const Step* step_ = nullptr;
  // Of the step's plans.
  Arena<DeviceMemory> step_memory_{AllocateDevice};
  std::map<int, StepPages> step_pages_;  // by KV group
  std::vector<ShapePlan> step_plans_;
};

void FlashAttention::BeginStep(const Step& step, const LaunchContext& context) {
  step_ = &step;
  step_pages_.clear();
  step_plans_.clear();
  step_memory_.Reset();
  planner_.NextStep(context);
}

bool FlashAttention::RotateAndRun(Matrix qkv, const QkNorm& norm, Matrix rope,
                                  const AttentionShape& shape, void* kv_data, Matrix out,
                                  const LaunchContext& context) {
  const auto pairs = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 8 == 0; };
  if (!step_->repeatable() || !IsFlash(qkv, shape, kv_data, out) || !IsDecodeShape(shape) ||
      !pairs(rope.data) || rope.stride % 2 != 0 || !pairs(norm.q_weight) || !pairs(norm.k_weight)) {
    return false;
  }
  const DecodeRotation rotation = {norm, rope};
  DecodeAttention(step_->device_view(), 0, step_->batch().padded_rows, 0, qkv, &rotation, shape,
                  kv_data, out, decode_workspace_.get(), context);
  return true;
}

void FlashAttention::Run(Matrix qkv, const AttentionShape& shape, void* kv_data, Matrix out,
                         const LaunchContext& context) {
  if (!context.errors->ok()) return;
  const int64_t padded_rows = step_->batch().padded_rows;
  const bool flash = IsFlash(qkv, shape, kv_data, out);
  if (!flash || (step_->repeatable() && !IsDecodeShape(shape))) {
    PlainAttention(step_->device_view(), padded_rows, qkv, shape, kv_data, out, context);
  } else if (step_->repeatable()) {
    DecodeAttention(step_->device_view(), 0, padded_rows, 0, qkv, /*rotation=*/nullptr, shape,
                    kv_data, out, decode_workspace_.get(), context);
  } else {
    for (const PlannedCall& planned : StepPlan(shape, context).calls) {
      RunCall(planned, qkv, kv_data, out, context);
    }
    ZeroPadding(out, context);
  }
}

void FlashAttention::RunCall(const PlannedCall& planned, const Matrix& qkv, void* kv_data,
                             const Matrix& out, const LaunchContext& context) {
  const FlashCall& call = planned.call;
  switch (planned.kernel) {
    case AttentionKernel::kDecode:
      DecodeAttention(step_->device_view(), planned.first_sequence, call.sequences, call.first_row,
                      qkv, /*rotation=*/nullptr, call.shape, kv_data, out, decode_workspace_.get(),
                      context);
      break;
    case AttentionKernel::kFa2:
      Fa2Run(call, planned.plan, qkv, kv_data, out, context);
      break;
    case AttentionKernel::kFa3:
      Fa3Run(call, planned.plan, qkv, kv_data, out, context);
      break;
  }
}

void FlashAttention::ZeroPadding(const Matrix& out, const LaunchContext& context) const {
  const auto rows = static_cast<int64_t>(step_->batch().token_ids.size());
  if (rows >= out.rows || !context.errors->ok()) return;
  const Matrix padding = out.Rows(rows, out.rows - rows);
  const int64_t bytes = padding.rows * padding.stride * SizeOf(padding.dtype);
  context.errors->Check(
      cudaMemsetAsync(padding.data, 0, static_cast<size_t>(bytes), context.stream),
      "cudaMemsetAsync");
}

const ShapePlan& FlashAttention::StepPlan(const AttentionShape& shape,
                                          const LaunchContext& context) {
  for (const ShapePlan& plan : step_plans_) {
    if (plan.shape == shape) return plan;
  }
  step_plans_.push_back({shape, {}});
  PlanCalls(&step_plans_.back(), context);
  return step_plans_.back();
}

void FlashAttention::PlanCalls(ShapePlan* plan, const LaunchContext& context) {
  const StepPages& pages = PagesOf(plan->shape.kv, context);
  const auto sequences = step_->batch().sequences;
  for (size_t begin = 0, end = 0; begin < sequences.size() && context.errors->ok(); begin = end) {
    PlannedCall planned;
    FlashCall& call = planned.call;
    const Kind kind = KindOf(sequences[begin]);
    for (; end < sequences.size() && KindOf(sequences[end]) == kind; ++end) {
      call.rows += sequences[end].row_count;
    }
    if (call.rows == 0) continue;
    planned.first_sequence = static_cast<int64_t>(begin);
    call.shape = plan->shape;
    call.sequences = static_cast<int64_t>(end - begin);
    call.first_row = sequences[begin].first_row;
    call.host = From(pages.host, planned.first_sequence);
    call.device = From(pages.device, planned.first_sequence);
    planned.kernel = KernelFor(kind, call, context);
    if (planned.kernel != AttentionKernel::kDecode) {
      const FlashPlanBytes bytes = planner_.PlanBytes(planned, context);
      planner_.Plan(bytes, step_memory_.Take(bytes.schedule, context.errors), &planned, context);
    }
    plan->calls.push_back(planned);
  }
}

const StepPages& FlashAttention::PagesOf(const KvLayer& kv, const LaunchContext& context) {
  const auto [it, is_new] = step_pages_.try_emplace(kv.group);
  StepPages& pages = it->second;
  if (!is_new) return pages;
  const KvGroupView& view = step_->host_view().groups[kv.group];
  const auto sequences = static_cast<int64_t>(step_->batch().sequences.size());
  const int64_t bytes = ArraysBytes(sequences, view.page_indptr[sequences]);
  void* const staged = planner_.Stage(bytes, context.errors);
  void* const device = step_memory_.Take(bytes, context.errors);
  if (!context.errors->ok()) return pages;
  FillArrays(view, step_->host_view().first_row, sequences, staged);
  planner_.Send(staged, device, bytes, context);
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t full_pages = int64_t{view.page_indptr[i + 1]} - view.page_indptr[i] - 1;
    pages.kv_length.push_back(
        static_cast<int32_t>(full_pages * kv.page_tokens + view.last_page_len[i]));
  }
  pages.host = ArraysIn(staged, sequences);
  pages.device = ArraysIn(device, sequences);
  pages.host.kv_length = pages.device.kv_length = pages.kv_length.data();
  return pages;
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
  MNEME_ASSIGN_OR_RETURN(DeviceMemory decode_workspace, AllocateZeroed(DecodeWorkspaceBytes()));
  return std::make_unique<FlashAttention>(std::move(staging), std::move(decode_workspace));
}

}  // namespace mneme::cuda
