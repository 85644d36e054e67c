// What clients are told is on the disk, whatever the disk does.

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/durability/durable_engine.h"
#include "tests/engine/failing_backend.h"

namespace mneme {
namespace {

using rocksdb::IOStatus;

const std::filesystem::path kModel = "tests/golden/qwen3-hidden-target";

GenerateRequest Named(const std::string& id, GenerateRequest request) {
  request.header.request_id = id;
  return request;
}

// --- Power cuts. ---

// A request that is sent again after each power cut, until it is done.
struct Stubborn {
  std::string session, request_id;
  std::vector<int32_t> input;
  int64_t max_tokens = 0;  // 0: an Append

  std::unique_ptr<Call> Start(LoopHarness& engine) const {
    if (max_tokens == 0) return engine.StartAppend(session, input, false, request_id);
    return engine.StartGenerate(session, Named(request_id, GreedyRequest(max_tokens, input)));
  }
};

class PowerCutTest : public ::testing::Test {
 protected:
  static constexpr int kSessions = 3;

  PowerCutTest() {
    for (int i = 0; i < kSessions; ++i) {
      durable_->Create(absl::StrCat(i));
      undisturbed_.Create(absl::StrCat(i));
    }
    durable_->RunAll({});
  }

  Stubborn Draw(const std::string& session, const std::string& request_id) {
    const bool appends = random_() % 2 == 0;
    return {.session = session,
            .request_id = request_id,
            .input =
                RandomTokens(1 + random_() % (appends ? 90 : 10), static_cast<uint32_t>(random_())),
            .max_tokens = appends ? 0 : 1 + static_cast<int64_t>(random_() % 12)};
  }

  // Runs all of them to their end, with power cuts on the way.
  void Endure(const std::vector<Stubborn>& requests) {
    std::vector<std::unique_ptr<Call>> ended(requests.size());
    std::vector<std::vector<int32_t>> told(requests.size());
    for (int cuts = 3; true; --cuts) {
      if (cuts > 0) durable_.CutPowerAt(static_cast<int>(random_() % 12));
      std::vector<std::unique_ptr<Call>> calls(requests.size());
      for (size_t i = 0; i < requests.size(); ++i) {
        if (ended[i] == nullptr) calls[i] = requests[i].Start(*durable_);
      }
      while (!durable_.power_is_cut() && (durable_->Step() || durable_->WaitForDisk())) {
      }
      for (size_t i = 0; i < requests.size(); ++i) {
        if (calls[i] == nullptr) continue;
        Call& call = *calls[i];
        call.Read();
        const std::vector<int32_t> ids = call.TokenIds();
        const size_t both = std::min(ids.size(), told[i].size());
        EXPECT_TRUE(std::equal(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(both),
                               told[i].begin()))
            << "a retry is told something else";
        if (ids.size() > told[i].size()) told[i] = ids;
        for (const AppendProgress& progress : call.progress) {
          positions_[requests[i].session] = progress.position;
        }
        if (call.ends == 0) continue;
        EXPECT_TRUE(EndedOk(call));
        ended[i] = std::move(calls[i]);
      }
      if (!durable_.power_is_cut() && cuts <= 0) break;
      durable_.CutPowerAndStart();
      for (const auto& [session, position] : positions_) {
        EXPECT_GE(durable_->Info(session).position, position);
      }
    }
    durable_.disk().SetHook(nullptr);
    for (const auto& call : ended) EXPECT_NE(call, nullptr);
  }

  std::mt19937 random_{11};
  DurableEngine durable_{kModel};
  LoopHarness undisturbed_{kModel};
  std::map<std::string, uint64_t> positions_;  // that were told
};

TEST_F(PowerCutTest, NothingToldIsLostAndRetriesEndAsIfNothingHadHappened) {
  for (int round = 0; round < 8; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    std::vector<Stubborn> requests;
    for (int i = 0; i < kSessions; ++i) {
      requests.push_back(Draw(absl::StrCat(i), absl::StrCat("request-", round)));
      const auto call = requests.back().Start(undisturbed_);
      undisturbed_.RunAll({call.get()});
    }
    Endure(requests);
    for (int i = 0; i < kSessions; ++i) {
      EXPECT_EQ(durable_->Info(absl::StrCat(i)).position,
                undisturbed_.Info(absl::StrCat(i)).position);
    }
  }
  durable_.CutPowerAndStart();
  for (int i = 0; i < kSessions; ++i) {
    const std::string id = absl::StrCat(i);
    EXPECT_EQ(durable_->Generate(id, GreedyRequest(20))->TokenIds(),
              undisturbed_.Generate(id, GreedyRequest(20))->TokenIds());
    EXPECT_EQ((*durable_->loop().FindSession({"test", id}))->log(),
              (*undisturbed_.loop().FindSession({"test", id}))->log());
  }
}

// --- Disks that fail. ---

// How a disk fails, as a test's parameter: the operations and what they answer.
struct Fault {
  std::string name;
  std::vector<FileOp> operations;
  IOStatus answer;
  absl::StatusCode code;
  ErrorReason reason;

