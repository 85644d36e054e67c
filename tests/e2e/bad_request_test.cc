// Every bad request ends with a clear status and a typed detail, and the next request works.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/e2e/real_server.h"

namespace mneme {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kVocab = 320;
constexpr uint32_t kContext = 4096;

class BadRequestTest : public ::testing::Test {
 protected:
  BadRequestTest() { EXPECT_TRUE(server_.Create("s").ok()); }
  // Whatever happened, the server goes on.
  ~BadRequestTest() override { EXPECT_TRUE(server_.StillServes()); }

  static void Expect(const grpc::Status& status, grpc::StatusCode code, v1::ErrorReason reason) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), Not(""));
    EXPECT_EQ(DetailOf(status).reason(), reason) << status.error_message();
    EXPECT_FALSE(DetailOf(status).retryable()) << status.error_message();
  }

  grpc::Status AppendIds(const std::vector<int32_t>& ids, const std::string& session = "s") {
    return server_.Append({IdsMessage(ids, session)}).status;
  }

  RealServer server_{"tests/golden/qwen3-hidden-target"};
};

TEST_F(BadRequestTest, ATokenIdBeyondTheVocabulary) {
  for (const int32_t id : {kVocab, std::numeric_limits<int32_t>::max(), -1}) {
    const grpc::Status status = AppendIds({1, id});
    Expect(status, grpc::StatusCode::INVALID_ARGUMENT, v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY);
    EXPECT_THAT(status.error_message(), HasSubstr("320"));
  }
  v1::GenerateRequest request = GreedyMessage("s", 1);
  request.mutable_token_ids()->add_ids(kVocab);
  Expect(server_.Generate(request).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY);
  EXPECT_EQ(server_.PositionOf("s"), 0);
}

TEST_F(BadRequestTest, EmptyInput) {
  Expect(AppendIds({}), grpc::StatusCode::INVALID_ARGUMENT, v1::ERROR_REASON_EMPTY_INPUT);
  Expect(server_.Append({}).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_EMPTY_INPUT);
  v1::AppendRequest header;
  header.set_session_id("s");
  Expect(server_.Append({header}).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_EMPTY_INPUT);
}

TEST_F(BadRequestTest, TextWithoutATokenizer) {
  v1::AppendRequest text;
  text.set_session_id("s");
  text.set_text("hello");
  Expect(server_.Append({text}).status, grpc::StatusCode::FAILED_PRECONDITION,
         v1::ERROR_REASON_NO_TOKENIZER);
  v1::GenerateRequest generate = GreedyMessage("s", 1);
  generate.set_text("hello");
  Expect(server_.Generate(generate).status, grpc::StatusCode::FAILED_PRECONDITION,
         v1::ERROR_REASON_NO_TOKENIZER);
}

TEST_F(BadRequestTest, GenerateOnAnEmptySessionWithoutInput) {
  Expect(server_.Generate(GreedyMessage("s", 1)).status, grpc::StatusCode::FAILED_PRECONDITION,
         v1::ERROR_REASON_EMPTY_SESSION);
  Expect(server_.Generate(GreedyMessage("", 1)).status, grpc::StatusCode::FAILED_PRECONDITION,
         v1::ERROR_REASON_EMPTY_SESSION);
}

TEST_F(BadRequestTest, AnUnknownSessionIsNeverCreated) {
  Expect(AppendIds({1}, "nobody"), grpc::StatusCode::NOT_FOUND, v1::ERROR_REASON_SESSION_NOT_FOUND);
  v1::GenerateRequest generate = GreedyMessage("nobody", 1);
  generate.mutable_token_ids()->add_ids(1);
  Expect(server_.Generate(generate).status, grpc::StatusCode::NOT_FOUND,
         v1::ERROR_REASON_SESSION_NOT_FOUND);
  EXPECT_TRUE(server_.Create("nobody").ok());
}

TEST_F(BadRequestTest, AStalePositionOrVersion) {
  ASSERT_TRUE(AppendIds(std::vector<int32_t>(20, 3)).ok());  // one chunk of 16 closes
  v1::AppendRequest position = IdsMessage({1}, "s");
  position.set_expected_position(19);
  const grpc::Status stale = server_.Append({position}).status;
  Expect(stale, grpc::StatusCode::ABORTED, v1::ERROR_REASON_POSITION_MISMATCH);
  EXPECT_EQ(DetailOf(stale).position(), 20);
  EXPECT_EQ(DetailOf(stale).version(), 1);
  v1::GenerateRequest version = GreedyMessage("s", 1);
  version.set_expected_version(0);
  const grpc::Status older = server_.Generate(version).status;
  Expect(older, grpc::StatusCode::ABORTED, v1::ERROR_REASON_VERSION_MISMATCH);
  EXPECT_EQ(DetailOf(older).version(), 1);
  position.set_expected_position(20);
  position.set_expected_version(1);
  EXPECT_TRUE(server_.Append({position}).status.ok());
}

TEST_F(BadRequestTest, ARequestIdUsedAgainWithAnotherPayload) {
  v1::AppendRequest append = IdsMessage({1, 2, 3}, "s");
  append.set_request_id("r");
  ASSERT_TRUE(server_.Append({append}).status.ok());
  EXPECT_TRUE(server_.Append({append}).status.ok()) << "a true retry is fine";
  EXPECT_EQ(server_.PositionOf("s"), 3);
  append.mutable_token_ids()->set_ids(1, 9);
  Expect(server_.Append({append}).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_REQUEST_ID_REUSED);
  v1::GenerateRequest generate = GreedyMessage("s", 2);
  generate.set_request_id("g");
  ASSERT_TRUE(server_.Generate(generate).status.ok());
  generate.set_max_tokens(3);
  Expect(server_.Generate(generate).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_REQUEST_ID_REUSED);
  EXPECT_EQ(server_.PositionOf("s"), 5);
}

