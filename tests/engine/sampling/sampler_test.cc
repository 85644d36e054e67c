#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <vector>

namespace mneme {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

TokenCounts Counts(const std::vector<int32_t>& ids) {
  TokenCounts counts;
  for (const int32_t id : ids) counts.Add(id);
  return counts;
}

int32_t Draw(const std::vector<float>& logits, const SamplingParams& params, uint64_t position = 0,
             const TokenCounts& counts = {}, const std::vector<int32_t>& forbidden = {}) {
  return Sampler().Sample(logits, params, counts, position, forbidden, std::nullopt).id;
}

std::vector<int32_t> DrawMany(const std::vector<float>& logits, const SamplingParams& params,
                              int count) {
  Sampler sampler;
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) {
    ids.push_back(
        sampler.Sample(logits, params, {}, static_cast<uint64_t>(i), {}, std::nullopt).id);
  }
  return ids;
}

// The tokens that occur in many draws.
std::set<int32_t> Support(const std::vector<float>& logits, const SamplingParams& params) {
  const std::vector<int32_t> ids = DrawMany(logits, params, 4000);
  return {ids.begin(), ids.end()};
}

SampledToken WithLogProbs(const std::vector<float>& logits, const SamplingParams& params,
                          int top_logprobs, const std::vector<int32_t>& forbidden = {}) {
  return Sampler().Sample(logits, params, {}, 0, forbidden, top_logprobs);
}

// Logits whose softmax these probabilities are.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST(SamplerTest, GreedyTakesTheHighestLogitAndOfEqualOnesTheLowestId) {
  EXPECT_EQ(Draw({-1, 3, 2}, Greedy()), 1);
  EXPECT_EQ(Draw({1, 5, 5, 5}, Greedy()), 1);
  EXPECT_EQ(Draw({-7, -7}, Greedy()), 0);
  EXPECT_EQ(Draw({4}, Greedy()), 0);
}

TEST(SamplerTest, GreedyIgnoresSeedAndPosition) {
  SamplingParams params = Greedy();
  for (uint64_t i = 0; i < 20; ++i) {
    params.seed = i;
    EXPECT_EQ(Draw({1, 1.001F, 1}, params, i * 7), 1);
  }
}

TEST(SamplerTest, GreedyFollowsPenaltiesAndBias) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  EXPECT_EQ(Draw({3, 2}, params, 0, Counts({0})), 1);       // 3 / 2
  EXPECT_EQ(Draw({-1, -1.5F}, params, 0, Counts({0})), 1);  // −1 · 2
  params = Greedy();
  params.presence_penalty = 1;
  EXPECT_EQ(Draw({3, 1.5F}, params, 0, Counts({0, 0, 0})), 0);  // once, however often it stands
  EXPECT_EQ(Draw({3, 2.5F}, params, 0, Counts({0})), 1);
  params = Greedy();
  params.frequency_penalty = 0.5F;
  EXPECT_EQ(Draw({3, 1.7F}, params, 0, Counts({0, 0})), 0);
  EXPECT_EQ(Draw({3, 1.7F}, params, 0, Counts({0, 0, 0})), 1);
  params = Greedy();
  params.logit_bias = {{0, -100.0F}, {2, 0.5F}};
  EXPECT_EQ(Draw({3, 1, 0.75F}, params), 2);
}

TEST(SamplerTest, TheRepetitionPenaltyComesBeforeTheOthers) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  params.presence_penalty = 1;
  // 4 / 2 − 1 = 1, not (4 − 1) / 2.
  EXPECT_EQ(Draw({4, 1.2F}, params, 0, Counts({0})), 1);
  // 1 / 2 − 1 = −0.5, which is not multiplied again.
  EXPECT_EQ(Draw({1, -0.7F}, params, 0, Counts({0})), 0);
}

TEST(SamplerTest, TheSameArgumentsGiveTheSameToken) {
  const std::vector<float> logits(50, 0.0F);
  SamplingParams params;
  params.seed = 42;
  EXPECT_EQ(DrawMany(logits, params, 200), DrawMany(logits, params, 200));
  SamplingParams other = params;
  other.seed = 43;
  EXPECT_NE(DrawMany(logits, params, 200), DrawMany(logits, other, 200));
}

TEST(SamplerTest, ADrawDoesNotDependOnTheDrawsBeforeIt) {
  const std::vector<float> logits(50, 0.0F);
  SamplingParams params;
  params.top_p = 0.9F;
  const std::vector<int32_t> ids = DrawMany(logits, params, 100);
  Sampler sampler;
  for (uint64_t i = 100; i-- > 0;) {
    sampler.Sample(std::vector<float>(1000, 1.0F), Greedy(), Counts({3}), i, {}, 5);
    EXPECT_EQ(sampler.Sample(logits, params, {}, i, {}, std::nullopt).id, ids[i]);
  }
}

