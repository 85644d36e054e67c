// Invariant: a bad request is a status, and the next request works (DESIGN §2.10); stale
// expectations are ABORTED with where the session really stands (§2.4).

#include <cmath>
#include <functional>
#include <limits>
#include <ostream>

#include "gtest/gtest.h"
#include "tests/engine/loading/tiny_model.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A model of 16 tokens with a context of 64, or with windows everywhere and so without an end.
class BadInputTest : public testing::Test {
 protected:
  static constexpr int64_t kContext = 64;

  void SetUp() override { UseModel(/*windowed=*/false); }

  void UseModel(bool windowed) {
    TinyModel model;
    model.config["max_position_embeddings"] = kContext;
    if (windowed) {
      model.config["use_sliding_window"] = true;
      model.config["sliding_window"] = 8;
      model.config["max_window_layers"] = 0;
    }
    model.Write(dir_.path());
    engine_ = std::make_unique<LoopHarness>(dir_.path());
    engine_->Create("s");
    engine_->Append("s", {1, 2, 3, 4, 5});
  }

  // The session stands where it stood, and works.
  void ExpectUnharmed() {
    EXPECT_EQ(engine_->Info("s").position, 5u);
    GenerateRequest probe = GreedyRequest(2, {1});
    probe.learn = false;
    const auto next = engine_->Generate("s", probe);
    EXPECT_TRUE(EndedOk(*next));
    EXPECT_EQ(next->tokens.size(), 2u);
  }

  void ExpectRefused(const Call& call, absl::StatusCode code, ErrorReason reason) {
    EXPECT_TRUE(EndedWith(call, code, reason));
    EXPECT_TRUE(call.tokens.empty());
    EXPECT_FALSE(call.finished.has_value());
    EXPECT_FALSE(GetErrorInfo(*call.end).retryable);
    ExpectUnharmed();
  }

  TemporaryDirectory dir_;
  std::unique_ptr<LoopHarness> engine_;
};

struct BadGenerate {
  std::string name;
  std::function<void(GenerateRequest&)> spoil;
  absl::StatusCode code = absl::StatusCode::kInvalidArgument;
  ErrorReason reason = ErrorReason::kInvalidInput;
};

void PrintTo(const BadGenerate& bad, std::ostream* out) { *out << bad.name; }

const std::vector<BadGenerate>& BadGenerates() {
  using Code = absl::StatusCode;
  using R = GenerateRequest;
  static const std::vector<BadGenerate> all = {
      {"TemperatureNegative", [](R& r) { r.sampling.temperature = -1; }},
      {"TemperatureNaN", [](R& r) { r.sampling.temperature = kNaN; }},
      {"TemperatureInfinite", [](R& r) { r.sampling.temperature = kInfinity; }},
      {"TopPZero", [](R& r) { r.sampling.top_p = 0; }},
      {"TopPAboveOne", [](R& r) { r.sampling.top_p = 1.5F; }},
      {"TopPNaN", [](R& r) { r.sampling.top_p = kNaN; }},
      {"MinPNegative", [](R& r) { r.sampling.min_p = -0.1F; }},
      {"MinPNaN", [](R& r) { r.sampling.min_p = kNaN; }},
      {"TopKNegative", [](R& r) { r.sampling.top_k = -1; }},
      {"RepetitionZero", [](R& r) { r.sampling.repetition_penalty = 0; }},
      {"RepetitionInfinite", [](R& r) { r.sampling.repetition_penalty = kInfinity; }},
      {"PresenceNaN", [](R& r) { r.sampling.presence_penalty = kNaN; }},
      {"FrequencyInfinite", [](R& r) { r.sampling.frequency_penalty = -kInfinity; }},
      {"BiasNaN",
       [](R& r) {
         r.sampling.logit_bias = {{3, kNaN}};
       }},
      {"BiasOfUnknownToken",
       [](R& r) {
         r.sampling.logit_bias = {{16, 1.0F}};
       }},
      {"BiasOfNegativeToken",
       [](R& r) {
         r.sampling.logit_bias = {{-1, 1.0F}};
       }},
      {"InputBeyondVocabulary",
       [](R& r) {
         r.input.ids = {1, 16};
       }},
      {"InputNegative", [](R& r) { r.input.ids = {-1}; }},
      {"StopTokenBeyondVocabulary", [](R& r) { r.stop_token_ids = {16}; }},
      {"StopTokenNegative", [](R& r) { r.stop_token_ids = {-2}; }},
      {"MaxTokensZero", [](R& r) { r.max_tokens = 0; }},
      {"MaxTokensNegative", [](R& r) { r.max_tokens = -5; }},
      {"MinAboveMax", [](R& r) { r.min_tokens = *r.max_tokens + 1; }},
      {"StopStringEmpty", [](R& r) { r.stop = {""}; }},
      {"StopStringWithoutTokenizer", [](R& r) { r.stop = {"x"}; }, Code::kFailedPrecondition},
      {"MaxTokensBeyondContext", [](R& r) { r.max_tokens = 60; }, Code::kOutOfRange,
       ErrorReason::kContextExhausted},
      {"MaxTokensHuge", [](R& r) { r.max_tokens = INT64_MAX; }, Code::kOutOfRange,
       ErrorReason::kContextExhausted},
      {"InputBeyondContext", [](R& r) { r.input.ids = RandomTokens(60, 1, 16); }, Code::kOutOfRange,
       ErrorReason::kContextExhausted},
      {"StalePosition", [](R& r) { r.header.expected_position = 4; }, Code::kAborted,
       ErrorReason::kPositionMismatch},
      {"StaleVersion", [](R& r) { r.header.expected_version = 0; }, Code::kAborted,
       ErrorReason::kVersionMismatch},
  };
  return all;
}

