// The text of generated tokens: whole characters, cut at stop strings, one event for each token
// (DESIGN §3). Uses the bundled model, which has a tokenizer.

#include <algorithm>

#include "engine/tokenizer/utf8.h"
#include "gtest/gtest.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr int64_t kTokens = 40;

class GeneratedTextTest : public testing::Test {
 protected:
  static constexpr char kModel[] = "models/mneme-demo";

  static void SetUpTestSuite() {
    engine_ = new LoopHarness(kModel, HarnessOptions{.with_tokenizer = true});
  }
  static void TearDownTestSuite() {
    delete engine_;
    engine_ = nullptr;
  }

  static const Tokenizer& tokenizer() { return *engine_->model().tokenizer; }

  // The text of `ids`; the model's vocabulary is padded with ids that are no token.
  static std::string Decode(std::vector<int32_t> ids) {
    ids.erase(std::remove_if(ids.begin(), ids.end(),
                             [](int32_t id) { return id >= tokenizer().vocab_size(); }),
              ids.end());
    return *tokenizer().Decode(ids, /*include_special=*/false);
  }

  // Draws from nearly the whole vocabulary, bytes of half characters included.
  static GenerateRequest Wild(uint64_t seed) {
    GenerateRequest request = GreedyRequest(kTokens, *tokenizer().Encode("The ", false));
    request.sampling.temperature = 100;
    request.sampling.seed = seed;
    request.seed_given = true;
    return request;
  }
  static std::unique_ptr<Call> Generate(const GenerateRequest& request) {
    auto call = engine_->Generate("", request);
    EXPECT_TRUE(EndedOk(*call));
    for (const GeneratedToken& token : call->tokens) EXPECT_TRUE(IsValidUtf8(token.text));
    return call;
  }

  // The model is loaded once.
  static LoopHarness* engine_;  // NOLINT(readability-identifier-naming): a member
};

LoopHarness* GeneratedTextTest::engine_ = nullptr;

TEST_F(GeneratedTextTest, TheEventsTextsTogetherAreTheTokensText) {
  bool lagged = false;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const auto call = Generate(Wild(seed));
    ASSERT_EQ(call->tokens.size(), static_cast<size_t>(kTokens));
    EXPECT_EQ(call->Text(), Decode(call->TokenIds()));
    for (const GeneratedToken& token : call->tokens) {
      lagged |= token.text.empty() && token.id < 1000;
    }
  }
  EXPECT_TRUE(lagged) << "some character was made of several tokens";
}

TEST_F(GeneratedTextTest, AStopStringCutsTheTextWhereverTokensEnd) {
  const std::string whole = Generate(Wild(3))->Text();
  int across_tokens = 0;
  for (size_t begin = 0; begin + 6 < whole.size(); begin += 5) {
    std::string stop = whole.substr(begin, 6);
    if (!IsValidUtf8(stop) || stop.find("\xEF\xBF\xBD") != std::string::npos) continue;
    GenerateRequest request = Wild(3);
    request.stop = {"not in the text", stop};
    const auto call = Generate(request);
    EXPECT_EQ(call->Text(), whole.substr(0, whole.find(stop)));
    EXPECT_EQ(call->finished->matched_stop, stop);
    EXPECT_EQ(call->finished->reason, FinishReason::kStop);
    EXPECT_EQ(call->finished->completion_tokens, call->tokens.size());
    across_tokens += call->tokens.back().text.empty() ? 1 : 0;
  }
  EXPECT_GT(across_tokens, 0);
}

TEST_F(GeneratedTextTest, AStopStringsTokensStayInTheLog) {
  engine_->Create("s");
  const std::string whole = Generate(Wild(3))->Text();
  GenerateRequest request = Wild(3);
  request.stop = {whole.substr(whole.find_first_not_of(' '), 3)};
  const auto call = engine_->Generate("s", request);
  const auto& log = (*engine_->loop().FindSession({"test", "s"}))->log();
  const std::vector<int32_t> output(
      log.begin() + static_cast<std::ptrdiff_t>(request.input.ids.size()), log.end());
  EXPECT_EQ(output, call->TokenIds());
  EXPECT_NE(Decode(output).find(request.stop[0]), std::string::npos);
  EXPECT_EQ(call->Text().find(request.stop[0]), std::string::npos);
}

TEST_F(GeneratedTextTest, TextThatOnlyMightHaveStoppedIsGivenAtTheEnd) {
  // A text whose last character may begin a stop string.
  uint64_t seed = 1;
  std::string text = Generate(Wild(seed))->Text();
  while (static_cast<unsigned char>(text.back()) >= 0x80) text = Generate(Wild(++seed))->Text();
  GenerateRequest request = Wild(seed);
  request.stop = {text.substr(text.size() - 1) + "\x01"};
  const auto call = Generate(request);
  EXPECT_EQ(call->Text(), text);
  EXPECT_EQ(call->finished->reason, FinishReason::kLength);
  EXPECT_EQ(call->finished->matched_stop, "");
}

TEST_F(GeneratedTextTest, AStopTokenHasNoTextAndIsTheLast) {
  const auto reference = Generate(Wild(7));
  size_t at = 10;
  while (reference->tokens[at].text.empty()) ++at;
  const int32_t stop = reference->tokens[at].id;
  GenerateRequest request = Wild(7);
  request.stop_token_ids = {stop};
  const auto call = Generate(request);
  EXPECT_EQ(call->tokens.back().id, stop);
  EXPECT_EQ(call->tokens.back().text, "");
  EXPECT_LE(call->tokens.size(), at + 1);
  EXPECT_EQ(call->finished->reason, FinishReason::kStop);
  EXPECT_EQ(call->finished->matched_stop, "") << "no stop string";
  auto before = call->TokenIds();
  before.pop_back();
  EXPECT_EQ(call->Text(), Decode(before));
}

TEST_F(GeneratedTextTest, MinTokensForbidsEveryKindOfStop) {
  GenerateRequest request = Wild(9);
  request.sampling.temperature = 0;
  const int32_t end = engine_->model().config.eos_token_ids.front();
  request.ignore_eos = false;
  request.sampling.logit_bias = {{end, 100.0F}};
  EXPECT_EQ(Generate(request)->tokens.size(), 1u) << "it ends at once";
  request.min_tokens = 12;
  const auto call = Generate(request);
  ASSERT_EQ(call->tokens.size(), 13u);
  EXPECT_EQ(call->tokens.back().id, end);

  GenerateRequest with_stop = Wild(9);
  with_stop.stop = {"a", "e", "i", "o", "n", "t"};
  const auto early = Generate(with_stop);
  ASSERT_LT(early->tokens.size(), 20u);
  with_stop.min_tokens = 25;
  const auto late = Generate(with_stop);
  EXPECT_GE(late->tokens.size(), 25u);
}

TEST_F(GeneratedTextTest, ARetriedGenerateReplaysItsText) {
  engine_->Create("retried");
  GenerateRequest request = Wild(11);
  request.header.request_id = "r";
  request.stop = {"zzz"};
  const auto first = engine_->Generate("retried", request);
  const auto retry = engine_->Generate("retried", request);
  ASSERT_EQ(retry->tokens.size(), first->tokens.size());
  for (size_t i = 0; i < first->tokens.size(); ++i) {
    EXPECT_EQ(retry->tokens[i].text, first->tokens[i].text);
  }
}

}  // namespace
}  // namespace mneme
