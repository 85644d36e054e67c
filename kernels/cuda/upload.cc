#include "kernels/cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "absl/memory/memory.h"
#include "base/status_macros.h"
#include "kernels/cuda/convert.h"

namespace mneme::cuda {
namespace {

constexpr int64_t kLaneBytes = int64_t{16} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<Uploader>> Uploader::Create(int num_sms) {
  auto uploader = absl::WrapUnique(new Uploader(num_sms));
  MNEME_ASSIGN_OR_RETURN(uploader->stream_, CreateStreamHandle());
  for (Lane& lane : uploader->lanes_) {
    MNEME_ASSIGN_OR_RETURN(lane.pinned, AllocatePinned(kLaneBytes));
    MNEME_ASSIGN_OR_RETURN(lane.raw, AllocateDevice(kLaneBytes));
    MNEME_ASSIGN_OR_RETURN(lane.free, CreateEventHandle(cudaEventDisableTiming));
  }
  return uploader;
}

absl::Status Uploader::Upload(const HostTensor& part, DType dtype, void* to) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ErrorLatch errors;
  const LaunchContext context{stream_.get(), &errors, num_sms_};
  const int64_t count = part.rows * part.cols;
  const int64_t piece = kLaneBytes / SizeOf(part.dtype);
  for (int64_t first = 0, turn = 0; first < count && errors.ok(); first += piece, ++turn) {
    Lane& lane = lanes_[static_cast<size_t>(turn % 2)];
    const int64_t elements = std::min(piece, count - first);
    const auto bytes = static_cast<size_t>(elements * SizeOf(part.dtype));
    errors.Check(cudaEventSynchronize(lane.free.get()), "waiting for an upload");
    std::memcpy(lane.pinned.get(), static_cast<const char*>(part.data) + first * SizeOf(part.dtype),
                bytes);
    void* const target = static_cast<char*>(to) + first * SizeOf(dtype);
    void* const landing = part.dtype == dtype ? target : lane.raw.get();
    errors.Check(
        cudaMemcpyAsync(landing, lane.pinned.get(), bytes, cudaMemcpyHostToDevice, stream_.get()),
        "uploading weights");
    if (landing != target) ConvertElements(landing, part.dtype, target, dtype, elements, context);
    errors.Check(cudaEventRecord(lane.free.get(), stream_.get()), "cudaEventRecord");
  }
  errors.Check(cudaStreamSynchronize(stream_.get()), "uploading weights");
  return errors.status();
}

}  // namespace mneme::cuda