class BadGenerateTest : public BadInputTest, public testing::WithParamInterface<BadGenerate> {};

TEST_P(BadGenerateTest, IsRefusedAndTheNextRequestWorks) {
  for (const bool learn : {true, false}) {
    GenerateRequest request = GreedyRequest(3, {1});
    request.learn = learn;
    GetParam().spoil(request);
    const auto call = engine_->Generate("s", request);
    ExpectRefused(*call, GetParam().code, GetParam().reason);
    EXPECT_EQ(GetErrorInfo(*call->end).position, 5u);
    EXPECT_EQ(GetErrorInfo(*call->end).version, 1u);
  }
}

INSTANTIATE_TEST_SUITE_P(All, BadGenerateTest, testing::ValuesIn(BadGenerates()),
                         [](const auto& param) { return param.param.name; });

TEST_F(BadInputTest, AnUnknownSessionIsNotFoundAndNotCreated) {
  ExpectRefused(*engine_->Append("t", {1}), absl::StatusCode::kNotFound,
                ErrorReason::kSessionNotFound);
  ExpectRefused(*engine_->Generate("t", GreedyRequest(1, {1})), absl::StatusCode::kNotFound,
                ErrorReason::kSessionNotFound);
  EXPECT_EQ(engine_->loop().load().sessions, 1);
}

TEST_F(BadInputTest, ATenantWithoutAProperNameIsRefusedAndSharesNobodysSessions) {
  for (const std::string tenant : {"", "two words", "tést"}) {
    EXPECT_EQ(engine_->loop().CreateSession({tenant, "t"}, {}).status().code(),
              absl::StatusCode::kInvalidArgument);
    for (const std::string session : {"", "s"}) {  // throw-away, or the id of another's
      Call call;
      call.channel = std::make_shared<RequestChannel>(nullptr);
      GenerateRequest request = GreedyRequest(1, {1});
      request.header.session = {tenant, session};
      engine_->loop().Generate(std::move(request), call.channel);
      call.Read();
      ASSERT_TRUE(call.end.has_value());
      EXPECT_EQ(call.end->code(), absl::StatusCode::kInvalidArgument);
    }
  }
  ExpectUnharmed();
}

TEST_F(BadInputTest, AnAppendOfNothingIsInvalid) {
  const auto call = engine_->StartAppendStream("s", {});
  call->channel->CloseInput();
  engine_->RunAll({call.get()});
  ExpectRefused(*call, absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidInput);
  ExpectRefused(*engine_->Append("s", {}), absl::StatusCode::kInvalidArgument,
                ErrorReason::kInvalidInput);
}

TEST_F(BadInputTest, AnIdThatIsNoTokenIsInvalid) {
  for (int32_t id : {16, -1, INT32_MAX, INT32_MIN}) {
    ExpectRefused(*engine_->Append("s", {1, id}), absl::StatusCode::kInvalidArgument,
                  ErrorReason::kInvalidInput);
  }
}

TEST_F(BadInputTest, ABadPieceEndsAnAppendWhosePiecesBeforeItStay) {
  const auto call = engine_->StartAppendStream("s", {});
  call->channel->PushInput({.ids = {1, 2}});
  engine_->RunAll({call.get()});
  EXPECT_EQ(call->ends, 0) << "it waits for more input";
  call->channel->PushInput({.ids = {99}});
  engine_->RunAll({call.get()});
  EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidInput));
  EXPECT_EQ(GetErrorInfo(*call->end).position, 7u);
  EXPECT_TRUE(EndedOk(*engine_->Append("s", {1})));
}

