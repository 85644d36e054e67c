#include "tests/engine/peek.h"

#include <algorithm>

namespace mneme {

std::unique_ptr<Call> Peek(LoopHarness& engine, const std::string& id, int64_t max_tokens) {
  GenerateRequest request = GreedyRequest(max_tokens);
  request.learn = false;
  request.logprobs = 0;
  // The first one computes the last sampled token, after which there may be an update to apply.
  EXPECT_TRUE(EndedOk(*engine.Generate(id, request)));
  auto call = engine.Generate(id, request);
  EXPECT_TRUE(EndedOk(*call));
  return call;
}

void ExpectSame(const Call& actual, const Call& expected) {
  EXPECT_EQ(actual.TokenIds(), expected.TokenIds());
  for (size_t i = 0; i < std::min(actual.tokens.size(), expected.tokens.size()); ++i) {
    EXPECT_NEAR(*actual.tokens[i].logprob, *expected.tokens[i].logprob, kPeekTolerance);
  }
  EXPECT_EQ(actual.finished->version, expected.finished->version);
}

}  // namespace mneme
