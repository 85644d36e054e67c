#include "tests/architecture/include_rules.h"

#include <cstddef>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

namespace mneme {
namespace {

using Names = std::set<std::string>;

// Rooms, and the rooms that each may include besides itself. Tests may include everything.
const std::map<std::string, Names>& Rooms() {
  static const auto* const rooms = new std::map<std::string, Names>{
      {"base", {}},
      {"proto", {}},
      {"storage", {"base"}},
      {"kernels", {"base"}},
      {"engine", {"base", "storage", "kernels"}},
      {"server", {"base", "storage", "kernels", "engine", "proto"}},
      {"client", {"base", "proto"}},
      {"loadtest", {"base", "proto"}},
      {"bench", {"base", "storage", "kernels", "engine"}},
      {"tests",
       {"base", "proto", "storage", "kernels", "engine", "server", "client", "loadtest", "bench"}},
  };
  return *rooms;
}

// The units of the engine, one a line: a file sees its own unit and those above. A name without '/'
// is the stem of a file in engine/, one with '/' a folder.
constexpr const char* kEngineUnits = R"(
error clock
loading/
request
channel
stats
tokenizer/
sampling/
session/
tiers/
durability/
scheduling/
model/
engine_options
jobs/
engine loop/
)";

// The units of storage, likewise.
constexpr const char* kStorageUnits = R"(
coding crypto
store_id
files
key_files database session_state
session_coding
records
log_writer
session_store
sections
section_reader section_writer spool
checkpoint
checkpoint_files archive
)";

// The table of a room's units; null if its files may include each other as they like.
const char* UnitsOf(const std::string& room) {
  if (room == "engine") return kEngineUnits;
  return room == "storage" ? kStorageUnits : nullptr;
}

// Folders whose headers only the rooms named may see.
struct Restricted {
  const char* pattern;  // matches the path of an include
  const char* what;
  Names allowed;  // rooms, or folders with '/'
};

const std::vector<Restricted>& RestrictedHeaders() {
  static const auto* const restricted = new std::vector<Restricted>{
      {R"(.*\.pb\.h)", "code generated from proto/", {"server", "client", "loadtest", "tests"}},
      {R"(google/(protobuf|rpc)/.*)", "Protobuf", {"server", "client", "loadtest", "tests"}},
      {R"(grpc(pp)?/.*)", "gRPC", {"server", "client", "loadtest", "tests"}},
      {R"(rocksdb/.*)", "RocksDB", {"storage", "tests/storage/"}},
      {R"(openssl/.*)", "OpenSSL", {"storage"}},
      {R"((cuda|cublas|cutlass|cute|nv_|nvtx|cub/|flashinfer).*)", "CUDA", {"kernels/cuda/"}},
  };
  return *restricted;
}

std::string RoomOf(const std::string& path) { return path.substr(0, path.find('/')); }

bool StartsWith(const std::string& text, const std::string& prefix) {
  return text.compare(0, prefix.size(), prefix) == 0;
}

// The line in `units` of a path under its room; nothing if they lack it.
std::optional<int> UnitOf(const std::string& path, const char* units) {
  const std::string rest = path.substr(path.find('/') + 1);
  const size_t slash = rest.find('/');
  const std::string unit =
      slash == std::string::npos ? rest.substr(0, rest.find('.')) : rest.substr(0, slash + 1);
  std::istringstream lines(units);
  std::string line;
  for (int number = 0; std::getline(lines, line); ++number) {
    std::istringstream names(line);
    for (std::string name; names >> name;) {
      if (name == unit) return number;
    }
  }
  return std::nullopt;
}

// Why `from` may not include `to`, or empty. `to` is as written, of any kind.
std::string Objection(const SourceFiles& files, const std::string& from, const std::string& to) {
  const std::string room = RoomOf(from);
  for (const Restricted& headers : RestrictedHeaders()) {
    if (!std::regex_match(to, std::regex(headers.pattern))) continue;
    for (const std::string& allowed : headers.allowed) {
      if (StartsWith(from, allowed.ends_with('/') ? allowed : allowed + "/")) return "";
    }
    return std::string("only other rooms may see ") + headers.what;
  }
  const std::string folder = from.substr(0, from.rfind('/') + 1);
  if (StartsWith(to, ".") || files.contains(folder + to)) {
    return "write paths from the root of the repository";
  }
  const std::string target = RoomOf(to);
  if (!Rooms().contains(target)) return "";  // a library's or the system's
  if (target != room && !Rooms().at(room).contains(target)) {
    return room + "/ may not see " + target + "/";
  }
  if (room == "engine" && target == "kernels" && to != "kernels/backend.h" &&
      to != "kernels/sampling.h") {
    return "of kernels/ the engine sees backend.h and sampling.h alone";
  }
  if (const char* units = UnitsOf(room); units != nullptr && target == room) {
    const auto own = UnitOf(from, units);
    const auto other = UnitOf(to, units);
    if (!other) return "its unit is missing in the room's table";
    if (own && *other > *own) return "its unit stands below in the room's table";
  }
  return "";
}

}  // namespace

std::vector<std::string> IncludeViolations(const SourceFiles& files) {
  static const std::regex include(R"(^\s*#\s*include\s*["<]([^">]+)[">].*)");
  std::vector<std::string> violations;
  for (const auto& [path, content] : files) {
    if (!Rooms().contains(RoomOf(path))) {
      violations.push_back(path + " is in a room that Rooms() does not have: add it there");
      continue;
    }
    if (const char* units = UnitsOf(RoomOf(path)); units != nullptr && !UnitOf(path, units)) {
      violations.push_back(path + " is of no unit in its room's table: add it there, in its place");
    }
    std::istringstream lines(content);
    std::smatch match;
    for (std::string line; std::getline(lines, line);) {
      if (!std::regex_match(line, match, include)) continue;
      const std::string objection = Objection(files, path, match[1]);
      if (!objection.empty()) {
        violations.push_back(path + " includes " + match[1].str() + ": " + objection);
      }
    }
  }
  return violations;
}

}  // namespace mneme
