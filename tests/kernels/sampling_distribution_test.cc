// Holds Stream::Sample against a plain reference: draw by draw, and in the frequencies of many
// draws.

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/kernels/reference_sampler.h"
#include "tests/kernels/sampling_fixture.h"

namespace mneme {
namespace {

struct Setting {
  std::string name;
  SamplingParams params;
};

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  const auto add = [&](const std::string& name, auto set) {
    settings.push_back({name, {}});
    set(settings.back().params);
  };
  add("Plain", [](SamplingParams&) {});
  add("Cold", [](SamplingParams& p) { p.temperature = 0.3F; });
  add("Hot", [](SamplingParams& p) { p.temperature = 2.5F; });
  add("TopKSmall", [](SamplingParams& p) { p.top_k = 5; });
  add("TopKLarge", [](SamplingParams& p) { p.top_k = 700; });
  add("TopPSmall", [](SamplingParams& p) { p.top_p = 0.3F; });
  add("TopPLarge", [](SamplingParams& p) { p.top_p = 0.98F; });
  add("MinP", [](SamplingParams& p) { p.min_p = 0.07F; });
  add("RepetitionPenalty", [](SamplingParams& p) { p.repetition_penalty = 1.7F; });
  add("RepetitionReward", [](SamplingParams& p) { p.repetition_penalty = 0.6F; });
  add("PresencePenalty", [](SamplingParams& p) { p.presence_penalty = 1.5F; });
  add("FrequencyPenalty", [](SamplingParams& p) { p.frequency_penalty = 0.8F; });
  add("NegativePenalties", [](SamplingParams& p) {
    p.presence_penalty = -0.5F;
    p.frequency_penalty = -0.25F;
  });
  add("Bias", [](SamplingParams& p) { p.logit_bias = {{1, 3.0F}, {7, -100.0F}, {11, 1.5F}}; });
  add("Everything", [](SamplingParams& p) {
    p = {0.8F, 0.9F, 0.02F, 40, 1.2F, 0.3F, 0.1F, 0, {{2, 2.0F}, {5, -1.0F}}};
  });
  return settings;
}

class AgainstReferenceTest : public SamplingTestBase {
 protected:
  // Logits of that standard deviation, from a fixed stream.
  static std::vector<float> RandomLogits(size_t vocab_size, float spread, uint32_t stream) {
    std::mt19937 random(stream);
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> logits(vocab_size);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }

  // Every third token of the first 100, once, twice or three times.
  static std::map<int32_t, int> SomeCounts(size_t vocab_size) {
    std::map<int32_t, int> counts;
    for (int32_t id = 0; id < 100 && static_cast<size_t>(id) < vocab_size; id += 3) {
      counts[id] = 1 + id % 3 + id % 2;
    }
    return counts;
  }

  static std::vector<TokenCount> ToTokenCounts(const std::map<int32_t, int>& counts) {
    std::vector<TokenCount> result;
    for (const auto& [id, count] : counts) result.push_back({id, count});
    return result;
  }

  // The rows of draws at positions from 0 on.
  static std::vector<SampleRow> Rows(const SamplingParams& params,
                                     const std::vector<TokenCount>& counts,
                                     const std::vector<int32_t>& forbidden, uint64_t count) {
    std::vector<SampleRow> rows;
    for (uint64_t position = 0; position < count; ++position) {
      rows.push_back(
          {.params = &params, .position = position, .counts = counts, .forbidden = forbidden});
    }
    return rows;
  }

  // Weights summed in float32 may put a draw that is this near to a boundary on its other side.
  static constexpr double kBoundary = 1e-6;

