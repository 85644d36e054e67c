// Stream::Sample, rule by rule.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include "tests/kernels/sampling_fixture.h"

namespace mneme {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ne;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// How often each id stands among `ids`.
std::vector<TokenCount> Counts(const std::vector<int32_t>& ids) {
  std::map<int32_t, int32_t> counts;
  for (const int32_t id : ids) ++counts[id];
  std::vector<TokenCount> out;
  for (const auto& [id, count] : counts) out.push_back({id, count});
  return out;
}

class SamplingTest : public SamplingTestBase {
 protected:
  int32_t Draw(const std::vector<float>& logits, const SamplingParams& params,
               uint64_t position = 0, const std::vector<TokenCount>& counts = {},
               const std::vector<int32_t>& forbidden = {}) {
    return SampleOne(
               logits,
               {.params = &params, .position = position, .counts = counts, .forbidden = forbidden})
        .id;
  }

  std::vector<int32_t> DrawMany(const std::vector<float>& logits, const SamplingParams& params,
                                uint64_t count, const std::vector<int32_t>& forbidden = {}) {
    std::vector<SampleRow> rows;
    for (uint64_t i = 0; i < count; ++i) {
      rows.push_back({.params = &params, .position = i, .forbidden = forbidden});
    }
    std::vector<int32_t> ids;
    for (const SampledRow& row : SampleEach(logits, rows)) ids.push_back(row.id);
    return ids;
  }

  // The tokens that occur in many draws.
  std::set<int32_t> Support(const std::vector<float>& logits, const SamplingParams& params) {
    const std::vector<int32_t> ids = DrawMany(logits, params, 2000);
    return {ids.begin(), ids.end()};
  }