  friend void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }
};

class FailingDiskTest : public ::testing::TestWithParam<Fault> {
 protected:
  FailingDiskTest() {
    for (const char* id : {"s", "t", "parked"}) durable_->Create(id);
    EXPECT_TRUE(EndedOk(*durable_->Append("parked", RandomTokens(40, 1))));
    durable_.Start();
    EXPECT_TRUE(EndedOk(*durable_->Append("t", RandomTokens(20, 2))));
  }

  void BreakDisk() {
    durable_.disk().SetHook([fault = GetParam()](FileOp op, const std::string&) {
      const auto& failing = fault.operations;
      const bool fails = std::find(failing.begin(), failing.end(), op) != failing.end();
      return fails ? fault.answer : IOStatus::OK();
    });
  }
  // Steps until nothing goes on, and the log is known to fail.
  void StepUntilBroken() {
    while (durable_->Step() || durable_->loop().log().Health().ok()) {
    }
  }

  DurableEngine durable_{kModel};
};

const FileOp kWrites[] = {FileOp::kCreate, FileOp::kAppend, FileOp::kSync,
                          FileOp::kRename, FileOp::kRemove, FileOp::kSyncDirectory};

INSTANTIATE_TEST_SUITE_P(All, FailingDiskTest,
                         ::testing::Values(Fault{"Full",
                                                 {FileOp::kCreate, FileOp::kAppend},
                                                 IOStatus::NoSpace("full"),
                                                 absl::StatusCode::kResourceExhausted,
                                                 ErrorReason::kStorageFull},
                                           Fault{"FailsToWrite",
                                                 {FileOp::kAppend},
                                                 IOStatus::IOError("EIO"),
                                                 absl::StatusCode::kUnavailable,
                                                 ErrorReason::kStorageFailed},
                                           Fault{"FailsToSync",
                                                 {FileOp::kSync},
                                                 IOStatus::IOError("EIO"),
                                                 absl::StatusCode::kUnavailable,
                                                 ErrorReason::kStorageFailed},
                                           Fault{"ReadOnly",
                                                 {std::begin(kWrites), std::end(kWrites)},
                                                 IOStatus::IOError("read-only file system"),
                                                 absl::StatusCode::kUnavailable,
                                                 ErrorReason::kStorageFailed}),
                         [](const auto& parameter) { return parameter.param.name; });

TEST_P(FailingDiskTest, WhatMustLogWaitsOrIsRefusedAndAllGoesOnWhenTheDiskDoes) {
  LoopHarness undisturbed(kModel);
  undisturbed.Create("s");
  const auto expected = undisturbed.Generate("s", GreedyRequest(60, RandomTokens(30, 3)));

  const auto running = durable_->StartGenerate("s", GreedyRequest(60, RandomTokens(30, 3)));
  durable_->StepUntilTokens(running.get(), 5);
  BreakDisk();
  StepUntilBroken();
  running->Read();
  EXPECT_EQ(running->ends, 0);
  const int64_t position = (*durable_->loop().FindSession({"test", "s"}))->position();
  EXPECT_LE(position,
            30 + static_cast<int64_t>(running->tokens.size() + 2 + SessionLog::kMaxStepsAhead));
  EXPECT_FALSE(durable_->loop().load().log_writable);
  EXPECT_GT(durable_->loop().load().log_pending_batches, 0);

  // Refused, for now.
  EngineLoop& loop = durable_->loop();
  const auto append = durable_->StartAppend("t", {1, 2});
  const auto generate = durable_->StartGenerate("t", GreedyRequest(1));
  for (Call* call : {append.get(), generate.get()}) {
    call->Read();
    EXPECT_TRUE(EndedWith(*call, GetParam().code, GetParam().reason));
    EXPECT_TRUE(GetErrorInfo(*call->end).retryable);
  }
  for (const absl::Status& status :
       {loop.CreateSession({"test", "new"}, {}).status(),
        loop.UpdateSession({"test", "t"}, SessionUpdate{.ttl = absl::Hours(1)}).status(),
        loop.DeleteSession({"test", "t"}).status()}) {
    EXPECT_EQ(status.code(), GetParam().code) << status;
    EXPECT_EQ(GetErrorInfo(status).reason, GetParam().reason);
  }

  // What needs no log goes on: without learning, listing, bringing a session back.
  EXPECT_EQ(loop.ListSessions("test", "", 10).sessions.size(), 3u);
  for (const char* id : {"t", "parked", ""}) {
    GenerateRequest request = GreedyRequest(3, {5});
    request.learn = *id == 0;
    const auto call = durable_->StartGenerate(id, request);
    while (call->ends == 0) {
      durable_->Step();
      call->Read();
    }
    EXPECT_TRUE(EndedOk(*call)) << id;
  }

  durable_.disk().SetHook(nullptr);
  durable_->RunAll({running.get()});
  EXPECT_TRUE(EndedOk(*running));
  EXPECT_EQ(running->TokenIds(), expected->TokenIds());
  EXPECT_TRUE(EndedOk(*durable_->Append("t", {1, 2})));
  EXPECT_TRUE(durable_->loop().load().log_writable);
  durable_.CutPowerAndStart();
  EXPECT_EQ(durable_->Info("s").position, 90u);
  EXPECT_EQ(durable_->Generate("s", GreedyRequest(20))->TokenIds(),
            undisturbed.Generate("s", GreedyRequest(20))->TokenIds());
}

TEST_P(FailingDiskTest, AServerThatStopsThenClaimsNothing) {
  const auto running = durable_->StartGenerate("s", GreedyRequest(10, RandomTokens(30, 3)));
  BreakDisk();
  StepUntilBroken();
  durable_.Stop();
  running->Read();
  EXPECT_TRUE(running->tokens.empty());
  EXPECT_FALSE(running->finished.has_value());
  EXPECT_EQ(running->ends, 1);
  EXPECT_FALSE(running->end->ok());
}

TEST_P(FailingDiskTest, ADrainThatCannotBeFlushedClaimsNothing) {
  const auto running = durable_->StartGenerate("s", GreedyRequest(10, RandomTokens(30, 3)));
  BreakDisk();
  StepUntilBroken();
  EngineLoop& loop = durable_->loop();
  const absl::Status draining = absl::UnavailableError("draining");
  loop.EndAll(draining);
  absl::Status answer;
  loop.log().WhenDurable([&answer](const absl::Status& status) { answer = status; });
  durable_->Step();
  EXPECT_GT(loop.requests_in_flight(), 0) << "somebody has yet to be told";
  loop.log().GiveUp(draining);
  EXPECT_EQ(loop.requests_in_flight(), 0);
  running->Read();
  EXPECT_TRUE(running->tokens.empty());
  EXPECT_TRUE(EndedWith(*running, absl::StatusCode::kUnavailable));
  EXPECT_EQ(answer, draining);
  durable_.disk().SetHook(nullptr);
  durable_->RunAll({running.get()});
  EXPECT_EQ(running->ends, 1);
}

// --- The rest. ---

TEST(SessionLogTest, AfterABackendFailureAndARestartAllSessionsAreBack) {
  std::atomic<bool> broken = false;
  DurableEngine durable(kModel, {.wrap_backend = [&](std::unique_ptr<Backend> inner) {
                          return MakeFailingBackend(std::move(inner), &broken);
                        }});
  LoopHarness undisturbed(kModel);
  for (const char* id : {"s", "t"}) {
    durable->Create(id);
    undisturbed.Create(id);
  }
  EXPECT_TRUE(EndedOk(*durable->Append("t", RandomTokens(33, 4))));
  EXPECT_TRUE(EndedOk(*undisturbed.Append("t", RandomTokens(33, 4))));
  const GenerateRequest request = Named("g", GreedyRequest(40, RandomTokens(30, 3)));
  const auto call = durable->StartGenerate("s", request);
  durable->StepUntilTokens(call.get(), 10);
  broken = true;
  durable->RunAll({call.get()});
  EXPECT_TRUE(EndedWith(*call, absl::StatusCode::kUnavailable, ErrorReason::kBackendFailed));
  EXPECT_EQ(GetErrorInfo(*call->end).position, 30 + call->tokens.size());
  broken = false;
  durable.Start();
  EXPECT_EQ(durable->Info("s").position, 30 + call->tokens.size());
  EXPECT_EQ(durable->Generate("s", request)->TokenIds(),
            undisturbed.Generate("s", request)->TokenIds());
  EXPECT_EQ(durable->Generate("t", GreedyRequest(20))->TokenIds(),
            undisturbed.Generate("t", GreedyRequest(20))->TokenIds());
}

TEST(SessionLogTest, WithoutDurabilityWhatStopsInOrderIsThereToo) {
  for (const Durability durability : {Durability::kAsync, Durability::kNone}) {
    DurableEngine durable(kModel, {}, durability);
    durable->Create("s");
    EXPECT_TRUE(EndedOk(*durable->Generate("s", GreedyRequest(10, {1, 2}))));
    durable.Start();
    EXPECT_EQ(durable->Info("s").position, 12u);
  }
}

}  // namespace
}  // namespace mneme
