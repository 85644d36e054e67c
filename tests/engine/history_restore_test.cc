// Invariant: forks and rollbacks are in the log before anybody is told of them (DESIGN §2.1).

#include <map>

#include "gtest/gtest.h"
#include "tests/engine/durable_engine.h"

namespace mneme {
namespace {

TEST(HistoryRestoreTest, ForksAndRollbacksOutliveThePower) {
  DurableEngine durable(Golden("qwen3-hidden-target").dir());
  const auto run = [&durable](const absl::StatusOr<SessionInfo>& info) {
    ASSERT_TRUE(info.ok()) << info.status();
    durable->RunAll({});
  };
  durable->Create("s", {.max_lag_chunks = 2});
  durable->Append("s", RandomTokens(50, 1), false, "r");
  durable->SetControls("s", {.clip_norm = 0.5F});
  durable->Append("s", RandomTokens(20, 2));
  run(durable->loop().ForkSession({"test", "s"}, "now", {}));
  run(durable->loop().ForkSession({"test", "s"}, "then", 53));
  run(durable->loop().RollbackSession({"test", "s"}, 60));
  durable->Append("s", RandomTokens(3, 7));
  std::map<std::string, std::vector<int32_t>> logs;
  std::map<std::string, uint64_t> versions;
  for (const std::string id : {"s", "now", "then"}) {
    durable->Append(id, RandomTokens(2, 8));
    logs[id] = (*durable->loop().FindSession({"test", id}))->log();
    versions[id] = durable->Info(id).version;
  }
  std::map<std::string, std::vector<int32_t>> next;
  for (const std::string id : {"s", "now", "then"}) {
    GenerateRequest probe = GreedyRequest(8);
    probe.learn = false;
    next[id] = durable->Generate(id, probe)->TokenIds();
  }
  durable.CutPowerAndStart();
  for (const std::string id : {"s", "now", "then"}) {
    GenerateRequest probe = GreedyRequest(8);
    probe.learn = false;
    const auto call = durable->Generate(id, probe);
    EXPECT_TRUE(EndedOk(*call)) << id;
    EXPECT_EQ(call->TokenIds(), next[id]) << id;
    EXPECT_EQ((*durable->loop().FindSession({"test", id}))->log(), logs[id]) << id;
    EXPECT_EQ(durable->Info(id).version, versions[id]) << id;
  }
}

}  // namespace
}  // namespace mneme
