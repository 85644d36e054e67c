#include "tests/kernels/backend_fixture.h"

#include <hwy/targets.h>

#include <cstring>

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

}  // namespace

std::vector<BackendCase> BackendCases() {
  return {{"CpuFloat32", DType::kF32, 2},
          {"CpuFloat32OneThread", DType::kF32, 1},
          {"CpuFloat32ManyThreads", DType::kF32, 5},
          {"CpuFloat32Avx2", DType::kF32, 2, HWY_AVX2},
          {"CpuFloat32Sse4", DType::kF32, 2, HWY_SSE4},
          {"CpuBFloat16", DType::kBF16, 2}};
}

std::string NameOfCase(const testing::TestParamInfo<BackendCase>& info) { return info.param.name; }

void BackendTest::SetUp() {
  const int64_t target = GetParam().vector_target;
  if (target != 0 && (hwy::SupportedTargets() & target) == 0) {
    GTEST_SKIP() << "this processor has no " << hwy::TargetName(target);
  }
  hwy::GetChosenTarget().Update(target != 0 ? target : hwy::SupportedTargets());
  auto backend =
      CreateCpuBackend({.matmul_dtype = GetParam().matmul_dtype, .threads = GetParam().threads});
  if (backend.status().code() == absl::StatusCode::kFailedPrecondition) {
    GTEST_SKIP() << backend.status().ToString();
  }
  ASSERT_TRUE(backend.ok()) << backend.status();
  backend_ = *std::move(backend);
  auto stream = backend_->CreateStream();
  ASSERT_TRUE(stream.ok()) << stream.status();
  stream_ = *std::move(stream);
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
  std::vector<char> row(static_cast<size_t>(values.cols * SizeOf(dtype)));
  for (int64_t i = 0; i < values.rows; ++i) {
    for (int64_t j = 0; j < values.cols; ++j) {
      Put(values.at(i, j), dtype, row.data() + j * SizeOf(dtype));
    }
    stream_->CopyFromHost(out.view.Rows(i, 1).data, row.data(), static_cast<int64_t>(row.size()));
    EXPECT_TRUE(stream_->Synchronize().ok());
  }
  return out;
}

DeviceMatrix BackendTest::Poisoned(int64_t rows, int64_t cols, DType dtype, int64_t stride) {
  if (stride == 0) stride = cols;
  const int64_t bytes = rows * stride * SizeOf(dtype);
  auto buffer = backend_->Allocate(bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  const std::vector<uint8_t> ones(static_cast<size_t>(bytes), 0xff);  // NaN in every dtype
  stream_->CopyFromHost(buffer->data(), ones.data(), bytes);
  EXPECT_TRUE(stream_->Synchronize().ok());
  const Matrix view{buffer->data(), dtype, rows, cols, stride};
  return {*std::move(buffer), view};
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
  std::vector<char> bytes(static_cast<size_t>(matrix.cols * SizeOf(matrix.dtype)));
  std::vector<float> row(static_cast<size_t>(matrix.cols));
  for (int64_t i = 0; i < matrix.rows; ++i) {
    stream_->CopyToHost(bytes.data(), matrix.Rows(i, 1).data, static_cast<int64_t>(bytes.size()));
    EXPECT_TRUE(stream_->Synchronize().ok());
    ConvertToFloat(bytes.data(), matrix.dtype, matrix.cols, row.data());
    for (int64_t j = 0; j < matrix.cols; ++j) out.at(i, j) = double{row[static_cast<size_t>(j)]};
  }
  return out;
}

double BackendTest::ProductTolerance(int64_t terms, double magnitude, DType out) const {
  const double inputs = GetParam().matmul_dtype == DType::kF32 ? 0 : Roundoff(DType::kBF16);
  const double sums = static_cast<double>(terms + 2) * Roundoff(DType::kF32);
  return (inputs + sums + Roundoff(out)) * magnitude;
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

void BackendTest::ExpectProduct(const Tensor& actual, const Tensor& expected,
                                const Tensor& magnitude, int64_t terms, DType out) const {
  ASSERT_EQ(actual.rows, expected.rows);
  ASSERT_EQ(actual.cols, expected.cols);
  for (int64_t i = 0; i < actual.rows; ++i) {
    for (int64_t j = 0; j < actual.cols; ++j) {
      ASSERT_NEAR(actual.at(i, j), expected.at(i, j),
                  ProductTolerance(terms, magnitude.at(i, j), out))
          << "at [" << i << ", " << j << "]";
    }
  }
}

}  // namespace mneme
