// The bound on the primitives that products keep.

#include "kernels/cpu/matmul.h"

#include <vector>

#include "gtest/gtest.h"

namespace mneme {
namespace {

TEST(MatmulTest, StaysCorrectWhenMoreShapesPassThanItKeeps) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const std::vector<float> weight = {1, 2, 3, 4, 5, 6};  // [3, 2]
  const HostTensor part{weight.data(), DType::kF32, 3, 2};
  const CpuPackedMatrix packed(engine, DType::kF32, {&part, 1});
  Matmul matmul(engine, 1, 3);
  std::vector<float> x(20, 1.0f);
  for (const int64_t rows : {1, 2, 3, 4, 5, 1, 5, 4, 2, 10, 1}) {
    std::vector<float> y(static_cast<size_t>(3 * rows), -1.0f);
    matmul.Linear({x.data(), DType::kF32, rows, 2, 2}, packed, nullptr, false,
                  {y.data(), DType::kF32, rows, 3, 3});
    for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], static_cast<float>(3 + 4 * (i % 3)));
  }
}

}  // namespace
}  // namespace mneme