TEST(SamplerTest, LogProbsDoNotChangeTheDraw) {
  const std::vector<float> logits(50, 0.0F);
  for (uint64_t i = 0; i < 50; ++i) {
    EXPECT_EQ(Sampler().Sample(logits, {}, {}, i, {}, 7).id, Draw(logits, {}, i));
  }
}

TEST(SamplerTest, TopKKeepsTheKHighest) {
  const std::vector<float> logits = {1, 3, 2, 3, 0};
  SamplingParams params;
  params.temperature = 10;
  params.top_k = 1;
  EXPECT_THAT(Support(logits, params), ElementsAre(1));
  params.top_k = 3;
  EXPECT_THAT(Support(logits, params), ElementsAre(1, 2, 3));
  for (const int32_t off : {0, 5, 6, std::numeric_limits<int32_t>::max()}) {
    params.top_k = off;
    EXPECT_THAT(Support(logits, params), ElementsAre(0, 1, 2, 3, 4));
  }
}

TEST(SamplerTest, TopKOfEqualLogitsKeepsTheLowestIds) {
  SamplingParams params;
  params.top_k = 2;
  EXPECT_THAT(Support(std::vector<float>(300, 1.0F), params), ElementsAre(0, 1));
  params.top_k = 6;
  EXPECT_THAT(Support(std::vector<float>(300, 1.0F), params), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatHoldsTheShare) {
  const std::vector<float> logits = LogitsOf({0.1, 0.5, 0.15, 0.25});
  SamplingParams params;
  const auto support = [&](float top_p) {
    params.top_p = top_p;
    return Support(logits, params);
  };
  EXPECT_THAT(support(1e-30F), ElementsAre(1));
  EXPECT_THAT(support(0.49F), ElementsAre(1));
  EXPECT_THAT(support(0.51F), ElementsAre(1, 3));
  EXPECT_THAT(support(0.74F), ElementsAre(1, 3));
  EXPECT_THAT(support(0.76F), ElementsAre(1, 2, 3));
  EXPECT_THAT(support(0.91F), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(support(1), ElementsAre(0, 1, 2, 3));
}

TEST(SamplerTest, TopPReachedExactlyNeedsNoFurtherToken) {
  SamplingParams params;
  params.top_p = 0.5F;
  EXPECT_THAT(Support({0, 0, 0, 0}, params), ElementsAre(0, 1));
  params.top_p = 0.75F;
  EXPECT_THAT(Support({0, 0, 0, 0}, params), ElementsAre(0, 1, 2));
}

TEST(SamplerTest, MinPKeepsWhatIsNotTooFarBelowTheHighest) {
  const std::vector<float> logits = LogitsOf({0.1, 0.5, 0.15, 0.25});
  SamplingParams params;
  const auto support = [&](float min_p) {
    params.min_p = min_p;
    return Support(logits, params);
  };
  EXPECT_THAT(support(0.19F), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(support(0.21F), ElementsAre(1, 2, 3));
  EXPECT_THAT(support(0.49F), ElementsAre(1, 3));
  EXPECT_THAT(support(0.51F), ElementsAre(1));
  EXPECT_THAT(support(1), ElementsAre(1));
}

TEST(SamplerTest, MinPOfOneKeepsAllThatAreEquallyProbable) {
  SamplingParams params;
  params.min_p = 1;
  EXPECT_THAT(Support({2, 1, 2}, params), ElementsAre(0, 2));
}

TEST(SamplerTest, FiltersActInOrder) {
  const std::vector<float> logits = LogitsOf({0.4, 0.3, 0.2, 0.1});
  SamplingParams params;
  params.top_k = 2;
  params.top_p = 0.55F;  // of what top_k left, 0.4 / 0.7 is enough
  EXPECT_THAT(Support(logits, params), ElementsAre(0));
  params = SamplingParams();
  params.temperature = 4;  // flattens before min_p: 0.25^(1/4) = 0.71
  params.min_p = 0.7F;
  EXPECT_THAT(Support(logits, params), ElementsAre(0, 1, 2, 3));
}

TEST(SamplerTest, ForbiddenTokensAreNeverDrawn) {
  SamplingParams params;
  params.logit_bias = {{1, 50.0F}};
  EXPECT_EQ(Draw({0, 0, 1}, Greedy(), 0, {}, {2, 1}), 0);
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_NE(Draw({0, 0, 1}, params, i, {}, {1}), 1);
  }
  EXPECT_EQ(Draw({1, 2}, Greedy(), 0, {}, {-1, 2, 7}), 1);
}

TEST(SamplerTest, CountsOutsideTheVocabularyAreIgnored) {
  SamplingParams params = Greedy();
  params.frequency_penalty = 1;
  EXPECT_EQ(Draw({1, 2}, params, 0, Counts({-1, 2, 1 << 30})), 1);
}

TEST(SamplerTest, NanAndMinusInfinityAreNeverDrawn) {
  EXPECT_EQ(Draw({kNan, -1000, -kInf}, Greedy()), 1);
  EXPECT_THAT(DrawMany({kNan, -1000, -kInf}, {}, 100), Each(1));
  SamplingParams params;
  params.logit_bias = {{0, kLargest}, {2, kLargest}};
  EXPECT_THAT(DrawMany({kNan, -1000, -kInf}, params, 100), Each(1));
}

TEST(SamplerTest, PlusInfinityWinsWithoutPoisoningTheSum) {
  EXPECT_THAT(DrawMany({0, kInf, kLargest / 2}, {}, 100), Each(1));
  SamplingParams params;
  params.logit_bias = {{1, kLargest}};
  params.top_p = 0.5F;
  params.min_p = 0.1F;
  EXPECT_THAT(DrawMany({0, kInf, 0}, params, 100), Each(1));
}

TEST(SamplerTest, ExtremeParametersKeepTheDrawMeaningful) {
  SamplingParams params;
  params.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_THAT(DrawMany({1, 2, 1}, params, 100), Each(1));
  params = SamplingParams();
  params.repetition_penalty = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(Draw({1, 2, 1}, params, 0, Counts({2})), 2);
  params.repetition_penalty = kLargest;
  EXPECT_EQ(Draw({-2, -2, -2}, params, 0, Counts({0, 1})), 2);
}

TEST(SamplerTest, WithNothingLeftTheLowestAllowedIdIsReturned) {
  EXPECT_EQ(Draw({kNan, kNan, -kInf}, {}), 0);
  EXPECT_EQ(Draw({kNan, kNan, -kInf}, Greedy(), 0, {}, {1, 0}), 2);
  EXPECT_EQ(Draw({1, 2}, {}, 0, {}, {1, 0}), 0);
  const SampledToken token = WithLogProbs({kNan, -kInf}, {}, 2);
  EXPECT_TRUE(std::isnan(token.logprob.value()));
  EXPECT_THAT(token.top, IsEmpty());
}

TEST(SamplerTest, LogProbsComeFromTheRawLogits) {
  SamplingParams params = Greedy();
  params.temperature = 0;
  params.logit_bias = {{2, 100.0F}};
  const std::vector<double> probabilities = {0.1, 0.5, 0.15, 0.25};
  const SampledToken token = WithLogProbs(LogitsOf(probabilities), params, 3, {1});
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob.value(), std::log(0.15), 1e-6);
  ASSERT_THAT(token.top, SizeIs(3));
  const std::vector<int32_t> ids = {1, 3, 2};
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(token.top[i].id, ids[i]);
    EXPECT_NEAR(token.top[i].logprob, std::log(probabilities[static_cast<size_t>(ids[i])]), 1e-6);
  }
}

