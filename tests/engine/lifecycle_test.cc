// Invariant: every accepted request ends with exactly one terminal status, and leaves its session
// at a position of its log (DESIGN §2.8, §2.11).

#include <atomic>

#include "gtest/gtest.h"
#include "tests/engine/failing_backend.h"
#include "tests/engine/loop_harness.h"

namespace mneme {
namespace {

class LifecycleTest : public testing::Test {
 protected:
  static std::filesystem::path Dir() { return Golden("qwen3-window-yarn").dir(); }

  // The session's state is that of its log: a fresh one that reads the log goes on alike.
  void ExpectConsistent(const std::string& id) {
    const std::vector<int32_t> log = (*engine_.loop().FindSession({"test", id}))->log();
    engine_.Create("fresh");
    if (!log.empty()) {
      ASSERT_TRUE(EndedOk(*engine_.Append("fresh", log)));
    }
    const auto text = RandomTokens(20, 4);
    const auto actual = engine_.Append(id, text, /*logprobs=*/true);
    const auto expected = engine_.Append("fresh", text, /*logprobs=*/true);
    EXPECT_TRUE(EndedOk(*actual));
    EXPECT_LT(MaxDifference(actual->AppendLogProbs(), expected->AppendLogProbs()), 1e-4);
    EXPECT_EQ(engine_.Info(id).version, engine_.Info("fresh").version);
  }

  LoopHarness engine_{Dir()};
};

enum class Phase { kQueued, kPrefill, kDecode, kProbe, kWaitingForInput };

struct Interruption {
  Phase phase;
  bool by_deadline;
};

class InterruptionTest : public LifecycleTest, public testing::WithParamInterface<Interruption> {
 protected:
  // Starts the request "r" and brings it to the phase.
  std::unique_ptr<Call> Start(RequestHeader header) {
    GenerateRequest request = GreedyRequest(30, RandomTokens(150, 2));
    request.header = header;
    request.learn = GetParam().phase != Phase::kProbe;
    std::unique_ptr<Call> call;
    switch (GetParam().phase) {
      case Phase::kQueued:
        before_ = engine_.StartGenerate("s", GreedyRequest(30));
        call = engine_.StartGenerate("s", request);
        engine_.StepUntilTokens(before_.get(), 3);
        break;
      case Phase::kPrefill:
        call = engine_.StartGenerate("s", request);
        engine_.Step();
        break;
      case Phase::kDecode:
      case Phase::kProbe:
        call = engine_.StartGenerate("s", request);
        engine_.StepUntilTokens(call.get(), 7);
        break;
      case Phase::kWaitingForInput:
        call = engine_.StartAppendStream("s", {.header = header});
        call->channel->PushInput({.ids = RandomTokens(21, 3)});
        engine_.RunAll({call.get()});
        break;
    }
    EXPECT_EQ(call->ends, 0);
    return call;
  }

  std::unique_ptr<Call> before_;
};

std::string InterruptionName(const testing::TestParamInfo<Interruption>& info) {
  static const std::vector<std::string> phases = {"Queued", "Prefill", "Decode", "Probe",
                                                  "WaitingForInput"};
  return phases[static_cast<size_t>(info.param.phase)] +
         (info.param.by_deadline ? "Deadline" : "Cancel");
}

TEST_P(InterruptionTest, EndsOnceAndLeavesTheSessionAtItsLog) {
  engine_.Create("s");
  engine_.Append("s", RandomTokens(40, 1));
  RequestHeader header = {.request_id = "r"};
  if (GetParam().by_deadline) header.deadline = engine_.clock().Now() + absl::Seconds(5);
  const auto call = Start(header);
  std::vector<Call*> calls = {call.get()};
  if (before_) calls.push_back(before_.get());
  if (GetParam().by_deadline) {
    EXPECT_EQ(engine_.loop().NextWake(), header.deadline);
    engine_.clock().Advance(absl::Seconds(5));
  } else {
    ASSERT_TRUE(engine_.loop().Cancel({"test", "s"}, "r").ok());
  }
  engine_.Step();
  call->Read();
  if (GetParam().by_deadline) {
    EXPECT_TRUE(
        EndedWith(*call, absl::StatusCode::kDeadlineExceeded, ErrorReason::kDeadlineExceeded));
  } else {
    EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kCancelled, ErrorReason::kCancelled));
  }
  EXPECT_FALSE(call->finished.has_value()) << "Finished comes only with OK";
  if (!before_) {
    EXPECT_EQ(GetErrorInfo(*call->end).position, engine_.Info("s").position);
    EXPECT_EQ(GetErrorInfo(*call->end).version, engine_.Info("s").version);
  }
  engine_.RunAll(calls);
  if (before_) {
    EXPECT_TRUE(EndedOk(*before_));
  }
  EXPECT_EQ(call->ends, 1);
  EXPECT_EQ(engine_.loop().Cancel({"test", "s"}, "r").code(), absl::StatusCode::kNotFound);
  ExpectConsistent("s");
}

