// Invariant: any cutting of a token stream into requests gives the same state and log-probabilities
// (DESIGN §2.3).

#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr double kLogProbTolerance = 1e-4;
constexpr double kDeltaTolerance = 1e-4;

class SplitInvarianceTest : public testing::TestWithParam<std::string> {
 protected:
  SplitInvarianceTest() {
    // The stream: the fixture's tokens and their greedy continuation, so that Generate can write
    // some of it.
    stream_ = golden_.tokens();
    stream_.insert(stream_.end(), golden_.greedy().begin(), golden_.greedy().end());
    engine_.Create("whole");
    logprobs_ = engine_.Append("whole", stream_, /*logprobs=*/true)->AppendLogProbs();
  }

  int64_t size() const { return static_cast<int64_t>(stream_.size()); }
  int64_t prompt() const { return static_cast<int64_t>(golden_.tokens().size()); }
  std::vector<int32_t> Part(int64_t begin, int64_t end) const {
    return {stream_.begin() + begin, stream_.begin() + end};
  }

  // Appends [begin, end) and compares its log-probabilities.
  void AppendPart(const std::string& id, int64_t begin, int64_t end) {
    const auto call = engine_.Append(id, Part(begin, end), /*logprobs=*/true);
    ASSERT_TRUE(call->end->ok()) << *call->end;
    const std::vector<float> expected(logprobs_.begin() + begin, logprobs_.begin() + end);
    ASSERT_LT(MaxDifference(call->AppendLogProbs(), expected), kLogProbTolerance)
        << "tokens " << begin << " to " << end;
  }

  // Lets the model write [begin, end), which is its greedy continuation.
  void GeneratePart(const std::string& id, int64_t begin, int64_t end) {
    GenerateRequest request = GreedyRequest(end - begin);
    request.logprobs = 0;
    const auto call = engine_.Generate(id, request);
    ASSERT_EQ(call->TokenIds(), Part(begin, end));
    for (int64_t i = begin; i < end; ++i) {
      ASSERT_NEAR(*call->tokens[static_cast<size_t>(i - begin)].logprob,
                  logprobs_[static_cast<size_t>(i)], kLogProbTolerance);
    }
  }

  // Asks without teaching.
  void Probe(const std::string& id, std::mt19937& random) {
    std::vector<int32_t> input(random() % 40 + 1);
    for (int32_t& token : input) token = static_cast<int32_t>(random() % 320);
    GenerateRequest request = GreedyRequest(static_cast<int64_t>(random() % 8) + 1, input);
    request.learn = false;
    const SessionInfo before = engine_.Info(id);
    ASSERT_TRUE(engine_.Generate(id, request)->end->ok());
    const SessionInfo after = engine_.Info(id);
    ASSERT_EQ(after.position, before.position);
    ASSERT_EQ(after.version, before.version);
  }

  void ExpectSameState(const std::string& id) {
    // The last generated token is not computed yet: read one more token into both.
    const auto expected = engine_.Generate("whole", ProbeRequest());
    const auto actual = engine_.Generate(id, ProbeRequest());
    EXPECT_EQ(actual->TokenIds(), expected->TokenIds());
    const auto layers = engine_.model().config.ttt->layers.size();
    for (size_t i = 0; i < layers; ++i) {
      EXPECT_LT(RelativeDifference(engine_.Delta(id, static_cast<int64_t>(i)),
                                   engine_.Delta("whole", static_cast<int64_t>(i))),
                kDeltaTolerance);
    }
  }

  static GenerateRequest ProbeRequest() {
    GenerateRequest request = GreedyRequest(3, {5});
    request.learn = false;
    return request;
  }

  void RunCutting(uint32_t seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const std::string id = "s" + std::to_string(seed);
    engine_.Create(id);
    for (int64_t at = 0; at < size();) {
      const int64_t longest = std::min<int64_t>(size() - at, random() % 2 == 0 ? 5 : 80);
      const int64_t end = at + 1 + static_cast<int64_t>(random()) % longest;
      if (at >= prompt() && random() % 2 == 0) {
        GeneratePart(id, at, end);
      } else {
        AppendPart(id, at, end);
      }
      if (HasFatalFailure()) return;
      if (random() % 3 == 0) Probe(id, random);
      at = end;
    }
    ExpectSameState(id);
    engine_.loop().DeleteSession({"test", id}).IgnoreError();
  }

  Golden golden_{GetParam()};
  // Steps of 48 rows cut long requests into pieces, also where no request ends.
  LoopHarness engine_{golden_.dir(), {.engine = {.max_step_tokens = 48, .cache_bytes = 64 << 20}}};
  std::vector<int32_t> stream_;
  std::vector<float> logprobs_;
};

TEST_P(SplitInvarianceTest, RandomCuttingsGiveTheSame) {
  for (uint32_t seed = 1; seed <= 200; ++seed) RunCutting(seed);
}

TEST_P(SplitInvarianceTest, ChunkBoundaryAtEveryPlaceRelativeToACallsEnd) {
  const int64_t chunk = engine_.model().config.ttt->chunk;
  for (int64_t cut = 2 * chunk - 3; cut <= 3 * chunk + 3; ++cut) {
    const std::string id = "cut" + std::to_string(cut);
    engine_.Create(id);
    AppendPart(id, 0, cut);
    AppendPart(id, cut, size());
    ExpectSameState(id);
    engine_.loop().DeleteSession({"test", id}).IgnoreError();
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, SplitInvarianceTest, testing::ValuesIn(GoldenNames()),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mneme
