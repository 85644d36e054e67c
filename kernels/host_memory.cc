#include "kernels/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

namespace mneme {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number in a file that holds nothing else; nothing if it is absent or says "max".
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

// The number that follows `key` at the start of a line.
std::optional<int64_t> ReadField(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

// What a version of control groups calls its files and fields.
struct CgroupNames {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // in memory.stat: file pages that the kernel drops first
};
constexpr CgroupNames kVersion1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                   "total_inactive_file"};
constexpr CgroupNames kVersion2 = {"/memory.max", "/memory.current", "inactive_file"};

int64_t Headroom(const std::string& directory, const CgroupNames& names) {
  const std::optional<int64_t> limit = ReadNumber(directory + names.limit);
  if (!limit) return kNoLimit;
  const int64_t used = ReadNumber(directory + names.usage).value_or(0) -
                       ReadField(directory + "/memory.stat", names.reclaimable).value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, used));
}

// The least headroom of the group at `path` below `mount` and of those that hold it.
int64_t LeastHeadroom(const std::string& mount, std::string path, const CgroupNames& names) {
  int64_t least = Headroom(mount, names);
  while (path.size() > 1) {
    least = std::min(least, Headroom(mount + path, names));
    path.resize(path.rfind('/'));
  }
  return least;
}

bool HoldsMemory(const std::string& controllers) {
  return ("," + controllers + ",").find(",memory,") != std::string::npos;
}

}  // namespace

int64_t AvailableHostBytes(const std::string& root) {
  int64_t available = ReadField(root + "/proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  std::ifstream groups(root + "/proc/self/cgroup");
  // Lines are hierarchy:controllers:path, and version 2 is hierarchy 0 without controllers.
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    if (controllers.empty()) {
      available = std::min(available, LeastHeadroom(root + "/sys/fs/cgroup", path, kVersion2));
    } else if (HoldsMemory(controllers)) {
      available =
          std::min(available, LeastHeadroom(root + "/sys/fs/cgroup/memory", path, kVersion1));
    }
  }
  return available;
}

}  // namespace mneme
