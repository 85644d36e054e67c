#include "tests/kernels/backend_fixture.h"

#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <map>

#include "kernels/backend_library.h"
#include "kernels/cpu/cpu_backend.h"

namespace mneme {
namespace {

double Round(double value, DType dtype) {
  const float rounded = static_cast<float>(value);
  return dtype == DType::kBF16 ? double{BFloat16ToFloat(FloatToBFloat16(rounded))}
                               : double{rounded};
}

void Put(double value, DType dtype, char* to) {
  const float rounded = static_cast<float>(value);
  if (dtype == DType::kF32) {
    std::memcpy(to, &rounded, sizeof rounded);
  } else {
    const uint16_t bits = FloatToBFloat16(rounded);
    std::memcpy(to, &bits, sizeof bits);
  }
}

// From the first element of a view to the end of its last.
int64_t SpanBytes(const Matrix& m) {
  return m.rows == 0 ? 0 : ((m.rows - 1) * m.stride + m.cols) * SizeOf(m.dtype);
}

absl::StatusOr<std::unique_ptr<Backend>> Create(const BackendCase& c) {
  if (c.kind == BackendKind::kCpu) {
    return CreateCpuBackend({.matmul_dtype = c.dtype, .threads = c.threads});
  }
  return LoadCudaBackend(
      {.dtype = c.dtype, .delta_accumulate = c.delta_accumulate, .delta_read = c.delta_read});
}

// The backends that tests have used, until all tests are done.
class Backends : public testing::Environment {
 public:
  struct Entry {
    absl::StatusOr<std::unique_ptr<Backend>> backend;
    std::unique_ptr<Stream> stream;
  };

  void TearDown() override { entries_.clear(); }
  Entry& Find(const BackendCase& c) {
    const auto found = entries_.find(c.name);
    return found != entries_.end()
               ? found->second
               : entries_.emplace(c.name, Entry{Create(c), nullptr}).first->second;
  }

 private:
  std::map<std::string, Entry> entries_;
};

Backends& AllBackends() {
  static Backends* const backends = [] {
    auto* made = new Backends;
    testing::AddGlobalTestEnvironment(made);  // which owns it
    return made;
  }();
  return *backends;
}
// Environments are to be added before the tests run.
[[maybe_unused]] const Backends& kRegistered = AllBackends();

bool CannotRunHere(const absl::Status& status) {
  return status.code() == absl::StatusCode::kFailedPrecondition ||
         status.code() == absl::StatusCode::kNotFound;
}

}  // namespace

std::vector<BackendCase> BackendCases() {
  using enum BackendKind;
  using enum DeltaType;
  return {
      {.name = "CpuFloat32", .threads = 2},
      {.name = "CpuFloat32OneThread", .threads = 1},
      {.name = "CpuFloat32ManyThreads", .threads = 5},
      {.name = "CpuFloat32Avx2", .threads = 2, .vector_target = HWY_AVX2},
      {.name = "CpuFloat32Sse4", .threads = 2, .vector_target = HWY_SSE4},
      {.name = "CpuBFloat16", .dtype = DType::kBF16, .threads = 2},
      {.name = "CudaFloat32", .kind = kCuda},
      {.name = "CudaBFloat16", .kind = kCuda, .dtype = DType::kBF16, .delta_read = kBFloat16},
      {.name = "CudaBFloat16Delta",
       .kind = kCuda,
       .dtype = DType::kBF16,
       .delta_accumulate = kBFloat16,
       .delta_read = kBFloat16},
      {.name = "CudaFp8Delta",
       .kind = kCuda,
       .dtype = DType::kBF16,
       .delta_accumulate = kBFloat16,
       .delta_read = kFp8E4M3},
  };
}

std::string NameOfCase(const testing::TestParamInfo<BackendCase>& info) { return info.param.name; }

void BackendTest::SetUp() {
  const int64_t target = GetParam().vector_target;
  if (target != 0 && (hwy::SupportedTargets() & target) == 0) {
    GTEST_SKIP() << "this processor has no " << hwy::TargetName(target);
  }
  hwy::GetChosenTarget().Update(target != 0 ? target : hwy::SupportedTargets());
  Backends::Entry& entry = AllBackends().Find(GetParam());
  if (CannotRunHere(entry.backend.status())) GTEST_SKIP() << entry.backend.status().ToString();
  ASSERT_TRUE(entry.backend.ok()) << entry.backend.status();
  backend_ = entry.backend->get();
  if (entry.stream == nullptr || !entry.stream->Synchronize().ok()) {
    auto stream = backend_->CreateStream();
    ASSERT_TRUE(stream.ok()) << stream.status();
    entry.stream = *std::move(stream);
  }
  stream_ = entry.stream.get();
}

void BackendTest::TearDown() { hwy::GetChosenTarget().Update(hwy::SupportedTargets()); }

Tensor BackendTest::Random(int64_t rows, int64_t cols, DType dtype, double size) {
  std::normal_distribution<double> normal(0, size);
  Tensor out(rows, cols);
  for (double& value : out.values) value = Round(normal(random_), dtype);
  return out;
}

int64_t BackendTest::RandomInt(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random_);
}

