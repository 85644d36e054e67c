#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/error.h"
#include "server/convert_inference.h"
#include "server/convert_session.h"
#include "server/convert_status.h"
#include "tests/engine/tokenizer/fixtures.h"
#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kFormat[] =
    R"({"name": "toy", "roles": {"user": {"prefix": "u", "suffix": "."},
                                 "assistant": {"prefix": "a", "suffix": "<s>."}}})";
constexpr int32_t kSpecial = 257;  // "<s>"

class InputTest : public ::testing::Test {
 protected:
  InputTest()
      : tokenizer_(Tokenizer::FromJson(SmallTokenizerJson().dump(),
                                       R"({"bos_token": "<s>", "add_bos_token": true})")
                       .value()),
        turns_(TurnEncoder::Create(*tokenizer_, TurnFormat::FromJson(kFormat).value()).value()) {}

  InputCodec codec() const { return {tokenizer_.get(), &turns_, 300}; }

  absl::StatusOr<GenerateRequest> Generate(const v1::GenerateRequest& request) const {
    return ToGenerateRequest(request, codec(), {}, "t", absl::InfiniteFuture());
  }

  std::unique_ptr<const Tokenizer> tokenizer_;
  TurnEncoder turns_;
};

TEST_F(InputTest, TextIsTokenizedAndMayBeginWithBos) {
  v1::AppendRequest message;
  message.set_text("ab<s>");
  auto piece = ToInputPiece(message, codec());
  ASSERT_TRUE(piece.ok()) << piece.status();
  EXPECT_THAT(piece->ids, ElementsAre(256, '<', 's', '>'));
  EXPECT_EQ(piece->bos, kSpecial);
  EXPECT_TRUE(piece->turn_end.empty());
  EXPECT_FALSE(piece->opens_turn);
  message.set_parse_special(true);
  EXPECT_THAT(ToInputPiece(message, codec())->ids, ElementsAre(256, kSpecial));
}

TEST_F(InputTest, TokenIdsAreTakenAsTheyAre) {
  v1::AppendRequest message;
  message.mutable_token_ids()->add_ids(299);
  const auto piece = ToInputPiece(message, codec());
  ASSERT_TRUE(piece.ok());
  EXPECT_THAT(piece->ids, ElementsAre(299));
  EXPECT_FALSE(piece->bos.has_value());
}

TEST_F(InputTest, MessagesAreWrittenInTheTurnFormat) {
  v1::AppendRequest message;
  v1::Message* turn = message.mutable_messages()->add_messages();
  turn->set_role("user");
  turn->set_content("<s>");
  const auto piece = ToInputPiece(message, codec());
  ASSERT_TRUE(piece.ok()) << piece.status();
  EXPECT_THAT(piece->ids, ElementsAre('u', '<', 's', '>', '.'));
  EXPECT_THAT(piece->turn_end, ElementsAre(kSpecial, '.'));
  EXPECT_FALSE(piece->opens_turn);
}

TEST_F(InputTest, AGenerationsMessagesEndWithAnOpenAssistantTurn) {
  v1::GenerateRequest request;
  v1::Message* turn = request.mutable_messages()->add_messages();
  turn->set_role("user");
  turn->set_content("x");
  const auto generate = Generate(request);
  ASSERT_TRUE(generate.ok()) << generate.status();
  EXPECT_THAT(generate->input.ids, ElementsAre('u', 'x', '.', 'a'));
  EXPECT_TRUE(generate->input.opens_turn);
  EXPECT_THAT(generate->input.turn_end, ElementsAre(kSpecial, '.'));
}

TEST_F(InputTest, AnUnknownRoleAndEmptyInputAreInvalid) {
  v1::GenerateRequest request;
  request.mutable_messages()->add_messages()->set_role("narrator");
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(request).status()));
  request.mutable_messages()->clear_messages();
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(request).status()));
  request.set_text("");
  EXPECT_TRUE(absl::IsInvalidArgument(Generate(request).status()));
}

