#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/sampling/sampler.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

struct BadParams {
  std::string name;  // of the field, as the message has it
  SamplingParams params;
};

class ValidationTest : public ::testing::TestWithParam<BadParams> {};

TEST_P(ValidationTest, NamesTheField) {
  const absl::Status status = ValidateSamplingParams(GetParam().params, 10);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().name));
}

template <typename T>
void AddBad(const std::string& name, T SamplingParams::*field, const std::vector<T>& values,
            std::vector<BadParams>* bad) {
  for (const T& value : values) {
    bad->push_back({name, {}});
    bad->back().params.*field = value;
  }
}

std::vector<BadParams> AllBadParams() {
  using P = SamplingParams;
  using Bias = std::vector<std::pair<int32_t, float>>;
  std::vector<BadParams> bad;
  AddBad("temperature is", &P::temperature, {-0.1F, 100.1F, kNan, kInf, -kInf}, &bad);
  AddBad("top_p is", &P::top_p, {0.0F, -0.5F, 1.001F, kNan, kInf, -kInf}, &bad);
  AddBad("min_p is", &P::min_p, {-0.1F, 1.1F, kNan, kInf, -kInf}, &bad);
  AddBad("top_k is", &P::top_k, {-1, std::numeric_limits<int32_t>::min()}, &bad);
  AddBad("repetition_penalty is", &P::repetition_penalty, {0.0F, -1.0F, kNan, kInf}, &bad);
  AddBad("presence_penalty is", &P::presence_penalty, {-2.1F, 2.1F, kNan, kInf, -kInf}, &bad);
  AddBad("frequency_penalty is", &P::frequency_penalty, {-2.1F, 2.1F, kNan, kInf, -kInf}, &bad);
  AddBad("logit_bias names token", &P::logit_bias, {Bias{{-1, 0.0F}}, Bias{{0, 1.0F}, {10, 0.0F}}},
         &bad);
  AddBad("logit_bias of token 3", &P::logit_bias,
         {Bias{{3, kNan}}, Bias{{3, kInf}}, Bias{{3, -kInf}}}, &bad);
  return bad;
}

INSTANTIATE_TEST_SUITE_P(EachBadValue, ValidationTest, ::testing::ValuesIn(AllBadParams()));

TEST(ValidateSamplingParamsTest, AcceptsTheDefaultsAndTheEndsOfEachRange) {
  EXPECT_TRUE(ValidateSamplingParams({}, 10).ok());
  SamplingParams low = {0,
                        std::numeric_limits<float>::denorm_min(),
                        0,
                        0,
                        std::numeric_limits<float>::denorm_min(),
                        -2,
                        -2,
                        0,
                        {{0, -kLargest}}};
  EXPECT_TRUE(ValidateSamplingParams(low, 10).ok());
  SamplingParams high = {100,
                         1,
                         1,
                         std::numeric_limits<int32_t>::max(),
                         kLargest,
                         2,
                         2,
                         ~uint64_t{0},
                         {{9, kLargest}}};
  EXPECT_TRUE(ValidateSamplingParams(high, 10).ok());
}

}  // namespace
}  // namespace mneme
