// Memory, creation and failure.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/backend_fixture.h"

namespace mneme {
namespace {

class MemoryTest : public BackendTest {};
INSTANTIATE_TEST_SUITE_P(Backends, MemoryTest, testing::ValuesIn(BackendCases()), NameOfCase);

TEST_P(MemoryTest, AllocatesAlignedMemoryThatKeepsWhatIsWritten) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1000}, int64_t{1} << 30}) {
    auto buffer = backend_->Allocate(bytes);
    ASSERT_TRUE(buffer.ok()) << buffer.status();
    EXPECT_EQ(buffer->size_bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    if (bytes == 0) continue;
    const char written = 42;
    char read = 0;
    stream_->CopyFromHost(static_cast<char*>(buffer->data()) + bytes - 1, &written, 1);
    stream_->CopyToHost(&read, static_cast<char*>(buffer->data()) + bytes - 1, 1);
    ASSERT_TRUE(stream_->Synchronize().ok());
    EXPECT_EQ(read, written);
  }
}

TEST_P(MemoryTest, RefusesMoreMemoryThanThereIs) {
  for (const int64_t bytes : {int64_t{-1}, int64_t{1} << 50, std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(backend_->Allocate(bytes).status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(backend_->AllocateHost(bytes).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

// Sizes on both sides of what a stream may stage, more in all than it can.
TEST_P(MemoryTest, HostMemoryGoesToTheDeviceAndBack) {
  for (const int64_t bytes : {int64_t{1}, int64_t{4097}, int64_t{1} << 20, int64_t{24} << 20}) {
    auto host = backend_->AllocateHost(bytes);
    ASSERT_TRUE(host.ok()) << host.status();
    EXPECT_EQ(host->size_bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(host->data()) % 64, 0u);
    auto* const values = static_cast<uint8_t*>(host->data());
    for (int64_t i = 0; i < bytes; ++i) values[i] = static_cast<uint8_t>(i % 251);
    const DeviceBuffer device = PoisonedBytes(bytes);
    auto* const on_device = static_cast<char*>(device.data());
    const int64_t piece = std::max<int64_t>(1, bytes / 64);
    for (int64_t i = 0; i < bytes; i += piece) {
      stream_->CopyFromHost(on_device + i, values + i, std::min(piece, bytes - i));
    }
    ASSERT_TRUE(stream_->Synchronize().ok());
    std::memset(values, 0, static_cast<size_t>(bytes));
    for (int64_t i = 0; i < bytes; i += piece) {
      stream_->CopyToHost(values + i, on_device + i, std::min(piece, bytes - i));
    }
    ASSERT_TRUE(stream_->Synchronize().ok());
    int64_t wrong = 0;
    for (int64_t i = 0; i < bytes; ++i) wrong += values[i] != static_cast<uint8_t>(i % 251);
    EXPECT_EQ(wrong, 0) << "of " << bytes;
  }
}

TEST_P(MemoryTest, RefusesToPackPartsThatDoNotFitTogether) {
  const std::vector<float> values(12);
  const auto code = [&](std::vector<HostTensor> parts) {
    return backend_->Pack(parts).status().code();
  };
  const HostTensor good{values.data(), DType::kF32, 3, 4};
  EXPECT_EQ(code({good}), absl::StatusCode::kOk);
  EXPECT_EQ(code({}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({good, {values.data(), DType::kF32, 4, 3}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{values.data(), DType::kF32, 0, 4}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{values.data(), DType::kF32, 3, -4}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{nullptr, DType::kF32, 3, 4}}), absl::StatusCode::kInvalidArgument);
}

TEST_P(MemoryTest, SaysHowMuchMemoryCanBeAllocated) {
  const int64_t free_bytes = backend_->FreeBytes();
  EXPECT_GT(free_bytes, int64_t{64} << 20);
  auto buffer = backend_->Allocate(free_bytes / 2);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  if (!backend_->commits_on_touch()) {
    EXPECT_LE(backend_->FreeBytes(), free_bytes / 2 + (int64_t{64} << 20));
    EXPECT_EQ(backend_->Allocate(2 * free_bytes).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

TEST_P(MemoryTest, DeltasHoldAtLeastAByteAnElement) {
  EXPECT_GE(backend_->DeltaBytes(3, 5), 15);
  EXPECT_GE(backend_->DeltaBytes(2560, 9728), int64_t{2560} * 9728);
}

TEST_P(MemoryTest, RepeatableRowsHoldTheRowsAndRepeatThemselves) {
  for (int64_t rows = 1; rows <= 600; ++rows) {
    const int64_t repeatable = backend_->RepeatableRows(rows);
    if (repeatable == 0) continue;
    EXPECT_GE(repeatable, rows);
    EXPECT_EQ(backend_->RepeatableRows(repeatable), repeatable);
  }
}

TEST_P(MemoryTest, DescribesItself) { EXPECT_NE(backend_->description(), ""); }

TEST(CpuBackendTest, RefusesADTypeThatItCannotMultiplyIn) {
  EXPECT_EQ(CreateCpuBackend({.matmul_dtype = DType::kF16}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCpuBackend({.threads = -1}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CpuBackendTest, UsesAllProcessorsUnlessTold) { EXPECT_TRUE(CreateCpuBackend({}).ok()); }

// Sanitizers abort on allocations of this size instead of throwing.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(CpuBackendTest, LatchesAFailureUntilTheEnd) {
  auto backend = CreateCpuBackend({});
  ASSERT_TRUE(backend.ok());
  auto stream = (*backend)->CreateStream();
  ASSERT_TRUE(stream.ok());
  std::vector<float> values(8, 1.0f);
  const Matrix target{values.data(), DType::kF32, 1, 1, 1};
  const Matrix conv{values.data(), DType::kF32, 1, 5, 5};
  const Matrix endless{values.data(), DType::kF32, 1, int64_t{1} << 52, int64_t{1} << 52};
  const ChunkUpdate update{.target = target, .z = endless, .delta = values.data()};
  ChunkUpdateResult result;
  (*stream)->UpdateFastWeights({.conv = conv, .learning_rate = 1}, {&update, 1}, &result);
  EXPECT_EQ((*stream)->Synchronize().code(), absl::StatusCode::kInternal);
  const float before = values[0], other = 7;
  (*stream)->CopyFromHost(values.data(), &other, sizeof other);
  EXPECT_EQ(values[0], before);  // a failed stream does nothing
  EXPECT_EQ((*stream)->Synchronize().code(), absl::StatusCode::kInternal);
}
#endif

}  // namespace
}  // namespace mneme