TEST_F(InputTest, TopLogprobsAndStopTokensAreSpelledOut) {
  v1::Token token;
  ToProto(GeneratedToken{256, "ab", -1.0F, {{256, -1.0F}, {kSpecial, -2.0F}, {299, -3.0F}}},
          codec(), &token);
  EXPECT_EQ(token.top_logprobs(0).text(), "ab");
  EXPECT_EQ(token.top_logprobs(1).text(), "<s>");
  EXPECT_EQ(token.top_logprobs(2).text(), "");  // the model's vocabulary is larger

  Finished finished;
  finished.reason = FinishReason::kStop;
  v1::Finished by_token;
  ToProto(finished, kSpecial, codec(), &by_token);
  EXPECT_EQ(by_token.matched_stop(), "<s>");
  EXPECT_EQ(by_token.matched_stop_token_id(), kSpecial);
  finished.matched_stop = "end";
  v1::Finished by_string;
  ToProto(finished, 'd', codec(), &by_string);
  EXPECT_EQ(by_string.matched_stop(), "end");
  EXPECT_FALSE(by_string.has_matched_stop_token_id());
  finished.reason = FinishReason::kLength;
  v1::Finished by_length;
  ToProto(finished, 'd', codec(), &by_length);
  EXPECT_EQ(by_length.reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_FALSE(by_length.has_matched_stop());
}

TEST_F(InputTest, TokenizeAndDetokenizeAreInverse) {
  v1::TokenizeRequest request;
  request.set_text("ab<s>");
  request.set_parse_special(true);
  const auto ids = Tokenize(request, codec());
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(ids->ids(), ElementsAre(256, kSpecial));
  v1::DetokenizeRequest back;
  *back.mutable_ids() = ids->ids();
  EXPECT_EQ(Detokenize(back, codec())->text(), "ab<s>");
  back.add_ids(258);  // in the model's vocabulary, not in the tokenizer's
  EXPECT_TRUE(absl::IsInvalidArgument(Detokenize(back, codec()).status()));
}

TEST(ConvertStatusTest, OkStaysOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

TEST(ConvertStatusTest, CarriesTheEnginesDetail) {
  const grpc::Status status = ToGrpcStatus(MakeError(
      absl::StatusCode::kResourceExhausted, "the queue is full",
      {.reason = ErrorReason::kQueueFull, .retryable = true, .position = 3, .version = 4}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full");
  const v1::ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_QUEUE_FULL);
  EXPECT_TRUE(detail.retryable());
  EXPECT_EQ(detail.position(), 3);
  EXPECT_EQ(detail.version(), 4);
  EXPECT_EQ(detail.retry_delay().seconds(), 1);
}

TEST(ConvertStatusTest, MemoryThatWillNeverDoIsTooLarge) {
  const auto reason = [](bool retryable) {
    return DetailOf(ToGrpcStatus(
                        MakeError(absl::StatusCode::kResourceExhausted, "memory",
                                  {.reason = ErrorReason::kOutOfMemory, .retryable = retryable})))
        .reason();
  };
  EXPECT_EQ(reason(true), v1::ERROR_REASON_MEMORY_EXHAUSTED);
  EXPECT_EQ(reason(false), v1::ERROR_REASON_REQUEST_TOO_LARGE);
}

TEST(ConvertStatusTest, WhatTheDiskRefusesSaysSo) {
  const std::vector<std::pair<ErrorReason, v1::ErrorReason>> reasons = {
      {ErrorReason::kStorageFull, v1::ERROR_REASON_STORAGE_FULL},
      {ErrorReason::kStorageFailed, v1::ERROR_REASON_STORAGE_FAILED},
      {ErrorReason::kDataLoss, v1::ERROR_REASON_DATA_LOSS},
      {ErrorReason::kOtherModel, v1::ERROR_REASON_OTHER_MODEL}};
  for (const auto& [reason, expected] : reasons) {
    const absl::Status status =
        MakeError(absl::StatusCode::kUnavailable, "the disk", {.reason = reason});
    EXPECT_EQ(DetailOf(ToGrpcStatus(status)).reason(), expected);
  }
}

TEST(ConvertSessionTest, ResidenceIsStateAndTier) {
  const std::vector<std::tuple<Residence, v1::SessionState, v1::Tier>> all = {
      {Residence::kDevice, v1::SESSION_STATE_ACTIVE, v1::TIER_DEVICE},
      {Residence::kRestoring, v1::SESSION_STATE_RESTORING, v1::TIER_DEVICE},
      {Residence::kDisk, v1::SESSION_STATE_PARKED, v1::TIER_DISK}};
  for (const auto& [residence, state, tier] : all) {
    v1::Session session;
    ToProto(SessionInfo{.residence = residence}, ModelDescription(), &session);
    EXPECT_EQ(session.state(), state);
    EXPECT_EQ(session.tier(), tier);
  }
}

TEST(ConvertStatusTest, ARequestErrorKeepsItsFieldWhenThePositionBecomesKnown) {
  const absl::Status status = WithPosition(InvalidField("stop", "bad"), 5, 6);
  const v1::ErrorDetail detail = DetailOf(ToGrpcStatus(status));
  EXPECT_EQ(detail.reason(), v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_EQ(detail.field(), "stop");
  EXPECT_EQ(detail.position(), 5);
  EXPECT_EQ(detail.version(), 6);
}

TEST(ConvertStatusTest, APlainStatusSaysWhatItsCodeSays) {
  EXPECT_EQ(DetailOf(ToGrpcStatus(absl::DataLossError("x"))).reason(), v1::ERROR_REASON_DATA_LOSS);
  EXPECT_EQ(DetailOf(ToGrpcStatus(absl::InternalError("x"))).reason(), v1::ERROR_REASON_INTERNAL);
}

TEST(ConvertTimeTest, SplitsSecondsAndNanoseconds) {
  google::protobuf::Timestamp time;
  ToProto(absl::FromUnixSeconds(5) + absl::Nanoseconds(7), &time);
  EXPECT_EQ(time.seconds(), 5);
  EXPECT_EQ(time.nanos(), 7);
  google::protobuf::Duration duration;
  ToProto(absl::Milliseconds(1500), &duration);
  EXPECT_EQ(duration.seconds(), 1);
  EXPECT_EQ(duration.nanos(), 500'000'000);
}

}  // namespace
}  // namespace mneme
