// Copies between the host and the device: what a parked session costs to bring back.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bench/bench_case.h"

namespace mneme {
namespace {

constexpr int64_t kLayers = 6;  // that learn, of the published models

std::vector<float> FirstBytes(const void* data) {
  const auto* const bytes = static_cast<const uint8_t*>(data);
  return {bytes, bytes + 64};
}

BenchCase CopyCase(const BenchShape& shape, bool to_host) {
  const int64_t values = kLayers * shape.hidden * shape.intermediate;  // ΔW in bf16
  const int64_t bytes = values * SizeOf(DType::kBF16);
  BenchCase c{.kernel = to_host ? "CopyToHost" : "CopyFromHost",
              .shape = absl::StrCat(bytes / 1000000, " MB")};
  c.bytes = static_cast<double>(bytes);
  c.set_bytes = c.bytes;
  c.prepare = [=](BenchDevice& on, int sets, bool) {
    std::vector<std::pair<void*, void*>> pairs;  // device, host
    for (int i = 0; i < sets; ++i) {
      pairs.emplace_back(on.Allocate(bytes), on.AllocateHost(bytes));
      auto* const host = static_cast<uint8_t*>(pairs.back().second);
      for (int64_t j = 0; j < bytes; ++j) host[j] = static_cast<uint8_t>(j);
      on.stream().CopyFromHost(pairs.back().first, host, bytes);
    }
    on.Synchronize();
    BenchDevice* device = &on;
    return PreparedCase{.step = std::make_shared<BenchStep>(1, 1, 0),
                        .run =
                            [=](int set) {
                              const auto [data, host] = pairs[static_cast<size_t>(set)];
                              if (to_host) {
                                device->stream().CopyToHost(host, data, bytes);
                              } else {
                                device->stream().CopyFromHost(data, host, bytes);
                              }
                            },
                        .result =
                            [=] {
                              std::vector<uint8_t> read(64);
                              device->stream().CopyToHost(read.data(), pairs[0].first, 64);
                              device->Synchronize();
                              return FirstBytes(to_host ? pairs[0].second : read.data());
                            }};
  };
  return c;
}

}  // namespace

std::vector<BenchCase> CopyCases(const BenchShape& shape) {
  return {CopyCase(shape, /*to_host=*/false), CopyCase(shape, /*to_host=*/true)};
}

}  // namespace mneme
