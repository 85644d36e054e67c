#include "kernels/host_memory.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

namespace mneme {
namespace {

class HostMemoryTest : public testing::Test {
 protected:
  HostMemoryTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    root_ = testing::TempDir() + "host_memory_" + test->name();
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal: 4000 kB\nMemFree: 10 kB\nMemAvailable: 2000 kB\n");
  }
  ~HostMemoryTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  int64_t Available() const { return AvailableHostBytes(root_); }

  std::string root_;
};

TEST_F(HostMemoryTest, IsWhatTheKernelCallsAvailableWithoutGroups) {
  EXPECT_EQ(Available(), 2000 * 1024);
}

TEST_F(HostMemoryTest, IsZeroWhereNothingIsKnown) {
  std::filesystem::remove_all(root_);
  EXPECT_EQ(Available(), 0);
}

TEST_F(HostMemoryTest, ObeysAGroupOfVersion2AndThoseThatHoldIt) {
  Write("/proc/self/cgroup", "0::/outer/inner\n");
  Write("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  Write("/sys/fs/cgroup/outer/inner/memory.current", "400\n");
  EXPECT_EQ(Available(), 2000 * 1024);
  Write("/sys/fs/cgroup/outer/memory.max", "1000\n");
  Write("/sys/fs/cgroup/outer/memory.current", "900\n");
  EXPECT_EQ(Available(), 100);
  Write("/sys/fs/cgroup/outer/memory.stat", "anon 600\ninactive_file 300\nactive_file 5\n");
  EXPECT_EQ(Available(), 400);
  Write("/sys/fs/cgroup/outer/inner/memory.max", "500\n");
  EXPECT_EQ(Available(), 100);
  Write("/sys/fs/cgroup/outer/inner/memory.current", "600\n");
  EXPECT_EQ(Available(), 0);
}

TEST_F(HostMemoryTest, ObeysTheMemoryGroupOfVersion1) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/b\n0::/\nnonsense\n");
  Write("/sys/fs/cgroup/cpu/a/memory.limit_in_bytes", "1\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n");
  EXPECT_EQ(Available(), 2000 * 1024);
  Write("/sys/fs/cgroup/memory/b/memory.limit_in_bytes", "5000\n");
  Write("/sys/fs/cgroup/memory/b/memory.usage_in_bytes", "4000\n");
  Write("/sys/fs/cgroup/memory/b/memory.stat", "inactive_file 1\ntotal_inactive_file 20\n");
  EXPECT_EQ(Available(), 1020);
}

}  // namespace
}  // namespace mneme
