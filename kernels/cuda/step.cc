#include "kernels/cuda/step.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "base/status_macros.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/step_packer.h"

namespace mneme::cuda {
namespace {

// Enough for steps of thousands of rows and hundreds of thousands of pages.
constexpr int64_t kHomeBytes = int64_t{4} << 20;

}  // namespace

struct Step::Impl {
  // One of the two host sides.
  struct Side {
    PinnedMemory memory;
    int64_t bytes = 0;
    EventHandle sent;  // recorded behind the copy
    StepViews views;
  };

  absl::Status Grow(int64_t bytes, Side* side, cudaStream_t stream);
  void Send(const Side& side, int64_t bytes, const LaunchContext& context);

  DeviceMemory home;  // begins with the StepView; what follows lies here too if it fits
  DeviceMemory large;
  int64_t large_bytes = 0;
  std::array<Side, 2> sides;
  size_t current = 0;
  RowBatch batch;
  bool repeatable = false;
};

Step::Step() : impl_(std::make_unique<Impl>()) {}
Step::~Step() = default;

absl::StatusOr<std::unique_ptr<Step>> Step::Create() {
  auto step = absl::WrapUnique(new Step());
  MNEME_ASSIGN_OR_RETURN(step->impl_->home, AllocateZeroed(kHomeBytes));
  for (Impl::Side& side : step->impl_->sides) {
    MNEME_ASSIGN_OR_RETURN(side.memory, AllocatePinned(kHomeBytes));
    MNEME_ASSIGN_OR_RETURN(side.sent, CreateEventHandle(cudaEventDisableTiming));
    side.bytes = kHomeBytes;
  }
  return step;
}

const StepView* Step::device_view() const {
  return static_cast<const StepView*>(impl_->home.get());
}
const StepView& Step::host_view() const { return impl_->sides[impl_->current].views.step; }
const RowBatch& Step::batch() const { return impl_->batch; }
bool Step::repeatable() const { return impl_->repeatable; }

// Makes room for `bytes` on both sides of the bus, twice what is needed where there is too little.
absl::Status Step::Impl::Grow(int64_t bytes, Side* side, cudaStream_t stream) {
  if (bytes > side->bytes) {
    MNEME_ASSIGN_OR_RETURN(side->memory, AllocatePinned(2 * bytes));
    side->bytes = 2 * bytes;
  }
  if (bytes > std::max(kHomeBytes, large_bytes)) {
    // The step before may still read what is to be freed.
    MNEME_RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream), "cudaStreamSynchronize"));
    MNEME_ASSIGN_OR_RETURN(large, AllocateDevice(2 * bytes));
    large_bytes = 2 * bytes;
  }
  return absl::OkStatus();
}

void Step::Impl::Send(const Side& side, int64_t bytes, const LaunchContext& context) {
  const auto copy = [&](void* to, int64_t count) {
    context.errors->Check(cudaMemcpyAsync(to, side.memory.get(), static_cast<size_t>(count),
                                          cudaMemcpyHostToDevice, context.stream),
                          "sending a step");
  };
  if (bytes <= kHomeBytes) {
    copy(home.get(), bytes);
  } else {
    copy(large.get(), bytes);
    copy(home.get(), sizeof(StepView));
  }
  context.errors->Check(cudaEventRecord(side.sent.get(), context.stream), "cudaEventRecord");
}

void Step::Declare(const RowBatch& batch, int64_t page_tokens, int64_t num_ttt_layers,
                   bool repeatable, const LaunchContext& context) {
  Impl& impl = *impl_;
  impl.batch = batch;
  impl.repeatable = repeatable;
  impl.current = 1 - impl.current;
  Impl::Side& side = impl.sides[impl.current];
  context.errors->Check(cudaEventSynchronize(side.sent.get()), "waiting for a step");

  StepPacker packer(impl.batch, page_tokens, num_ttt_layers, repeatable);
  const int64_t bytes = packer.bytes();
  if (const absl::Status status = impl.Grow(bytes, &side, context.stream); !status.ok()) {
    context.errors->Fail(std::string(status.message()));
  }
  if (!context.errors->ok()) return;
  DeviceMemory& device = bytes <= kHomeBytes ? impl.home : impl.large;
  side.views = packer.Pack(static_cast<char*>(side.memory.get()), static_cast<char*>(device.get()));
  impl.Send(side, bytes, context);
}

}  // namespace mneme::cuda
