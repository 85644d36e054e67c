#include "bench/ceilings.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/status_macros.h"
#include "bench/stopwatch.h"
#include "engine/loading/random_weights.h"

namespace mneme {
namespace {

constexpr int kRepeats = 5;  // the best counts: a ceiling is what can be reached

// The least of the times that `work` takes on `stream`, in seconds. The first run warms up.
template <typename Work>
absl::StatusOr<double> BestSeconds(Stream& stream, const Work& work) {
  double best = 1e30;
  for (int i = 0; i <= kRepeats; ++i) {
    const Stopwatch stopwatch;
    work();
    MNEME_RETURN_IF_ERROR(stream.Synchronize());
    if (i > 0) best = std::min(best, stopwatch.Elapsed().wall_ms / 1e3);
  }
  return best;
}

absl::StatusOr<double> CopyRate(Backend& backend, Stream& stream, int64_t bytes) {
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer from, backend.Allocate(bytes));
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer to, backend.Allocate(bytes));
  stream.CopyOnDevice(from.data(), to.data(), bytes);  // touches both
  MNEME_ASSIGN_OR_RETURN(const double seconds, BestSeconds(stream, [&] {
                           stream.CopyOnDevice(to.data(), from.data(), bytes);
                         }));
  return 2 * static_cast<double>(bytes) / seconds;
}

// Random values in the activation dtype, the host's copy made of one random row repeated.
absl::StatusOr<DeviceBuffer> RandomActivations(Backend& backend, Stream& stream, int64_t n) {
  const RandomTensors random(/*seed=*/1);
  MNEME_ASSIGN_OR_RETURN(const HostTensor values, random.Find("activations", n, n));
  const DType dtype = backend.activation_dtype();
  std::vector<char> host(static_cast<size_t>(n * n * SizeOf(dtype)));
  if (dtype == DType::kF32) {
    ConvertToFloat(values.data, values.dtype, n * n, reinterpret_cast<float*>(host.data()));
  } else {
    std::memcpy(host.data(), values.data, host.size());
  }
  MNEME_ASSIGN_OR_RETURN(DeviceBuffer device, backend.Allocate(n * n * SizeOf(dtype)));
  stream.CopyFromHost(device.data(), host.data(), device.size_bytes());
  MNEME_RETURN_IF_ERROR(stream.Synchronize());
  return device;
}

absl::StatusOr<double> ProductRate(Backend& backend, Stream& stream, int64_t n) {
  const RandomTensors random(/*seed=*/2);
  MNEME_ASSIGN_OR_RETURN(const HostTensor values, random.Find("weight", n, n));
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<PackedMatrix> weight, backend.Pack({&values, 1}));
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer x, RandomActivations(backend, stream, n));
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer y, backend.Allocate(x.size_bytes()));
  const DType dtype = backend.activation_dtype();
  const Matrix in = {x.data(), dtype, n, n, n}, out = {y.data(), dtype, n, n, n};
  MNEME_ASSIGN_OR_RETURN(const double seconds, BestSeconds(stream, [&] {
                           stream.Linear(in, *weight, /*bias=*/nullptr, /*accumulate=*/false, out);
                         }));
  return 2 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds;
}

}  // namespace

absl::StatusOr<Ceilings> MeasureCeilings(Backend& backend, int64_t scale) {
  constexpr int64_t kCopyBytes = int64_t{256} << 20, kProductSize = 1024;
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream, backend.CreateStream());
  Ceilings ceilings;
  MNEME_ASSIGN_OR_RETURN(ceilings.bytes_per_second, CopyRate(backend, *stream, scale * kCopyBytes));
  MNEME_ASSIGN_OR_RETURN(ceilings.flops_per_second,
                         ProductRate(backend, *stream, scale * kProductSize));
  return ceilings;
}

}  // namespace mneme
