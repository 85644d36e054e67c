#ifndef MNEME_BENCH_WORKLOAD_H_
#define MNEME_BENCH_WORKLOAD_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mneme {

// What a row measures.
struct Workload {
  enum class Kind : uint8_t { kDecode, kPrefill };
  Kind kind = Kind::kDecode;
  int64_t streams = 1;  // decode: sessions that generate together, each with its own ΔW
  int64_t tokens = 0;   // decode: their context when measuring begins; prefill: tokens read
};

// Steps of decode that run before those that are measured: products are tuned, graphs recorded.
inline constexpr int64_t kDecodeWarmUp = 4;

// "decode:8x2048" or "prefill:4096". INVALID_ARGUMENT, with the forms, for anything else.
absl::StatusOr<Workload> ParseWorkload(absl::string_view text);
std::string NameOf(const Workload& workload);

// How long its sessions become when `decode_tokens` are generated and measured.
int64_t SessionTokens(const Workload& workload, int64_t decode_tokens);

}  // namespace mneme

#endif  // MNEME_BENCH_WORKLOAD_H_