  SampledRow WithLogProbs(const std::vector<float>& logits, const SamplingParams& params,
                          int top_logprobs, const std::vector<int32_t>& forbidden = {}) {
    return SampleOne(logits,
                     {.params = &params, .forbidden = forbidden, .top_logprobs = top_logprobs});
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, SamplingTest, testing::ValuesIn(BackendCases()), NameOfCase);

// Logits whose softmax these probabilities are.
std::vector<float> LogitsOf(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST_P(SamplingTest, GreedyTakesTheHighestLogitAndOfEqualOnesTheLowestId) {
  EXPECT_EQ(Draw({-1, 3, 2}, Greedy()), 1);
  EXPECT_EQ(Draw({1, 5, 5, 5}, Greedy()), 1);
  EXPECT_EQ(Draw({-7, -7}, Greedy()), 0);
  EXPECT_EQ(Draw({4}, Greedy()), 0);
}

TEST_P(SamplingTest, GreedyIgnoresSeedAndPosition) {
  SamplingParams params = Greedy();
  for (uint64_t i = 0; i < 20; ++i) {
    params.seed = i;
    EXPECT_EQ(Draw({1, 1.001F, 1}, params, i * 7), 1);
  }
}

TEST_P(SamplingTest, GreedyFollowsPenaltiesAndBias) {
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

TEST_P(SamplingTest, TheRepetitionPenaltyComesBeforeTheOthers) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  params.presence_penalty = 1;
  // 4 / 2 − 1 = 1, not (4 − 1) / 2.
  EXPECT_EQ(Draw({4, 1.2F}, params, 0, Counts({0})), 1);
  // 1 / 2 − 1 = −0.5, which is not multiplied again.
  EXPECT_EQ(Draw({1, -0.7F}, params, 0, Counts({0})), 0);
}

TEST_P(SamplingTest, TheSameArgumentsGiveTheSameToken) {
  const std::vector<float> logits(50, 0.0F);
  SamplingParams params;
  params.seed = 42;
  EXPECT_EQ(DrawMany(logits, params, 200), DrawMany(logits, params, 200));
  SamplingParams other = params;
  other.seed = 43;
  EXPECT_NE(DrawMany(logits, params, 200), DrawMany(logits, other, 200));
}

TEST_P(SamplingTest, ADrawDependsNeitherOnItsNeighboursNorOnTheDrawsBeforeIt) {
  const std::vector<float> logits(50, 0.0F);
  SamplingParams params;
  params.top_p = 0.9F;
  const std::vector<int32_t> ids = DrawMany(logits, params, 100);
  SamplingParams other = Greedy();
  other.frequency_penalty = 1;
  other.logit_bias = {{5, 2.0F}, {8, -3.0F}};
  const std::vector<TokenCount> counts = Counts({3, 3, 9});
  const std::vector<int32_t> forbidden = {1, 2};
  std::vector<SampleRow> rows;
  for (uint64_t i = 0; i < 100; ++i) {
    const SampleRow neighbour = {.params = &other,
                                 .position = i,
                                 .counts = counts,
                                 .forbidden = forbidden,
                                 .top_logprobs = 5};
    if (i % 3 == 0) rows.push_back(neighbour);
    rows.push_back({.params = &params, .position = i});
    if (i % 2 == 0) rows.push_back(neighbour);
  }
  SampleEach(std::vector<float>(1000, 1.0F), {rows[0], rows[1]});
  const std::vector<SampledRow> sampled = SampleEach(logits, rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int32_t expected = rows[i].params == &other ? 5 : ids[rows[i].position];
    EXPECT_EQ(sampled[i].id, expected) << "row " << i;
  }
}

TEST_P(SamplingTest, EachRowHasLogitsOfItsOwnAndRowsWithoutASampleAreLeftAlone) {
  constexpr size_t kVocab = 700;
  const SamplingParams params = Greedy();
  std::vector<float> logits(5 * kVocab, -1.0F);
  for (size_t i = 0; i < 5; ++i) logits[i * kVocab + 100 * i + 3] = 1;
  std::vector<SampleRow> rows(3);
  for (SampleRow& row : rows) row = {.params = &params, .top_logprobs = 1};
  const std::vector<SampledRow> sampled = SampleMatrix(logits, kVocab, rows);
  for (int32_t i = 0; i < 3; ++i) {
    const SampledRow& row = sampled[static_cast<size_t>(i)];
    EXPECT_EQ(row.id, 100 * i + 3);
    EXPECT_EQ(row.finite, 1);
    ASSERT_EQ(row.num_top, 1);
    EXPECT_EQ(row.top[0].id, 100 * i + 3);
  }
  EXPECT_EQ(sampled[3].id, -1);
  EXPECT_EQ(sampled[4].id, -1);
}

TEST_P(SamplingTest, SaysWhetherAnyRawLogitIsFinite) {
  EXPECT_EQ(WithLogProbs({kNan, kInf, -kInf}, {}, 0).finite, 0);
  EXPECT_EQ(WithLogProbs({kNan, kInf, -1}, Greedy(), 0).finite, 1);
  const SamplingParams params;
  std::vector<float> logits(5000, kNan);
  EXPECT_EQ(SampleOne(logits, {.params = &params}).finite, 0);
  logits.back() = 0;
  EXPECT_EQ(SampleOne(logits, {.params = &params}).finite, 1);
}

TEST_P(SamplingTest, LogProbsDoNotChangeTheDraw) {
  const std::vector<float> logits(50, 0.0F);
  const SamplingParams params;
  const std::vector<int32_t> ids = DrawMany(logits, params, 50);
  std::vector<SampleRow> rows;
  for (uint64_t i = 0; i < 50; ++i) {
    rows.push_back({.params = &params, .position = i, .top_logprobs = 7});
  }
  const std::vector<SampledRow> sampled = SampleEach(logits, rows);
  for (size_t i = 0; i < 50; ++i) EXPECT_EQ(sampled[i].id, ids[i]);
}

TEST_P(SamplingTest, TopKKeepsTheKHighest) {
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

TEST_P(SamplingTest, TopKOfEqualLogitsKeepsTheLowestIds) {
  SamplingParams params;
  params.top_k = 2;
  EXPECT_THAT(Support(std::vector<float>(300, 1.0F), params), ElementsAre(0, 1));
  params.top_k = 6;
  EXPECT_THAT(Support(std::vector<float>(300, 1.0F), params), ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST_P(SamplingTest, TopPKeepsTheSmallestSetThatHoldsTheShare) {
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

TEST_P(SamplingTest, TopPReachedExactlyNeedsNoFurtherToken) {
  SamplingParams params;
  params.top_p = 0.5F;
  EXPECT_THAT(Support({0, 0, 0, 0}, params), ElementsAre(0, 1));
  params.top_p = 0.75F;
  EXPECT_THAT(Support({0, 0, 0, 0}, params), ElementsAre(0, 1, 2));
}

TEST_P(SamplingTest, MinPKeepsWhatIsNotTooFarBelowTheHighest) {
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

TEST_P(SamplingTest, MinPOfOneKeepsAllThatAreEquallyProbable) {
  SamplingParams params;
  params.min_p = 1;
  EXPECT_THAT(Support({2, 1, 2}, params), ElementsAre(0, 2));
}

TEST_P(SamplingTest, FiltersActInOrder) {
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

TEST_P(SamplingTest, ForbiddenTokensAreNeverDrawn) {
  SamplingParams params;
  params.logit_bias = {{1, 50.0F}};
  EXPECT_EQ(Draw({0, 0, 1}, Greedy(), 0, {}, {2, 1}), 0);
  EXPECT_THAT(DrawMany({0, 0, 1}, params, 200, {1}), Each(Ne(1)));
  EXPECT_EQ(Draw({1, 2}, Greedy(), 0, {}, {-1, 2, 7}), 1);
}

TEST_P(SamplingTest, CountsOutsideTheVocabularyAreIgnored) {
  SamplingParams params = Greedy();
  params.frequency_penalty = 1;
  EXPECT_EQ(Draw({1, 2}, params, 0, Counts({-1, 2, 1 << 30})), 1);
}

TEST_P(SamplingTest, NanAndMinusInfinityAreNeverDrawn) {
  EXPECT_EQ(Draw({kNan, -1000, -kInf}, Greedy()), 1);
  EXPECT_THAT(DrawMany({kNan, -1000, -kInf}, {}, 100), Each(1));
  SamplingParams params;
  params.logit_bias = {{0, kLargest}, {2, kLargest}};
  EXPECT_THAT(DrawMany({kNan, -1000, -kInf}, params, 100), Each(1));
}

TEST_P(SamplingTest, PlusInfinityWinsWithoutPoisoningTheSum) {
  EXPECT_THAT(DrawMany({0, kInf, kLargest / 2}, {}, 100), Each(1));
  SamplingParams params;
  params.logit_bias = {{1, kLargest}};
  params.top_p = 0.5F;
  params.min_p = 0.1F;
  EXPECT_THAT(DrawMany({0, kInf, 0}, params, 100), Each(1));
}

TEST_P(SamplingTest, ExtremeParametersKeepTheDrawMeaningful) {
  SamplingParams params;
  params.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_THAT(DrawMany({1, 2, 1}, params, 100), Each(1));
  params = SamplingParams();
  params.repetition_penalty = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(Draw({1, 2, 1}, params, 0, Counts({2})), 2);
  params.repetition_penalty = kLargest;
  EXPECT_EQ(Draw({-2, -2, -2}, params, 0, Counts({0, 1})), 2);
}

TEST_P(SamplingTest, WithNothingLeftTheLowestAllowedIdIsReturned) {
  EXPECT_EQ(Draw({kNan, kNan, -kInf}, {}), 0);
  EXPECT_EQ(Draw({kNan, kNan, -kInf}, Greedy(), 0, {}, {1, 0}), 2);
  EXPECT_EQ(Draw({1, 2}, {}, 0, {}, {1, 0}), 0);
  const SampledRow sampled = WithLogProbs({kNan, -kInf}, {}, 2);
  EXPECT_TRUE(std::isnan(sampled.logprob));
  EXPECT_EQ(sampled.num_top, 0);
}

TEST_P(SamplingTest, LogProbsComeFromTheRawLogits) {
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 100.0F}};
  const std::vector<double> probabilities = {0.1, 0.5, 0.15, 0.25};
  const SampledRow token = WithLogProbs(LogitsOf(probabilities), params, 3, {1});
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob, std::log(0.15), 1e-6);
  ASSERT_EQ(token.num_top, 3);
  const std::vector<int32_t> ids = {1, 3, 2};
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(token.top[i].id, ids[i]);
    EXPECT_NEAR(token.top[i].logprob, std::log(probabilities[static_cast<size_t>(ids[i])]), 1e-6);
  }
}

TEST_P(SamplingTest, TheTopListIsThereOnlyIfAskedFor) {
  const SamplingParams params;
  EXPECT_EQ(SampleOne({1.0F, 2.0F}, {.params = &params}).num_top, 0);
  const SampledRow own = WithLogProbs({1, 1}, params, 0);
  EXPECT_NEAR(own.logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(own.num_top, 0);
}

TEST_P(SamplingTest, TheTopListHasNoMoreThanTheFiniteLogitsAndRanksTiesById) {
  const SampledRow token = WithLogProbs({1, kNan, 2, 1, -kInf}, Greedy(), kMaxTopLogProbs);
  ASSERT_EQ(token.num_top, 3);
  EXPECT_EQ(token.top[0].id, 2);
  EXPECT_EQ(token.top[1].id, 0);
  EXPECT_EQ(token.top[2].id, 3);
}

TEST_P(SamplingTest, TheTopListOfALargeVocabularyIsInOrder) {
  std::vector<float> logits(3000, 0.0F);
  for (int i = 0; i < kMaxTopLogProbs + 5; ++i) {
    logits[static_cast<size_t>(2999 - 97 * i)] = static_cast<float>(10 - i / 2);  // ties of two
  }
  const SampledRow token = WithLogProbs(logits, {}, kMaxTopLogProbs);
  ASSERT_EQ(token.num_top, kMaxTopLogProbs);
  for (int i = 0; i < kMaxTopLogProbs; ++i) {
    const int rank = i % 2 == 0 ? i + 1 : i - 1;  // of a tie the lower id is first
    EXPECT_EQ(token.top[static_cast<size_t>(i)].id, 2999 - 97 * rank) << "rank " << i;
  }
}

TEST_P(SamplingTest, LogProbsOfALargeVocabularyArePrecise) {
  std::vector<float> logits(150000, -20.0F);
  logits[140000] = 30;
  const double total = 149999 * std::exp(-50.0) + 1;
  EXPECT_NEAR(WithLogProbs(logits, Greedy(), 0).logprob, -std::log(total), 1e-9);
  std::fill(logits.begin(), logits.end(), 5.0F);
  EXPECT_NEAR(WithLogProbs(logits, Greedy(), 0).logprob, -std::log(150000.0), 2e-6);
}

}  // namespace
}  // namespace mneme
