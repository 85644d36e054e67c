#include <gmock/gmock.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AppendStreamTest : public ServerFixture {
 protected:
  using Stream = grpc::ClientReaderWriter<v1::AppendRequest, v1::AppendProgress>;

  void Open() { stream_ = inference_->Append(&context_); }

  static v1::AppendRequest Ids(const std::vector<uint32_t>& ids, const std::string& session = "") {
    v1::AppendRequest message;
    message.set_session_id(session);
    message.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    return message;
  }

  // The end of an Append whose only messages are these.
  grpc::Status Send(const std::vector<v1::AppendRequest>& messages) {
    grpc::ClientContext context;
    const auto stream = inference_->Append(&context);
    for (const v1::AppendRequest& message : messages) stream->Write(message);
    stream->WritesDone();
    return stream->Finish();
  }

  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
};

absl::Status Cancelled() {
  return MakeError(absl::StatusCode::kCancelled, "cancelled", {.reason = ErrorReason::kCancelled});
}

TEST_F(AppendStreamTest, CarriesInputToTheEngineAndProgressBack) {
  Open();
  v1::AppendRequest first = Ids({1, 2, 3}, "s");
  first.set_request_id("r");
  first.set_expected_position(7);
  first.set_return_logprobs(true);
  ASSERT_TRUE(stream_->Write(first));
  AcceptedRequest request = engine_.NextRequest();
  EXPECT_EQ(request.append->header.session, (SessionKey{"default", "s"}));
  EXPECT_EQ(request.append->header.request_id, "r");
  EXPECT_EQ(request.append->header.expected_position, 7);
  EXPECT_EQ(request.append->header.expected_version, std::nullopt);
  EXPECT_TRUE(request.append->return_logprobs);

  std::optional<InputPiece> piece;
  engine_.Await([&] { return (piece = request.channel->PopInput()).has_value(); });
  EXPECT_THAT(piece->ids, ElementsAre(1, 2, 3));
  EXPECT_FALSE(piece->bos.has_value());
  request.channel->PushEvent(AppendProgress{10, 1, 1, 5.5, {-1.5F, -2.5F}});
  v1::AppendProgress progress;
  ASSERT_TRUE(stream_->Read(&progress));
  EXPECT_EQ(progress.position(), 10);
  EXPECT_EQ(progress.chunks_closed(), 1);
  EXPECT_THAT(progress.logprobs(), ElementsAre(-1.5F, -2.5F));

  stream_->WritesDone();
  engine_.Await([&] { return request.channel->InputEnded(); });
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_FALSE(stream_->Read(&progress));
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(AppendStreamTest, TakesAHeaderFirstAndInputLater) {
  Open();
  v1::AppendRequest header;
  header.set_session_id("s");
  stream_->Write(header);
  const AcceptedRequest request = engine_.NextRequest();
  stream_->Write(Ids({4}));
  engine_.Await([&] { return request.channel->PopInput().has_value(); });
  stream_->WritesDone();
  engine_.Await([&] { return request.channel->InputEnded(); });
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(AppendStreamTest, ReadsOnlyAsFastAsTheEngineTakesInput) {
  Open();
  const std::vector<uint32_t> full(RequestChannel::kMaxQueuedInputTokens, 1);
  stream_->Write(Ids(full, "s"));
  stream_->Write(Ids(full));
  stream_->Write(Ids({2}));
  stream_->WritesDone();
  AcceptedRequest request = engine_.NextRequest();
  engine_.Await([&] { return engine_.notifications() > 0; });
  ASSERT_TRUE(StillServes());  // a round trip, in which the server could have read more
  EXPECT_EQ(engine_.notifications(), 1) << "the second message was read while the queue was full";
  EXPECT_FALSE(request.channel->WantsInput());
  std::vector<size_t> sizes;
  engine_.Await([&] {
    while (auto piece = request.channel->PopInput()) sizes.push_back(piece->ids.size());
    return request.channel->InputEnded();
  });
  EXPECT_THAT(sizes, ElementsAre(full.size(), full.size(), 1U));
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(AppendStreamTest, ADisconnectInTheMiddleCancelsTheRequest) {
  Open();
  stream_->Write(Ids({1}, "s"));
  AcceptedRequest request = engine_.NextRequest();
  context_.TryCancel();
  engine_.Await([&] { return request.channel->cancelled().has_value(); });
  EXPECT_TRUE(absl::IsCancelled(*request.channel->cancelled()));
  request.channel->PushEvent(AppendProgress{});  // nobody reads it
  request.channel->PushEvent(RequestEnd{Cancelled()});
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  request.channel->PushEvent(AppendProgress{});  // after the end: must be harmless
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, ADisconnectBeforeTheFirstMessageLeavesNothing) {
  Open();
  context_.TryCancel();
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, ABadLaterMessageEndsTheRequestWithItsReasonAndThePosition) {
  Open();
  stream_->Write(Ids({1}, "s"));
  AcceptedRequest request = engine_.NextRequest();
  stream_->Write(Ids({100}));
  engine_.Await([&] { return request.channel->cancelled().has_value(); });
  request.channel->PushEvent(RequestEnd{WithPosition(*request.channel->cancelled(), 1, 0)});
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("token id 100 is beyond the vocabulary of 100"));
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY);
  EXPECT_EQ(DetailOf(status).field(), "token_ids");
  EXPECT_EQ(DetailOf(status).position(), 1);
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, LaterMessagesMayNotNameAnotherSessionOrRequest) {
  v1::AppendRequest other_session = Ids({1}, "other");
  v1::AppendRequest other_request = Ids({1});
  other_request.set_request_id("other");
  v1::AppendRequest precondition = Ids({1});
  precondition.set_expected_version(1);
  v1::AppendRequest nothing;
  for (const auto& later : {other_session, other_request, precondition, nothing}) {
    grpc::ClientContext context;
    const auto stream = inference_->Append(&context);
    stream->Write(Ids({1}, "s"));
    AcceptedRequest request = engine_.NextRequest();
    stream->Write(later);
    engine_.Await([&] { return request.channel->cancelled().has_value(); });
    request.channel->PushEvent(RequestEnd{*request.channel->cancelled()});
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << later.DebugString();
  }
}

TEST_F(AppendStreamTest, RefusesABadFirstMessageWithoutTroublingTheEngine) {
  const auto reason = [this](const std::vector<v1::AppendRequest>& messages) {
    const grpc::Status status = Send(messages);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return DetailOf(status).reason();
  };
  v1::AppendRequest bad_id = Ids({1}, "s");
  bad_id.set_request_id("two words");
  EXPECT_EQ(reason({Ids({1})}), v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_EQ(reason({bad_id}), v1::ERROR_REASON_INVALID_FIELD);
  EXPECT_EQ(reason({Ids({}, "s")}), v1::ERROR_REASON_EMPTY_INPUT);
  EXPECT_EQ(reason({Ids({0, 100}, "s")}), v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY);
  EXPECT_EQ(reason({Ids({4294967295U}, "s")}), v1::ERROR_REASON_TOKEN_OUT_OF_VOCABULARY);
  EXPECT_EQ(reason({}), v1::ERROR_REASON_EMPTY_INPUT);
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, AStreamOfAHeaderAloneIsEmptyInput) {
  Open();
  v1::AppendRequest header;
  header.set_session_id("s");
  stream_->Write(header);
  AcceptedRequest request = engine_.NextRequest();
  stream_->WritesDone();
  engine_.Await([&] { return request.channel->cancelled().has_value(); });
  request.channel->PushEvent(RequestEnd{*request.channel->cancelled()});
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_EMPTY_INPUT);
}

TEST_F(AppendStreamTest, TextAndMessagesNeedATokenizer) {
  v1::AppendRequest text;
  text.set_session_id("s");
  text.set_text("hello");
  v1::AppendRequest messages;
  messages.set_session_id("s");
  messages.mutable_messages()->add_messages()->set_role("user");
  for (const auto& message : {text, messages}) {
    const grpc::Status status = Send({message});
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_NO_TOKENIZER);
  }
}

