#include "engine/error.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"

namespace mneme {
namespace {

constexpr char kPayloadUrl[] = "mneme/error-info";

// An optional number as text; absent: nothing between the commas.
template <typename T>
std::string Field(const std::optional<T>& value) {
  return value.has_value() ? absl::StrCat(*value) : std::string();
}

template <typename T>
std::optional<T> ParseField(const std::string& field) {
  T value;
  if (!absl::SimpleAtoi(field, &value)) return std::nullopt;
  return value;
}

std::string Encode(const ErrorInfo& info) {
  std::optional<int64_t> delay_us;
  if (info.retry_delay.has_value()) delay_us = absl::ToInt64Microseconds(*info.retry_delay);
  return absl::StrCat(static_cast<int>(info.reason), ",", info.retryable ? 1 : 0, ",",
                      Field(info.position), ",", Field(info.version), ",", Field(delay_us), ",",
                      Field(info.offset));
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, const std::string& message, const ErrorInfo& info) {
  MNEME_CHECK(code != absl::StatusCode::kOk);
  absl::Status status(code, message);
  status.SetPayload(kPayloadUrl, absl::Cord(Encode(info)));
  return status;
}

ErrorInfo GetErrorInfo(const absl::Status& status) {
  ErrorInfo info;
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return info;
  const std::vector<std::string> fields = absl::StrSplit(std::string(*payload), ',');
  MNEME_CHECK(fields.size() == 6);
  info.reason = static_cast<ErrorReason>(ParseField<int>(fields[0]).value_or(0));
  info.retryable = fields[1] == "1";
  info.position = ParseField<uint64_t>(fields[2]);
  info.version = ParseField<uint64_t>(fields[3]);
  if (const auto us = ParseField<int64_t>(fields[4])) info.retry_delay = absl::Microseconds(*us);
  info.offset = ParseField<uint64_t>(fields[5]);
  return info;
}

absl::Status WithPosition(const absl::Status& status, uint64_t position, uint64_t version) {
  if (status.ok()) return status;
  ErrorInfo info = GetErrorInfo(status);
  info.position = position;
  info.version = version;
  absl::Status positioned = status;  // keeps what others have attached
  positioned.SetPayload(kPayloadUrl, absl::Cord(Encode(info)));
  return positioned;
}

}  // namespace mneme
