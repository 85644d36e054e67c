#ifndef MNEME_CLIENT_ARCHIVE_IMPORT_H_
#define MNEME_CLIENT_ARCHIVE_IMPORT_H_

#include <string>

#include "absl/status/status.h"
#include "client/connection.h"
#include "client/console.h"

namespace mneme {

// Makes session `session_id` (empty: the server draws one) of the archive in `file`, and prints its
// id. Where the server becomes unavailable meanwhile it goes on where the stream broke off, as does
// a second call with the same file and session.
absl::Status ImportArchive(const std::string& file, const std::string& session_id, Console& console,
                           const Connection& connection);

}  // namespace mneme

#endif  // MNEME_CLIENT_ARCHIVE_IMPORT_H_