TEST_F(BadRequestTest, SamplingValuesThatAreNegativeNanOrInfinite) {
  using Setter = void (v1::SamplingParams::*)(float);
  const std::vector<std::pair<Setter, std::vector<float>>> cases = {
      {&v1::SamplingParams::set_temperature, {-1, kNan, kInfinity, -kInfinity}},
      {&v1::SamplingParams::set_top_p, {-1, 0, 1.5, kNan, kInfinity}},
      {&v1::SamplingParams::set_min_p, {-1, 1.5, kNan, kInfinity}},
      {&v1::SamplingParams::set_repetition_penalty, {-1, 0, kNan, kInfinity}},
      {&v1::SamplingParams::set_presence_penalty, {kNan, kInfinity, -kInfinity}},
      {&v1::SamplingParams::set_frequency_penalty, {kNan, kInfinity, -kInfinity}},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    for (const float value : cases[i].second) {
      SCOPED_TRACE(i);
      SCOPED_TRACE(value);
      v1::GenerateRequest request = GreedyMessage("s", 1);
      request.mutable_token_ids()->add_ids(1);
      (request.mutable_sampling()->*cases[i].first)(value);
      Expect(server_.Generate(request).status, grpc::StatusCode::INVALID_ARGUMENT,
             v1::ERROR_REASON_INVALID_FIELD);
    }
  }
  v1::GenerateRequest bias = GreedyMessage("s", 1);
  bias.mutable_token_ids()->add_ids(1);
  (*bias.mutable_sampling()->mutable_logit_bias())[1] = kNan;
  Expect(server_.Generate(bias).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_EQ(server_.PositionOf("s"), 0);
}

TEST_F(BadRequestTest, ControlsThatAreNegativeNanOrInfinite) {
  using Setter = void (v1::LearningControls::*)(float);
  for (const Setter set :
       {&v1::LearningControls::set_clip_norm, &v1::LearningControls::set_decay,
        &v1::LearningControls::set_lr_scale, &v1::LearningControls::set_max_relative_norm}) {
    for (const float value : {-1.0F, kNan, kInfinity, -kInfinity}) {
      v1::LearningControls controls;
      (controls.*set)(value);
      Expect(server_.Create("bad", controls), grpc::StatusCode::INVALID_ARGUMENT,
             v1::ERROR_REASON_INVALID_FIELD);
      grpc::ClientContext context;
      v1::UpdateSessionRequest update;
      update.mutable_session()->set_session_id("s");
      *update.mutable_session()->mutable_controls() = controls;
      update.mutable_update_mask()->add_paths("controls");
      v1::Session session;
      Expect(server_.sessions().UpdateSession(&context, update, &session),
             grpc::StatusCode::INVALID_ARGUMENT, v1::ERROR_REASON_INVALID_FIELD);
    }
  }
  v1::LearningControls full_decay;
  full_decay.set_decay(1);
  Expect(server_.Create("bad", full_decay), grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_TRUE(server_.Create("bad").ok()) << "a refused session must not exist";
}

TEST_F(BadRequestTest, MoreTokensThanTheContextHolds) {
  v1::GenerateRequest request = GreedyMessage("s", kContext);
  request.mutable_token_ids()->add_ids(1);
  Expect(server_.Generate(request).status, grpc::StatusCode::OUT_OF_RANGE,
         v1::ERROR_REASON_CONTEXT_EXCEEDED);
  Expect(AppendIds(std::vector<int32_t>(kContext + 1, 1)), grpc::StatusCode::OUT_OF_RANGE,
         v1::ERROR_REASON_CONTEXT_EXCEEDED);
  request.set_max_tokens(0);
  Expect(server_.Generate(request).status, grpc::StatusCode::INVALID_ARGUMENT,
         v1::ERROR_REASON_INVALID_FIELD);
}

TEST_F(BadRequestTest, AMessageLargerThanTheLimit) {
  EXPECT_EQ(AppendIds(std::vector<int32_t>((4 << 20) + 1, 1)).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(BadRequestTest, AClientThatDisconnectsInTheMiddleOfAppend) {
  grpc::ClientContext context;
  const auto stream = server_.inference().Append(&context);
  ASSERT_TRUE(stream->Write(IdsMessage({1, 2, 3}, "s")));
  v1::AppendProgress progress;
  ASSERT_TRUE(stream->Read(&progress));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(AppendIds({4}).ok());  // waits for its turn, so the other one has ended
  EXPECT_EQ(server_.PositionOf("s"), 4) << "what was logged stays";
}

TEST_F(BadRequestTest, AClientThatDisconnectsInTheMiddleOfGenerate) {
  grpc::ClientContext context;
  v1::GenerateRequest request = GreedyMessage("s", kContext - 100);
  request.mutable_token_ids()->add_ids(1);
  const auto stream = server_.inference().Generate(&context, request);
  v1::GenerateEvent event;
  ASSERT_TRUE(stream->Read(&event));
  context.TryCancel();
  stream->Finish();
  EXPECT_TRUE(AppendIds({4}).ok());
  EXPECT_LT(server_.PositionOf("s"), kContext - 100);
}

}  // namespace
}  // namespace mneme