INSTANTIATE_TEST_SUITE_P(
    Phases, InterruptionTest,
    testing::Values(Interruption{Phase::kQueued, false}, Interruption{Phase::kQueued, true},
                    Interruption{Phase::kPrefill, false}, Interruption{Phase::kPrefill, true},
                    Interruption{Phase::kDecode, false}, Interruption{Phase::kDecode, true},
                    Interruption{Phase::kProbe, false}, Interruption{Phase::kProbe, true},
                    Interruption{Phase::kWaitingForInput, false},
                    Interruption{Phase::kWaitingForInput, true}),
    InterruptionName);

TEST_F(LifecycleTest, DeletingASessionAbortsItsRequestsAndNoOthers) {
  engine_.Create("s");
  engine_.Create("t");
  std::vector<std::unique_ptr<Call>> calls;
  calls.push_back(engine_.StartGenerate("s", GreedyRequest(30, RandomTokens(9, 1))));
  calls.push_back(engine_.StartAppend("s", RandomTokens(9, 1)));
  calls.push_back(engine_.StartGenerate("s", GreedyRequest(3)));
  const auto other = engine_.StartGenerate("t", GreedyRequest(30, RandomTokens(9, 1)));
  for (int i = 0; i < 5; ++i) engine_.Step();
  EXPECT_EQ(engine_.loop().load().running_requests, 2);
  EXPECT_EQ(engine_.loop().load().waiting_requests, 2);
  ASSERT_TRUE(engine_.loop().DeleteSession({"test", "s"}).ok());
  engine_.RunAll({calls[0].get(), calls[1].get(), calls[2].get(), other.get()});
  for (const auto& call : calls) {
    EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kAborted, ErrorReason::kSessionDeleted));
  }
  EXPECT_TRUE(EndedOk(*other));
  EXPECT_FALSE(engine_.loop().GetSession({"test", "s"}).ok());
  EXPECT_EQ(engine_.loop().load().device_bytes_used, engine_.Info("t").device_bytes);
}

TEST_F(LifecycleTest, RequestsOfASessionRunInTheOrderOfTheirArrival) {
  engine_.Create("s");
  const auto first = engine_.StartAppend("s", RandomTokens(90, 1));
  const auto second = engine_.StartGenerate("s", GreedyRequest(10));
  const auto third = engine_.StartAppend("s", {1, 2, 3});
  engine_.RunAll({first.get(), second.get(), third.get()});
  std::vector<int32_t> log = RandomTokens(90, 1);
  const auto generated = second->TokenIds();
  log.insert(log.end(), generated.begin(), generated.end());
  log.insert(log.end(), {1, 2, 3});
  EXPECT_EQ((*engine_.loop().FindSession({"test", "s"}))->log(), log);
}

