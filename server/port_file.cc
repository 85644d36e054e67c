#include "server/port_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace mneme {

absl::Status WritePortFile(const std::filesystem::path& path, int port, int metrics_port) {
  std::filesystem::path aside = path;
  aside += ".tmp";
  std::ofstream file(aside);
  file << port << '\n' << metrics_port << '\n';
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(aside, path, error);
  if (file && !error) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("cannot write port file ", path.string()));
}

}  // namespace mneme