DeviceMatrix BackendTest::Upload(const Tensor& values, DType dtype, int64_t stride) {
  DeviceMatrix out = Poisoned(values.rows, values.cols, dtype, stride);
  std::vector<char> bytes(static_cast<size_t>(SpanBytes(out.view)), '\xff');
  for (int64_t i = 0; i < values.rows; ++i) {
    for (int64_t j = 0; j < values.cols; ++j) {
      Put(values.at(i, j), dtype, bytes.data() + (i * out.view.stride + j) * SizeOf(dtype));
    }
  }
  stream_->CopyFromHost(out.view.data, bytes.data(), static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(stream_->Synchronize().ok());
  return out;
}

DeviceBuffer BackendTest::PoisonedBytes(int64_t bytes) {
  auto buffer = backend_->Allocate(bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  const std::vector<uint8_t> ones(static_cast<size_t>(bytes), 0xff);
  stream_->CopyFromHost(buffer->data(), ones.data(), bytes);
  EXPECT_TRUE(stream_->Synchronize().ok());
  return *std::move(buffer);
}

DeviceMatrix BackendTest::Poisoned(int64_t rows, int64_t cols, DType dtype, int64_t stride) {
  if (stride == 0) stride = cols;
  DeviceBuffer buffer = PoisonedBytes(rows * stride * SizeOf(dtype));
  const Matrix view{buffer.data(), dtype, rows, cols, stride};
  return {std::move(buffer), view};
}

std::unique_ptr<PackedMatrix> BackendTest::Pack(const Tensor& weight) {
  const std::vector<float> values(weight.values.begin(), weight.values.end());
  const HostTensor part{values.data(), DType::kF32, weight.rows, weight.cols};
  auto packed = backend_->Pack({&part, 1});
  EXPECT_TRUE(packed.ok()) << packed.status();
  return *std::move(packed);
}

Tensor BackendTest::Read(Matrix matrix) {
  Tensor out(matrix.rows, matrix.cols);
  std::vector<char> bytes(static_cast<size_t>(SpanBytes(matrix)));
  stream_->CopyToHost(bytes.data(), matrix.data, static_cast<int64_t>(bytes.size()));
  EXPECT_TRUE(stream_->Synchronize().ok());
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (int64_t i = 0; i < matrix.rows; ++i) {
    ConvertToFloat(bytes.data() + i * matrix.stride * SizeOf(matrix.dtype), matrix.dtype,
                   matrix.cols, row.data());
    for (int64_t j = 0; j < matrix.cols; ++j) out.at(i, j) = double{row[static_cast<size_t>(j)]};
  }
  return out;
}

TestDelta BackendTest::MakeDelta(int64_t d, int64_t f) {
  constexpr int64_t kChunk = 4;
  Tensor conv(d, 5);
  for (int64_t i = 0; i < d; ++i) conv.at(i, 2) = 1;
  const DeviceMatrix convs = Upload(conv, DType::kF32);
  const DeviceMatrix targets = UploadActivations(RandomActivations(kChunk, d));
  const DeviceMatrix zs = UploadActivations(RandomActivations(kChunk, f));
  TestDelta delta{PoisonedBytes(backend_->DeltaBytes(d, f)), {}};
  const FastWeightLayer layer{convs.view, nullptr, 0.5f, 1.0};
  const ChunkUpdate update{
      .target = targets.view, .z = zs.view, .delta = delta.buffer.data(), .delta_is_zero = true};
  ChunkUpdateResult result;
  stream_->UpdateFastWeights(layer, {&update, 1}, &result);
  delta.values = ReadDelta(delta.buffer, d, f);
  EXPECT_GT(result.delta_norm, 0.5 * std::sqrt(static_cast<double>(d * f)));
  return delta;
}

Tensor BackendTest::ReadDelta(const DeviceBuffer& delta, int64_t d, int64_t f) {
  const DeviceMatrix values = Poisoned(d, f, DType::kF32);
  stream_->ReadDelta(delta.data(), values.view);
  return Read(values.view);
}

double BackendTest::InputRoundoff() const {
  return GetParam().dtype == backend_->activation_dtype() ? 0 : Roundoff(GetParam().dtype);
}

double BackendTest::DeltaRoundoff() const {
  return GetParam().delta_accumulate == DeltaType::kFloat32 ? Roundoff(DType::kF32)
                                                            : 2 * Roundoff(DType::kBF16);
}

double BackendTest::DeltaReadRoundoff() const {
  if (GetParam().delta_read == GetParam().delta_accumulate) return 0;
  return GetParam().delta_read == DeltaType::kFp8E4M3 ? 0x1p-4 : Roundoff(DType::kBF16);
}

double BackendTest::ProductTolerance(int64_t terms, double magnitude, DType out,
                                     int roundings) const {
  const double sums = static_cast<double>(terms + 2) * Roundoff(DType::kF32);
  return (InputRoundoff() + sums + roundings * Roundoff(out)) * magnitude;
}

void BackendTest::ExpectNear(const Tensor& actual, const Tensor& expected, double tolerance) {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (int64_t i = 0; i < actual.rows; ++i) {
    for (int64_t j = 0; j < actual.cols; ++j) {
      ASSERT_NEAR(actual.at(i, j), expected.at(i, j), tolerance) << "at [" << i << ", " << j << "]";
    }
  }
}

void BackendTest::ExpectActivations(const Tensor& actual, const Tensor& expected,
                                    double tolerance) const {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (int64_t i = 0; i < actual.rows; ++i) {
    for (int64_t j = 0; j < actual.cols; ++j) {
      const double size = std::abs(expected.at(i, j));
      ASSERT_NEAR(actual.at(i, j), expected.at(i, j),
                  tolerance * (1 + size) + ActivationRoundoff() * size)
          << "at [" << i << ", " << j << "]";
    }
  }
}

void BackendTest::ExpectProduct(const Tensor& actual, const Tensor& expected,
                                const Tensor& magnitude, int64_t terms, DType out,
                                int roundings) const {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (int64_t i = 0; i < actual.rows; ++i) {
    for (int64_t j = 0; j < actual.cols; ++j) {
      ASSERT_NEAR(actual.at(i, j), expected.at(i, j),
                  ProductTolerance(terms, magnitude.at(i, j), out, roundings))
          << "at [" << i << ", " << j << "]";
    }
  }
}

}  // namespace mneme