  void CompareDraws(size_t vocab_size, uint32_t num_logits, uint64_t draws_each) {
    const std::map<int32_t, int> counts = SomeCounts(vocab_size);
    const std::vector<TokenCount> token_counts = ToTokenCounts(counts);
    const std::vector<int32_t> forbidden = {4, 13};
    for (const Setting& setting : Settings()) {
      SCOPED_TRACE(setting.name);
      SamplingParams params = setting.params;
      for (uint32_t stream = 0; stream < num_logits; ++stream) {
        params.seed = stream;
        const std::vector<float> logits = RandomLogits(vocab_size, 3, stream);
        const std::vector<double> expected =
            ReferenceDistribution(logits, params, counts, forbidden);
        const std::vector<SampledRow> drawn =
            SampleEach(logits, Rows(params, token_counts, forbidden, draws_each));
        for (uint64_t position = 0; position < draws_each; ++position) {
          const int32_t id = drawn[position].id;
          const double uniform = UniformAt(params.seed, position);
          ASSERT_GE(id, ReferenceDraw(expected, uniform - kBoundary)) << "position " << position;
          ASSERT_LE(id, ReferenceDraw(expected, uniform + kBoundary)) << "position " << position;
          ASSERT_GT(expected[static_cast<size_t>(id)], 0) << "position " << position;
        }
      }
    }
  }

  void CheckFrequencies(const SamplingParams& params);
};
INSTANTIATE_TEST_SUITE_P(Backends, AgainstReferenceTest, testing::ValuesIn(BackendCases()),
                         NameOfCase);

// Few enough for tools that slow a device down.
TEST_P(AgainstReferenceTest, DrawsTheSameTokensOnceInEverySetting) { CompareDraws(1100, 1, 1); }

TEST_P(AgainstReferenceTest, DrawsTheSameTokensFromASmallVocabulary) { CompareDraws(17, 20, 200); }

TEST_P(AgainstReferenceTest, DrawsTheSameTokensFromALargeVocabulary) { CompareDraws(5000, 4, 60); }

// Pearson's statistic of observed counts, cells of fewer than five expected draws taken together,
// must stay below the quantile of probability 1 − 10⁻⁶ (Wilson and Hilferty's approximation):
// chance alone would fail one setting in a million, and the seed is fixed.
void AgainstReferenceTest::CheckFrequencies(const SamplingParams& params) {
  constexpr int kDraws = 20000;
  const std::vector<float> logits = RandomLogits(60, 1, 99);
  const std::map<int32_t, int> counts = SomeCounts(60);
  const std::vector<double> expected = ReferenceDistribution(logits, params, counts, {});
  std::vector<int> observed(logits.size());
  const std::vector<TokenCount> token_counts = ToTokenCounts(counts);
  for (const SampledRow& row : SampleEach(logits, Rows(params, token_counts, {}, kDraws))) {
    ++observed[static_cast<size_t>(row.id)];
  }

  double statistic = 0, rare_expected = 0, rare_observed = 0;
  int cells = 0;
  const auto add_cell = [&](double want, double got) {
    statistic += (got - want) * (got - want) / want;
    ++cells;
  };
  for (size_t id = 0; id < expected.size(); ++id) {
    const double want = expected[id] * kDraws;
    if (want == 0) {
      ASSERT_EQ(observed[id], 0) << "token " << id << " was filtered out";
    } else if (want < 5) {
      rare_expected += want;
      rare_observed += observed[id];
    } else {
      add_cell(want, observed[id]);
    }
  }
  if (rare_expected >= 5) add_cell(rare_expected, rare_observed);
  ASSERT_GT(cells, 1);
  const double freedom = cells - 1;
  const double z = 4.753424;  // the standard normal quantile of 1 − 10⁻⁶
  const double root = 1 - 2 / (9 * freedom) + z * std::sqrt(2 / (9 * freedom));
  EXPECT_LT(statistic, freedom * root * root * root);
}

TEST_P(AgainstReferenceTest, FrequenciesPassAChiSquareTest) {
  for (const Setting& setting : Settings()) {
    SCOPED_TRACE(setting.name);
    SamplingParams params = setting.params;
    params.seed = 2024;
    CheckFrequencies(params);
  }
}

}  // namespace
}  // namespace mneme
