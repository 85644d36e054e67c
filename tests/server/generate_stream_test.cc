#include <gmock/gmock.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/server_fixture.h"

namespace mneme {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

class GenerateStreamTest : public ServerFixture {
 protected:
  void Open() { stream_ = inference_->Generate(&context_, message_); }

  grpc::Status Finish() {
    v1::GenerateEvent event;
    while (stream_->Read(&event)) events_.push_back(event);
    return stream_->Finish();
  }

  grpc::ClientContext context_;
  v1::GenerateRequest message_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateEvent>> stream_;
  std::vector<v1::GenerateEvent> events_;
};

GeneratedToken Token(int32_t id, const std::string& text) { return {id, text, std::nullopt, {}}; }

TEST_F(GenerateStreamTest, CarriesTheRequestAndItsEvents) {
  message_.set_session_id("s");
  message_.set_request_id("r");
  message_.mutable_token_ids()->add_ids(5);
  message_.mutable_sampling()->set_temperature(0.5F);
  message_.mutable_sampling()->set_seed(9);
  (*message_.mutable_sampling()->mutable_logit_bias())[3] = -1.5F;
  message_.set_max_tokens(8);
  message_.set_min_tokens(2);
  message_.add_stop_token_ids(7);
  message_.set_ignore_eos(true);
  message_.set_logprobs(1);
  message_.set_learn(false);
  Open();
  AcceptedRequest request = engine_.NextRequest();
  const GenerateRequest& generate = *request.generate;
  EXPECT_EQ(generate.header.session.id, "s");
  EXPECT_EQ(generate.header.request_id, "r");
  EXPECT_EQ(generate.header.deadline, absl::InfiniteFuture());
  EXPECT_THAT(generate.input.ids, ElementsAre(5));
  EXPECT_EQ(generate.sampling.temperature, 0.5F);
  EXPECT_EQ(generate.sampling.seed, 9);
  EXPECT_TRUE(generate.seed_given);
  EXPECT_THAT(generate.sampling.logit_bias, ElementsAre(Pair(3, -1.5F)));
  EXPECT_EQ(generate.max_tokens, 8);
  EXPECT_EQ(generate.min_tokens, 2);
  EXPECT_THAT(generate.stop_token_ids, ElementsAre(7));
  EXPECT_TRUE(generate.ignore_eos);
  EXPECT_EQ(generate.logprobs, 1);
  EXPECT_FALSE(generate.learn);

  request.channel->PushEvent(GeneratedToken{6, "a", -0.5F, {{6, -0.5F}}});
  request.channel->PushEvent(Token(7, ""));
  Finished finished;
  finished.reason = FinishReason::kStop;
  finished.prompt_tokens = 1;
  finished.completion_tokens = 2;
  finished.position = 3;
  request.channel->PushEvent(finished);
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  ASSERT_TRUE(Finish().ok());
  ASSERT_EQ(events_.size(), 3);
  EXPECT_EQ(events_[0].token().id(), 6);
  EXPECT_EQ(events_[0].token().text(), "a");
  EXPECT_EQ(events_[0].token().logprob(), -0.5F);
  EXPECT_EQ(events_[0].token().top_logprobs(0).id(), 6);
  EXPECT_FALSE(events_[1].token().has_logprob());
  EXPECT_EQ(events_[2].finished().reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(events_[2].finished().matched_stop_token_id(), 7);
  EXPECT_EQ(events_[2].finished().usage().completion_tokens(), 2);
  EXPECT_EQ(events_[2].finished().position(), 3);
}

TEST_F(GenerateStreamTest, TakesWhatIsAbsentFromTheModelsDefaults) {
  engine_.defaults_.temperature = 0.7F;
  engine_.defaults_.top_k = 20;
  message_.mutable_sampling()->set_top_k(5);
  Open();
  AcceptedRequest request = engine_.NextRequest();
  EXPECT_EQ(request.generate->sampling.temperature, 0.7F);
  EXPECT_EQ(request.generate->sampling.top_k, 5);
  EXPECT_EQ(request.generate->sampling.top_p, 1);
  EXPECT_FALSE(request.generate->seed_given);
  EXPECT_FALSE(request.generate->max_tokens.has_value());
  EXPECT_TRUE(request.generate->learn);
  EXPECT_EQ(request.generate->header.session.id, "");
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_TRUE(Finish().ok());
}

TEST_F(GenerateStreamTest, RefusesBadFields) {
  const auto field = [this](const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto stream = inference_->Generate(&context, request);
    v1::GenerateEvent event;
    EXPECT_FALSE(stream->Read(&event));
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    return DetailOf(status).field();
  };
  v1::GenerateRequest no_tokens;
  no_tokens.set_max_tokens(0);
  EXPECT_EQ(field(no_tokens), "max_tokens");
  v1::GenerateRequest min_over_max;
  min_over_max.set_max_tokens(1);
  min_over_max.set_min_tokens(2);
  EXPECT_EQ(field(min_over_max), "min_tokens");
  v1::GenerateRequest logprobs;
  logprobs.set_logprobs(21);
  EXPECT_EQ(field(logprobs), "logprobs");
  v1::GenerateRequest stop_token;
  stop_token.add_stop_token_ids(100);
  EXPECT_EQ(field(stop_token), "stop_token_ids");
  v1::GenerateRequest bias;
  (*bias.mutable_sampling()->mutable_logit_bias())[100] = 1;
  EXPECT_EQ(field(bias), "sampling.logit_bias");
  v1::GenerateRequest empty;
  empty.mutable_token_ids();
  EXPECT_EQ(field(empty), "token_ids");
}

TEST_F(GenerateStreamTest, StopStringsNeedATokenizer) {
  message_.add_stop("end");
  Open();
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(GenerateStreamTest, ASlowReaderFillsItsQueueAndLosesNothing) {
  constexpr int kTokens = 400;
  Open();
  AcceptedRequest request = engine_.NextRequest();
  const std::string text(100'000, 'x');  // beyond what the transport buffers
  for (int i = 0; i < kTokens; ++i) request.channel->PushEvent(Token(i % 100, text));
  EXPECT_TRUE(request.channel->EventsFull());
  EXPECT_TRUE(StillServes());  // others are not held up
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_TRUE(Finish().ok());
  ASSERT_EQ(events_.size(), kTokens);
  EXPECT_EQ(events_.back().token().id(), (kTokens - 1) % 100);
}

TEST_F(GenerateStreamTest, AReaderThatIsCutOffForItsSlownessHoldsNoCall) {
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
  Open();
  AcceptedRequest request = engine_.NextRequest();
  const std::string text(100'000, 'x');  // beyond what the transport buffers
  for (int i = 0; i < 100; ++i) request.channel->PushEvent(Token(1, text));
  request.channel->PushEvent(RequestEnd{
      MakeError(absl::StatusCode::kCancelled, "slow", {.reason = ErrorReason::kSlowReader})});
  // Nothing is read: the server ends the call by itself, and gives up the channel.
  while (request.channel.use_count() > 1) std::this_thread::yield();
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_LT(events_.size(), 100u);
  EXPECT_TRUE(StillServes());
}

TEST_F(GenerateStreamTest, ARequestThatIsDoneDoesNotWaitForEverForItsReader) {
  engine_.options_.slow_reader_limit = absl::Milliseconds(1);
  Open();
  AcceptedRequest request = engine_.NextRequest();
  const std::string text(100'000, 'x');  // beyond what the transport buffers
  for (int i = 0; i < 100; ++i) request.channel->PushEvent(Token(1, text));
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  while (request.channel.use_count() > 1) std::this_thread::yield();
  EXPECT_FALSE(Finish().ok());
  EXPECT_LT(events_.size(), 100u);
  EXPECT_TRUE(StillServes());
}

TEST_F(GenerateStreamTest, ADisconnectInTheMiddleCancelsTheRequest) {
  Open();
  AcceptedRequest request = engine_.NextRequest();
  request.channel->PushEvent(Token(1, "a"));
  v1::GenerateEvent event;
  ASSERT_TRUE(stream_->Read(&event));
  context_.TryCancel();
  engine_.Await([&] { return request.channel->cancelled().has_value(); });
  for (int i = 0; i < 1000; ++i) request.channel->PushEvent(Token(1, "lost"));
  request.channel->PushEvent(RequestEnd{*request.channel->cancelled()});
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(StillServes());
}

TEST_F(GenerateStreamTest, TheCallersDeadlineReachesTheEngineAndEndsTheCall) {
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
  Open();
  AcceptedRequest request = engine_.NextRequest();
  EXPECT_LT(request.generate->header.deadline, absl::Now() + absl::Seconds(10));
  engine_.Await([&] { return request.channel->cancelled().has_value(); });
  request.channel->PushEvent(RequestEnd{*request.channel->cancelled()});
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(GenerateStreamTest, ShutdownEndsARunningStreamWithAStatus) {
  Open();
  AcceptedRequest request = engine_.NextRequest();
  engine_.Drain(absl::ZeroDuration());
  server_->Shutdown(absl::Seconds(5));
  const grpc::Status status = Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_DRAINING);
  EXPECT_TRUE(DetailOf(status).retryable());
}

TEST_F(GenerateStreamTest, WhatHasNotEndedWhenTheServerGoesIsUnavailable) {
  Open();
  AcceptedRequest request = engine_.NextRequest();
  std::thread engine([&] {
    engine_.Await([&] { return request.channel->cancelled().has_value(); });
    request.channel->PushEvent(RequestEnd{*request.channel->cancelled()});
  });
  server_->Shutdown(absl::ZeroDuration());
  engine.join();
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(GenerateStreamTest, CallsThatComeWhileTheServerWaitsForOthersAreAnswered) {
  Open();
  AcceptedRequest request = engine_.NextRequest();
  engine_.RefuseRequests(
      MakeError(absl::StatusCode::kUnavailable, "draining", {.reason = ErrorReason::kDraining}));
  std::thread shutdown([this] { server_->Shutdown(absl::Seconds(60)); });
  for (int i = 0; i < 100; ++i) {
    grpc::ClientContext context;
    const auto late = inference_->Generate(&context, message_);
    v1::GenerateEvent event;
    EXPECT_FALSE(late->Read(&event));
    const grpc::Status status = late->Finish();
    ASSERT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    ASSERT_EQ(DetailOf(status).reason(), v1::ERROR_REASON_DRAINING);
  }
  request.channel->PushEvent(RequestEnd{absl::OkStatus()});
  EXPECT_TRUE(Finish().ok()) << "it had the time that it needed";
  shutdown.join();
}

// Calls come as fast as they can while the server goes: each is served, or finds it unavailable.
TEST_F(GenerateStreamTest, NoCallIsCancelledBecauseTheServerGoes) {
  std::vector<std::thread> clients;
  for (int client = 0; client < 4; ++client) {
    clients.emplace_back([this] {
      grpc::StatusCode code = grpc::StatusCode::OK;
      while (code != grpc::StatusCode::UNAVAILABLE) {
        code = CreateSession("s").error_code();
        ASSERT_NE(code, grpc::StatusCode::CANCELLED);
      }
    });
  }
  while (!StillServes()) {
  }
  server_->Shutdown(absl::ZeroDuration());
  for (std::thread& client : clients) client.join();
}

TEST_F(GenerateStreamTest, AnOversizedMessageIsResourceExhausted) {
  message_.set_text(std::string(kMaxMessageBytes + 1, 'x'));
  Open();
  EXPECT_EQ(Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(StillServes());
}

// Every order of tokens, end, cancellation and disconnection, many times over: under the sanitizers
// this is the test of the streams' lifetimes.
TEST_F(GenerateStreamTest, SurvivesCancellationAtAnyMoment) {
  constexpr int kClients = 4;
  constexpr int kCallsOfEach = 50;
  std::thread engine([this] {
    for (int i = 0; i < kClients * kCallsOfEach; ++i) {
      const AcceptedRequest request = engine_.NextRequest();
      for (int j = 0; j < 4 + i % 13; ++j) request.channel->PushEvent(Token(j, "t"));
      if (i % 3 == 0) engine_.Await([&] { return request.channel->cancelled().has_value(); });
      request.channel->PushEvent(RequestEnd{request.channel->cancelled().value_or(
          i % 2 == 0 ? absl::OkStatus() : absl::AbortedError("aborted"))});
      request.channel->PushEvent(Token(1, "after the end"));
    }
  });
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([this, client] {
      for (int call = 0; call < kCallsOfEach; ++call) {
        grpc::ClientContext context;
        const auto stream = inference_->Generate(&context, v1::GenerateRequest());
        v1::GenerateEvent event;
        // One at least: a call that is cancelled at once need not reach the server.
        for (int i = 0; i <= (client + call) % 4; ++i) EXPECT_TRUE(stream->Read(&event));
        context.TryCancel();
        stream->Finish();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  engine.join();
  EXPECT_TRUE(StillServes());
}

}  // namespace
}  // namespace mneme
