#ifndef MNEME_SERVER_PORT_FILE_H_
#define MNEME_SERVER_PORT_FILE_H_

#include <filesystem>

#include "absl/status/status.h"

namespace mneme {

// Writes the gRPC port and the metrics port, one a line, aside and then under the name `path`, so
// that whoever waits for the file never reads half of it.
absl::Status WritePortFile(const std::filesystem::path& path, int port, int metrics_port);

}  // namespace mneme

#endif  // MNEME_SERVER_PORT_FILE_H_
