#include "bench/workload.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace mneme {

absl::StatusOr<Workload> ParseWorkload(absl::string_view text) {
  const absl::Status error = absl::InvalidArgumentError(
      absl::StrCat("\"", text,
                   "\" is no workload; write decode:STREAMSxCONTEXT, such as "
                   "decode:8x2048, or prefill:TOKENS, such as prefill:4096"));
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() != 2) return error;
  Workload workload;
  if (parts[0] == "prefill") {
    workload.kind = Workload::Kind::kPrefill;
    if (!absl::SimpleAtoi(parts[1], &workload.tokens) || workload.tokens < 1) return error;
    return workload;
  }
  const std::vector<std::string> numbers = absl::StrSplit(parts[1], 'x');
  if (parts[0] != "decode" || numbers.size() != 2 ||
      !absl::SimpleAtoi(numbers[0], &workload.streams) || workload.streams < 1 ||
      !absl::SimpleAtoi(numbers[1], &workload.tokens) || workload.tokens < 1) {
    return error;
  }
  return workload;
}

std::string NameOf(const Workload& workload) {
  if (workload.kind == Workload::Kind::kPrefill) return absl::StrCat("prefill:", workload.tokens);
  return absl::StrCat("decode:", workload.streams, "x", workload.tokens);
}

int64_t SessionTokens(const Workload& workload, int64_t decode_tokens) {
  const bool decodes = workload.kind == Workload::Kind::kDecode;
  return workload.tokens + (decodes ? kDecodeWarmUp + decode_tokens : 1);
}

}  // namespace mneme