TEST(SamplerTest, LogProbsAreThereOnlyIfAskedFor) {
  const SampledToken none = Sampler().Sample({{1.0F, 2.0F}}, {}, {}, 0, {}, std::nullopt);
  EXPECT_FALSE(none.logprob.has_value());
  EXPECT_THAT(none.top, IsEmpty());
  for (const int count : {0, -1}) {
    const SampledToken own = WithLogProbs({1, 1}, {}, count);
    EXPECT_NEAR(own.logprob.value(), std::log(0.5), 1e-6);
    EXPECT_THAT(own.top, IsEmpty());
  }
}

TEST(SamplerTest, TheTopListHasNoMoreThanTheFiniteLogitsAndRanksTiesById) {
  const SampledToken token = WithLogProbs({1, kNan, 2, 1, -kInf}, Greedy(), 1 << 30);
  std::vector<int32_t> ids;
  for (const TokenLogProb& entry : token.top) ids.push_back(entry.id);
  EXPECT_THAT(ids, ElementsAre(2, 0, 3));
}

TEST(SamplerTest, LogProbsOfALargeVocabularyArePrecise) {
  std::vector<float> logits(150000, -20.0F);
  logits[140000] = 30;
  const double total = 149999 * std::exp(-50.0) + 1;
  EXPECT_NEAR(WithLogProbs(logits, Greedy(), 0).logprob.value(), -std::log(total), 1e-9);
  std::fill(logits.begin(), logits.end(), 5.0F);
  EXPECT_NEAR(WithLogProbs(logits, Greedy(), 0).logprob.value(), -std::log(150000.0), 1e-6);
}

}  // namespace
}  // namespace mneme
