// Applying and updating fast weights.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/bench/bench_case.h"

namespace mneme {
namespace {

// One row of each of `sequences` sequences, each with a ΔW of its own; `keeps`: and kept.
BenchCase DownProjectCase(const BenchShape& shape, int64_t sequences, bool keeps,
                          BenchDevice& device) {
  const int64_t d = shape.hidden, f = shape.intermediate;
  BenchCase c{.kernel = keeps ? "DownProjectAndKeep" : "DownProject",
              .shape = absl::StrCat(sequences, " x ", d, " x ", f)};
  c.flops = 4 * static_cast<double>(sequences * d * f);
  c.bytes = static_cast<double>(d * f) *
            static_cast<double>(device.weight_bytes() + sequences * device.delta_read_bytes());
  c.bytes += static_cast<double>(sequences * (f + 2 * d) * device.activation_bytes());
  c.set_bytes = c.bytes;
  c.repeats = true;
  c.prepare = [=](BenchDevice& on, int sets, bool reference) {
    const int64_t n = reference ? std::min(sequences, kReferenceSequences) : sequences;
    const auto weights = on.Weights(d, f, 21, sets);
    const Matrix z = on.Activations(n, f, 22), y = on.Activations(n, d, 23);
    // The ΔW of the sets are the TTT layers of a model.
    auto step = std::make_shared<BenchStep>(n, 1, 0);
    step->SetDeltas(on.Deltas(d, f, 24, n * sets));
    const int64_t row_bytes = (d + f) * on.activation_bytes();
    if (keeps) step->SetKept(on.Allocate(n * row_bytes), row_bytes);
    const ChunkRows rows = {on.Activations(n, d, 25), 0, z, d * on.activation_bytes()};
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = step,
        .run =
            [=](int set) {
              const PackedMatrix& weight = *weights[static_cast<size_t>(set)];
              if (keeps) {
                device_ptr->stream().DownProjectAndKeep(0, set, rows, weight, y);
              } else {
                device_ptr->stream().DownProject(0, set, z, weight, y);
              }
            },
        .result = [=] { return device_ptr->Read(y.Rows(0, std::min(n, kReferenceSequences))); }};
  };
  return c;
}

BenchCase UpdateCase(const BenchShape& shape, int64_t sessions, BenchDevice& device) {
  const int64_t d = shape.hidden, f = shape.intermediate, chunk = shape.chunk;
  BenchCase c{.kernel = "UpdateFastWeights",
              .shape = absl::StrCat(sessions, " x C ", chunk, " x ", d, " x ", f)};
  c.flops = 2 * static_cast<double>(sessions * chunk * d) * static_cast<double>(f + d);
  // ΔW in both of its forms is written, and one of them read.
  c.bytes = static_cast<double>(sessions) *
            static_cast<double>(2 * device.backend().DeltaBytes(d, f) +
                                chunk * (d + f) * device.activation_bytes());
  c.set_bytes = c.bytes;
  c.prepare = [=](BenchDevice& on, int, bool) {
    const Matrix target = on.Activations(chunk, d, 31), z = on.Activations(chunk, f, 32);
    const Matrix conv = on.Random(d, 5, DType::kF32, 33);
    const PackedMatrix* projection = on.Weights(d, d, 34, 1)[0];
    const Matrix values{on.Allocate(d * f * 4), DType::kF32, d, f, f};
    const std::vector<void*> deltas = on.Deltas(d, f, 35, sessions);
    std::vector<ChunkUpdate> updates;
    for (void* delta : deltas) updates.push_back({.target = target, .z = z, .delta = delta});
    // Shared with what runs later, which is given the results when it synchronises.
    auto results = std::make_shared<std::vector<ChunkUpdateResult>>(updates.size());
    const FastWeightLayer layer{conv, projection, 1e-3F, 1.0};
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = std::make_shared<BenchStep>(sessions, 1, 0),
        .run =
            [=](int) { device_ptr->stream().UpdateFastWeights(layer, updates, results->data()); },
        .result =
            [=] {
              device_ptr->stream().ReadDelta(deltas.back(), values);
              return device_ptr->Read(values);
            }};
  };
  return c;
}

}  // namespace

std::vector<BenchCase> FastWeightCases(const BenchShape& shape, BenchDevice& device) {
  std::vector<BenchCase> cases;
  for (const int64_t sequences : {1, 8, 64}) {
    for (const bool keeps : {false, true}) {
      cases.push_back(DownProjectCase(shape, sequences, keeps, device));
    }
  }
  for (const int64_t sessions : {1, 4}) cases.push_back(UpdateCase(shape, sessions, device));
  return cases;
}

}  // namespace mneme
