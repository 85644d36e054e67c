#ifndef MNEME_CLIENT_STATUS_TEXT_H_
#define MNEME_CLIENT_STATUS_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace mneme {

// The status of a call, with what its typed detail says (reason, field, position, version, retry
// delay, owner) added to the message in brackets. Details that cannot be read are left out.
absl::Status FromRpc(const grpc::Status& status);

// Where the server says that an import goes on, if that is what the status is about.
std::optional<uint64_t> OffsetOf(const grpc::Status& status);

// One line for the user: "ABORTED: the session moved (reason VERSION_MISMATCH, position 12)".
std::string StatusText(const absl::Status& status);

}  // namespace mneme

#endif  // MNEME_CLIENT_STATUS_TEXT_H_
