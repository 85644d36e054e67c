// States between the device and the host's memory, beside what the bus can do.

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/serving_engine.h"
#include "bench/statistics.h"
#include "bench/stopwatch.h"

namespace mneme {
namespace {

// More than the device has room for.
constexpr int64_t kMovingSessions = 6;

// One copy of so many bytes, of memory that is allocated for it: the best of several.
absl::Status MeasureCopies(const ServingOptions& options, int64_t bytes, ServingReport& report) {
  constexpr int kRepeats = 9;
  MNEME_ASSIGN_OR_RETURN(const auto backend, MakeBenchBackend(options.model));
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer device, backend->Allocate(bytes));
  MNEME_ASSIGN_OR_RETURN(const DeviceBuffer host, backend->AllocateHost(bytes));
  MNEME_ASSIGN_OR_RETURN(const auto stream, backend->CreateStream());
  double to_host_ms = std::numeric_limits<double>::infinity(), back_ms = to_host_ms;
  for (int i = 0; i < kRepeats; ++i) {
    const Stopwatch there;
    stream->CopyToHost(host.data(), device.data(), bytes);
    MNEME_RETURN_IF_ERROR(stream->Synchronize());
    to_host_ms = std::min(to_host_ms, there.Elapsed().wall_ms);
    const Stopwatch back;
    stream->CopyFromHost(device.data(), host.data(), bytes);
    MNEME_RETURN_IF_ERROR(stream->Synchronize());
    back_ms = std::min(back_ms, back.Elapsed().wall_ms);
  }
  report.copy_to_host_gb_s = static_cast<double>(bytes) / 1e6 / to_host_ms;
  report.copy_from_host_gb_s = static_cast<double>(bytes) / 1e6 / back_ms;
  return absl::OkStatus();
}

}  // namespace

// The sessions generate in turn; a stream goes on beside them.
absl::Status MeasureMoves(const ServingOptions& options, ServingReport& report) {
  {
    MNEME_ASSIGN_OR_RETURN(
        const auto engine,
        ServingEngine::Create(options, options.together_target, 2 * kMovingSessions));
    MNEME_ASSIGN_OR_RETURN(const auto before,
                           engine->GenerateAlone("alone", options.decode_tokens));
    const auto name = [](int64_t i) { return absl::StrFormat("s%d", i % kMovingSessions); };
    for (int64_t i = 0; i < kMovingSessions; ++i) {
      MNEME_RETURN_IF_ERROR(engine->CreateSession(name(i)));
      MNEME_RETURN_IF_ERROR(engine->Generate(name(i), options.context, 1)->Await());
    }
    const auto stream = engine->Generate("alone", 0, 8 * options.decode_tokens);
    engine->times().TakeMs();
    for (int64_t i = 0; i < options.moves; ++i) {
      MNEME_RETURN_IF_ERROR(engine->Generate(name(i), 0, 1)->Await());
    }
    const std::vector<double> during = engine->times().TakeMs();
    report.before_moves_p50_ms = Quantile(before, 0.5);
    report.during_moves_p50_ms = Quantile(during, 0.5);
    report.parked = engine->times().parked();
    report.unparked = engine->times().unparked();
    MNEME_RETURN_IF_ERROR(stream->Await());
  }
  if (report.unparked.count == 0) return absl::OkStatus();
  return MeasureCopies(options, report.unparked.bytes / report.unparked.count, report);
}

}  // namespace mneme