TEST_F(AppendStreamTest, AnOversizedMessageIsResourceExhausted) {
  EXPECT_EQ(Send({Ids(std::vector<uint32_t>(kMaxMessageBytes + 1, 1), "s")}).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, AnOversizedLaterMessageIsResourceExhausted) {
  Open();
  stream_->Write(Ids({1}, "s"));
  AcceptedRequest request = engine_.NextRequest();
  stream_->Write(Ids(std::vector<uint32_t>(kMaxMessageBytes + 1, 1)));
  engine_.Await([&] {
    while (request.channel->PopInput()) {
    }
    return request.channel->cancelled().has_value() || request.channel->InputEnded();
  });
  request.channel->PushEvent(RequestEnd{Cancelled()});
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(StillServes());
}

TEST_F(AppendStreamTest, ARefusalInsideTheCallReachesTheClient) {
  engine_.RefuseRequests(MakeError(
      absl::StatusCode::kAborted, "position is 5",
      {.reason = ErrorReason::kPositionMismatch, .retryable = false, .position = 5, .version = 2}));
  const grpc::Status status = Send({Ids({1}, "s")});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_POSITION_MISMATCH);
  EXPECT_EQ(DetailOf(status).position(), 5);
  EXPECT_EQ(DetailOf(status).version(), 2);
}

}  // namespace
}  // namespace mneme
