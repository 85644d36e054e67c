// What a program says that asks for the CUDA backend: on machines and in builds of all kinds.

#include "kernels/backend_library.h"

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr char kLibrary[] = "libmneme_cuda.so";

// The probe, which prints the status of LoadCudaBackend, in a folder of its own.
class BackendLibraryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "mneme_backend_library_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    std::filesystem::create_directories(root_ / "bin");
    std::filesystem::create_directories(root_ / "lib");
    std::filesystem::copy_file(MNEME_LIBRARY_PROBE, root_ / "bin/probe");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void WriteText(const std::string& file) { std::ofstream(root_ / file) << "not a library"; }

  std::string Probe() {
    FILE* const output = popen((root_ / "bin/probe").c_str(), "r");
    std::string text;
    std::array<char, 4096> piece;
    while (const size_t count = fread(piece.data(), 1, piece.size(), output)) {
      text.append(piece.data(), count);
    }
    EXPECT_EQ(pclose(output), 0);
    return text;
  }

  std::filesystem::path root_;
};

TEST_F(BackendLibraryTest, SaysThatThereIsNoLibraryAndWhatToDo) {
  const std::string status = Probe();
  EXPECT_THAT(status, StartsWith("NOT_FOUND: there is no libmneme_cuda.so"));
  EXPECT_THAT(status, HasSubstr((root_ / "bin").string()));
  EXPECT_THAT(status, HasSubstr("use the CPU backend"));
}

TEST_F(BackendLibraryTest, SaysWhyTheLibraryBesideTheProgramDoesNotLoad) {
  WriteText(std::string("bin/") + kLibrary);
  const std::string status = Probe();
  EXPECT_THAT(status, StartsWith("NOT_FOUND: the CUDA backend does not load: "));
  EXPECT_THAT(status, HasSubstr((root_ / "bin" / kLibrary).string()));
}

TEST_F(BackendLibraryTest, LooksIntoLibBesideTheProgramsDirectory) {
  WriteText(std::string("lib/") + kLibrary);
  EXPECT_THAT(Probe(), HasSubstr((root_ / "lib" / kLibrary).string()));
}

TEST_F(BackendLibraryTest, RefusesALibraryOfAnotherVersion) {
  std::filesystem::copy_file(MNEME_OTHER_VERSION_LIBRARY, root_ / "bin" / kLibrary);
  EXPECT_THAT(Probe(),
              StartsWith("FAILED_PRECONDITION: libmneme_cuda.so is of version 0.0.0-other"));
}

#ifdef MNEME_CUDA_LIBRARY
TEST_F(BackendLibraryTest, StartsOrSaysThatThereIsNoDevice) {
  std::filesystem::create_symlink(MNEME_CUDA_LIBRARY, root_ / "bin" / kLibrary);
  const std::string status = Probe();
  if (status.rfind("OK: ", 0) == 0) {
    EXPECT_THAT(status, StartsWith("OK: cuda ("));
  } else {
    EXPECT_THAT(status, StartsWith("FAILED_PRECONDITION: "));
    EXPECT_THAT(status, HasSubstr("CUDA device"));
    EXPECT_THAT(status, HasSubstr("CPU backend"));
  }
}

TEST(CudaBackendOptionsTest, RefusesTypesThatDoNotGoTogether) {
  for (const CudaBackendOptions& options :
       {CudaBackendOptions{.dtype = DType::kF16},
        CudaBackendOptions{.delta_accumulate = DeltaType::kFp8E4M3},
        CudaBackendOptions{.delta_accumulate = DeltaType::kBFloat16,
        .delta_read = DeltaType::kFloat32}}) {
    const auto backend = LoadCudaBackend(options);
    EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument) << backend.status();
  }
}
#endif

}  // namespace
}  // namespace mneme