TEST_F(BadInputTest, StaleExpectationsOfAnAppendAreAborted) {
  for (const bool position : {true, false}) {
    AppendRequest request;
    (position ? request.header.expected_position : request.header.expected_version) = 77;
    const auto call = engine_->StartAppendStream("s", request);
    call->channel->PushInput({.ids = {1}});
    engine_->RunAll({call.get()});
    ExpectRefused(*call, absl::StatusCode::kAborted,
                  position ? ErrorReason::kPositionMismatch : ErrorReason::kVersionMismatch);
    EXPECT_EQ(GetErrorInfo(*call->end).position, 5u);
    EXPECT_EQ(GetErrorInfo(*call->end).version, 1u);
  }
}

TEST_F(BadInputTest, GenerateFromNothingIsAFailedPrecondition) {
  engine_->Create("empty");
  for (const std::string id : {"empty", ""}) {
    ExpectRefused(*engine_->Generate(id, GreedyRequest(1)), absl::StatusCode::kFailedPrecondition,
                  ErrorReason::kInvalidInput);
  }
}

TEST_F(BadInputTest, AnAppendBeyondTheContextIsOutOfRange) {
  ExpectRefused(*engine_->Append("s", RandomTokens(60, 1, 16)), absl::StatusCode::kOutOfRange,
                ErrorReason::kContextExhausted);
  EXPECT_TRUE(EndedOk(*engine_->Append("s", RandomTokens(59, 1, 16))));
  EXPECT_EQ(engine_->Info("s").position, 64u);
  EXPECT_TRUE(EndedWith(*engine_->Generate("s", GreedyRequest(1)), absl::StatusCode::kOutOfRange,
                        ErrorReason::kContextExhausted));
}

TEST_F(BadInputTest, AbsentMaxTokensAreCutToTheContext) {
  GenerateRequest request = GreedyRequest(1);
  request.max_tokens.reset();
  const auto call = engine_->Generate("s", request);
  EXPECT_TRUE(EndedOk(*call));
  EXPECT_EQ(call->tokens.size(), 59u);
  EXPECT_EQ(call->finished->reason, FinishReason::kLength);
}

TEST_F(BadInputTest, WithWindowsEverywhereASessionHasNoEnd) {
  UseModel(/*windowed=*/true);
  EXPECT_TRUE(EndedOk(*engine_->Append("s", RandomTokens(5 * kContext, 1, 16))));
  EXPECT_TRUE(EndedOk(*engine_->Generate("s", GreedyRequest(2 * kContext))));
  EXPECT_EQ(engine_->Info("s").position, 5u + 7 * kContext);
}

TEST_F(BadInputTest, BadControlsAreInvalidAndChangeNothing) {
  const std::vector<LearningControls> all = {{.clip_norm = -1},
                                             {.clip_norm = kNaN},
                                             {.clip_norm = kInfinity},
                                             {.decay = -0.1F},
                                             {.decay = 1},
                                             {.decay = kNaN},
                                             {.lr_scale = -1},
                                             {.lr_scale = kInfinity},
                                             {.lr_scale = kNaN},
                                             {.max_relative_norm = -1},
                                             {.max_relative_norm = kNaN},
                                             {.max_relative_norm = kInfinity}};
  for (const LearningControls& controls : all) {
    const auto updated =
        engine_->loop().UpdateSession({"test", "s"}, {.controls = ControlsUpdate::All(controls)});
    EXPECT_EQ(updated.status().code(), absl::StatusCode::kInvalidArgument);
    const auto created = engine_->loop().CreateSession({"test", "t"}, {.controls = controls});
    EXPECT_EQ(created.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(engine_->Info("s").options.controls, LearningControls());
  }
  ExpectUnharmed();
}

TEST_F(BadInputTest, ASessionIdIsOf128PlainCharacters) {
  EngineLoop& loop = engine_->loop();
  for (const std::string& id : {std::string(129, 'a'), std::string("a b"), std::string("ü")}) {
    EXPECT_EQ(loop.CreateSession({"test", id}, {}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(loop.CreateSession({"test", std::string(128, 'a')}, {}).ok());
  EXPECT_EQ(loop.CreateSession({"test", "s"}, {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(loop.CreateSession({"test", ""}, {})->key.id.size(), 32u) << "drawn by the server";
}

}  // namespace
}  // namespace mneme