TEST_F(LifecycleTest, AnUnusedSessionIsDeletedWhenItsTimeIsOver) {
  ASSERT_TRUE(engine_.loop().CreateSession({"test", "s"}, {.ttl = absl::Seconds(60)}).ok());
  engine_.Create("eternal");
  EXPECT_EQ(engine_.loop().NextWake(), engine_.clock().Now() + absl::Seconds(60));
  engine_.clock().Advance(absl::Seconds(59));
  engine_.Append("s", {1});
  engine_.clock().Advance(absl::Seconds(59));
  engine_.Step();
  EXPECT_TRUE(engine_.loop().GetSession({"test", "s"}).ok()) << "use has prolonged its life";
  engine_.clock().Advance(absl::Seconds(1));
  engine_.Step();
  EXPECT_EQ(engine_.loop().GetSession({"test", "s"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(engine_.loop().GetSession({"test", "eternal"}).ok());
  EXPECT_EQ(engine_.loop().load().device_bytes_used, 0);
}

TEST_F(LifecycleTest, ASessionWhoseRequestWaitsDoesNotExpireNorKeepTheEngineBusy) {
  ASSERT_TRUE(engine_.loop().CreateSession({"test", "s"}, {.ttl = absl::Seconds(60)}).ok());
  const auto call = engine_.StartAppendStream("s", {});
  engine_.clock().Advance(absl::Seconds(100));
  engine_.RunAll({call.get()});
  EXPECT_GT(engine_.loop().NextWake(), engine_.clock().Now());
  call->channel->PushInput({.ids = {1, 2}});
  call->channel->CloseInput();
  engine_.RunAll({call.get()});
  EXPECT_TRUE(EndedOk(*call));
}

TEST_F(LifecycleTest, AFullQueueRefusesWithARetryDelay) {
  LoopHarness engine(
      Dir(),
      {.engine = {.max_step_tokens = 64, .max_queued_requests = 2, .cache_bytes = 64 << 20}});
  engine.Create("s");
  const auto first = engine.StartAppend("s", {1});
  const auto second = engine.StartAppend("s", {2});
  const auto third = engine.StartAppend("s", {3});
  third->Read();
  EXPECT_TRUE(EndedWith(*third, absl::StatusCode::kResourceExhausted, ErrorReason::kQueueFull));
  EXPECT_TRUE(GetErrorInfo(*third->end).retryable);
  EXPECT_TRUE(GetErrorInfo(*third->end).retry_delay.has_value());
  engine.RunAll({first.get(), second.get()});
  EXPECT_TRUE(EndedOk(*engine.Append("s", {3})));
  EXPECT_EQ(engine.Info("s").position, 3u);
}

TEST_F(LifecycleTest, ASlowReaderPausesItsOwnStreamAndNoOther) {
  const auto slow = engine_.StartGenerate("", GreedyRequest(400, {1}));
  const auto quick = engine_.StartGenerate("", GreedyRequest(400, {2}));
  while (engine_.Step()) quick->Read();
  quick->Read();
  EXPECT_TRUE(EndedOk(*quick));
  EXPECT_EQ(quick->tokens.size(), 400u);
  EXPECT_TRUE(slow->channel->EventsFull());
  engine_.RunAll({slow.get()});
  EXPECT_TRUE(EndedOk(*slow));
  EXPECT_EQ(slow->tokens.size(), 400u);
}

TEST_F(LifecycleTest, ARefusalLetsRunningRequestsGoOn) {
  engine_.Create("s");
  const auto running = engine_.StartGenerate("s", GreedyRequest(20, {1}));
  engine_.Step();
  engine_.loop().Refuse(MakeError(absl::StatusCode::kUnavailable, "draining",
                                  {.reason = ErrorReason::kDraining, .retryable = true}));
  EXPECT_TRUE(
      EndedWith(*engine_.Append("s", {1}), absl::StatusCode::kUnavailable, ErrorReason::kDraining));
  engine_.RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
}

TEST(BackendFailureTest, EndsEveryRequestAndRefusesAllLaterOnes) {
  std::atomic<bool> broken = false;
  LoopHarness engine(Golden("qwen3-window-yarn").dir(),
                     {.wrap_backend = [&](std::unique_ptr<Backend> inner) {
                       return MakeFailingBackend(std::move(inner), &broken);
                     }});
  engine.Create("s");
  engine.Create("t");
  const auto running = engine.StartGenerate("s", GreedyRequest(20, {1}));
  const auto queued = engine.StartAppend("s", {1, 2});
  const auto waiting = engine.StartAppendStream("t", {});
  engine.StepUntilTokens(running.get(), 3);
  broken = true;
  engine.RunAll({running.get(), queued.get(), waiting.get()});
  broken = false;  // it does not come back
  const auto later = engine.Append("s", {1});
  const auto throw_away = engine.Generate("", GreedyRequest(1, {1}));
  for (const Call* call :
       {running.get(), queued.get(), waiting.get(), later.get(), throw_away.get()}) {
    EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kUnavailable, ErrorReason::kBackendFailed));
  }
  EXPECT_EQ(engine.loop().failure().code(), absl::StatusCode::kUnavailable);
  for (const absl::Status& status : {engine.loop().GetSession({"test", "s"}).status(),
                                     engine.loop().CreateSession({"test", "u"}, {}).status(),
                                     engine.loop().UpdateSession({"test", "s"}, {}).status(),
                                     engine.loop().DeleteSession({"test", "s"}).status(),
                                     engine.loop().Cancel({"test", "s"}, "r")}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace mneme
