// Holds the structure of the sources: which file may include which, and how long a file may be.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/architecture/include_rules.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int kMaxLines = 400;

bool IsSource(const fs::path& path) {
  static const std::vector<std::string> extensions = {".h", ".cc", ".cu", ".cuh"};
  return std::find(extensions.begin(), extensions.end(), path.extension()) != extensions.end();
}

// The C++ and CUDA sources of the repository, whose root is the working directory.
SourceFiles ReadSources() {
  SourceFiles files;
  for (const auto& room : fs::directory_iterator(".")) {
    const std::string name = room.path().filename().string();
    if (!room.is_directory() || name == "build" || name.starts_with('.')) continue;
    for (const auto& entry : fs::recursive_directory_iterator(room.path())) {
      if (!entry.is_regular_file() || !IsSource(entry.path())) continue;
      std::ifstream stream(entry.path(), std::ios::binary);
      files[entry.path().lexically_normal().generic_string()] =
          std::string(std::istreambuf_iterator<char>(stream), {});
    }
  }
  return files;
}

// The complaints about `path` if it holds one line that includes `include`.
std::vector<std::string> Complaints(const std::string& path, const std::string& include) {
  return IncludeViolations({{path, "#include " + include + "\n"}});
}

TEST(ArchitectureTest, SourcesKeepTheDirections) {
  const SourceFiles files = ReadSources();
  ASSERT_TRUE(files.contains("kernels/backend.h")) << "not run in the root of the repository";
  EXPECT_THAT(IncludeViolations(files), IsEmpty());
}

TEST(ArchitectureTest, FilesFitInTheHead) {
  for (const auto& [path, content] : ReadSources()) {
    EXPECT_LE(std::count(content.begin(), content.end(), '\n'), kMaxLines) << path;
  }
}

TEST(IncludeRulesTest, AcceptWhatTheDesignAllows) {
  const SourceFiles files = {
      {"kernels/cpu/attention.cc", "#include \"base/dtype.h\"\n#include <vector>\n"},
      {"engine/loading/weights.h",
       "#include \"engine/loading/safetensors.h\"\n#include \"kernels/backend.h\"\n"},
      {"engine/tokenizer/bpe.cc", "#include \"engine/tokenizer/bpe.h\"\n"},
      {"server/convert.cc", "#include \"engine/request.h\"\n#include \"mneme/v1/a.pb.h\"\n"},
      {"client/chat.cc", "#include <grpcpp/grpcpp.h>\n"},
      {"storage/database.cc", "#include <rocksdb/db.h>\n#include \"storage/files.h\"\n"},
      {"kernels/cuda/linear.cu", "#include <cuda_runtime.h>\n"},
      {"tests/engine/model_test.cc", "#include \"kernels/cpu/cpu_backend.h\"\n"},
  };
  EXPECT_THAT(IncludeViolations(files), IsEmpty());
}

TEST(IncludeRulesTest, RefuseARoomThatMayNotBeSeen) {
  EXPECT_THAT(Complaints("base/check.h", "\"kernels/backend.h\""),
              ElementsAre("base/check.h includes kernels/backend.h: base/ may not see kernels/"));
  EXPECT_THAT(Complaints("kernels/cpu/linear.cc", "\"engine/loading/config.h\""),
              ElementsAre(HasSubstr("kernels/ may not see engine/")));
  EXPECT_THAT(Complaints("engine/engine.h", "\"server/convert.h\""),
              ElementsAre(HasSubstr("engine/ may not see server/")));
  EXPECT_THAT(Complaints("client/chat.cc", "\"engine/loading/config.h\""),
              ElementsAre(HasSubstr("client/ may not see engine/")));
  EXPECT_THAT(Complaints("bench/main.cc", "\"server/convert.h\""),
              ElementsAre(HasSubstr("bench/ may not see server/")));
}

TEST(IncludeRulesTest, RefuseGeneratedAndNetworkHeadersInTheEngine) {
  EXPECT_THAT(Complaints("engine/request.h", "\"mneme/v1/session.pb.h\""),
              ElementsAre(HasSubstr("code generated from proto/")));
  EXPECT_THAT(Complaints("engine/engine.cc", "  <grpcpp/server.h>"),
              ElementsAre(HasSubstr("gRPC")));
  EXPECT_THAT(Complaints("bench/main.cc", "<google/protobuf/message.h>"),
              ElementsAre(HasSubstr("Protobuf")));
}

TEST(IncludeRulesTest, RefuseCudaOutsideItsFolder) {
  EXPECT_THAT(Complaints("engine/model/model.cc", "<cuda_runtime.h>"),
              ElementsAre(HasSubstr("CUDA")));
  EXPECT_THAT(Complaints("kernels/cpu/linear.cc", "<cublasLt.h>"), ElementsAre(HasSubstr("CUDA")));
  EXPECT_THAT(Complaints("server/main.cc", "\"cuda.h\""), ElementsAre(HasSubstr("CUDA")));
}

TEST(IncludeRulesTest, RefuseTheDatabaseAndCryptographyOutsideStorage) {
  EXPECT_THAT(Complaints("engine/session/session_table.cc", "<rocksdb/db.h>"),
              ElementsAre(HasSubstr("RocksDB")));
  EXPECT_THAT(Complaints("server/auth.cc", "<openssl/evp.h>"), ElementsAre(HasSubstr("OpenSSL")));
  EXPECT_THAT(Complaints("storage/records.h", "\"engine/request.h\""),
              ElementsAre(HasSubstr("storage/ may not see engine/")));
  EXPECT_THAT(Complaints("storage/crypto.h", "\"storage/files.h\""),
              ElementsAre(HasSubstr("its unit stands below")));
}

TEST(IncludeRulesTest, RefuseWhatStandsBelowInTheEngine) {
  EXPECT_THAT(Complaints("engine/loading/config.cc", "\"engine/request.h\""),
              ElementsAre(HasSubstr("its unit stands below")));
  EXPECT_THAT(Complaints("engine/scheduling/plan.h", "\"engine/model/model.h\""),
              ElementsAre(HasSubstr("its unit stands below")));
  EXPECT_THAT(Complaints("engine/tokenizer/bpe.h", "\"engine/sampling/sampler.h\""),
              ElementsAre(HasSubstr("its unit stands below")));
  EXPECT_THAT(Complaints("engine/model/model.h", "\"kernels/cpu/cpu_backend.h\""),
              ElementsAre(HasSubstr("backend.h and sampling.h alone")));
}

TEST(IncludeRulesTest, RefuseFilesWithoutAPlace) {
  EXPECT_THAT(IncludeViolations({{"engine/helpers.h", ""}}),
              ElementsAre(HasSubstr("is of no unit in its room's table: add it there")));
  EXPECT_THAT(IncludeViolations({{"storage/helpers.h", ""}}), ElementsAre(HasSubstr("no unit")));
  EXPECT_THAT(IncludeViolations({{"attic/old.cc", ""}}),
              ElementsAre(HasSubstr("in a room that Rooms() does not have")));
}

TEST(IncludeRulesTest, RefusePathsThatAreNotFromTheRoot) {
  EXPECT_THAT(Complaints("engine/model/model.cc", "\"../kernels/cpu/cpu_backend.h\""),
              ElementsAre(HasSubstr("from the root")));
  EXPECT_THAT(
      IncludeViolations({{"engine/clock.h", ""}, {"engine/request.h", "#include \"clock.h\"\n"}}),
      ElementsAre(HasSubstr("from the root")));
}

}  // namespace
}  // namespace mneme
