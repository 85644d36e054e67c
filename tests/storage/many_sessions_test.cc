// Ten thousand parked sessions: listed at once, each restored by itself.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/checkpoint_files.h"
#include "tests/storage/faulty_file_system.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kSessions = 10000;
constexpr int32_t kTokens = 200;
constexpr size_t kDeltaBytes = 4096;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Allocated and not freed.
int64_t AllocatedBytes() { return static_cast<int64_t>(mallinfo2().uordblks); }

// What session `i` has logged.
std::vector<int32_t> TokensOf(int32_t i) {
  std::vector<int32_t> tokens(kTokens);
  for (int32_t t = 0; t < kTokens; ++t) tokens[static_cast<size_t>(t)] = i * 7 + t;
  return tokens;
}

LogBatch MakeSession(const StoreId& id, int32_t i) {
  SessionMetadata metadata{.tenant = "tenant", .id = absl::StrCat("session", i)};
  LogEvents log{.id = id, .position = kTokens, .time = absl::UnixEpoch() + absl::Seconds(i)};
  log.events.emplace_back(TokensLogged{TokensOf(i)});
  return {CreateSession{id, std::move(metadata)}, std::move(log)};
}

absl::Status TakeCheckpoint(SessionStore& store, const StoreId& id, int32_t i) {
  SessionState state;
  MNEME_RETURN_IF_ERROR(state.Apply(TokensLogged{TokensOf(i)}));
  MNEME_ASSIGN_OR_RETURN(
      const auto writer,
      CheckpointFiles(store).Create(id, MakeCheckpointInfo(state, kTokens, /*model_fingerprint=*/1,
                                                           /*has_kv=*/false)));
  const std::string delta(kDeltaBytes, static_cast<char>(i));
  MNEME_RETURN_IF_ERROR(writer->sections().Write(SectionKind::kDelta, 0, delta));
  return writer->Commit();
}

absl::Status Fill(const StoreOptions& options) {
  MNEME_ASSIGN_OR_RETURN(const SessionStore::Opened opened, SessionStore::Open(options));
  std::vector<StoreId> ids;
  for (int32_t i = 0; i < kSessions; ++i) {
    ids.push_back(StoreId::Random());
    opened.store->Commit(MakeSession(ids.back(), i), nullptr);
  }
  std::promise<absl::Status> done;
  opened.store->Commit({}, [&done](const absl::Status& status) { done.set_value(status); });
  MNEME_RETURN_IF_ERROR(done.get_future().get());
  for (int32_t i = 0; i < kSessions; ++i) {
    MNEME_RETURN_IF_ERROR(TakeCheckpoint(*opened.store, ids[static_cast<size_t>(i)], i));
  }
  return absl::OkStatus();
}

void ExpectRestored(SessionStore& store, const ListedSession& session) {
  const auto i = static_cast<int32_t>(absl::ToUnixSeconds(session.last_used_time));  // its number
  EXPECT_EQ(session.metadata.id, absl::StrCat("session", i));
  EXPECT_EQ(session.position, kTokens);
  const auto state = store.Load(session.id);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->tokens, TokensOf(i));
  std::string delta;
  const auto restored = CheckpointFiles(store).RestoreNewest(
      {.id = session.id, .state = &*state, .model_fingerprint = 1, .needs_kv = false},
      [&delta](CheckpointReader& reader) -> absl::Status {
        MNEME_RETURN_IF_ERROR(reader.Next().status());
        MNEME_ASSIGN_OR_RETURN(delta, reader.ReadAll(kDeltaBytes));
        return reader.Verify();
      });
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(restored->from.has_value());
  EXPECT_EQ(delta, std::string(kDeltaBytes, static_cast<char>(i)));
}

TEST(ManySessionsTest, TenThousandAreListedAtOnceAndEachComesBack) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "data");
  StoreOptions options{.data_dir = directory / "data", .log = {.durability = Durability::kAsync}};
  const auto filling = Clock::now();
  options.files = std::make_shared<FaultyFileSystem>(directory / "graveyard");  // syncs nothing
  ASSERT_TRUE(Fill(options).ok());
  options.files = RealFileSystem();
  std::printf("filled in %.1f s\n", SecondsSince(filling));

  const int64_t before_bytes = AllocatedBytes();
  const auto begin = Clock::now();
  const auto opened = SessionStore::Open(options);
  const double seconds = SecondsSince(begin);
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_THAT(opened->listing.sessions, SizeIs(kSessions));
  EXPECT_THAT(opened->listing.damaged, IsEmpty());
  std::printf("listed %d sessions in %.2f s, %.0f bytes of memory each\n", kSessions, seconds,
              static_cast<double>(AllocatedBytes() - before_bytes) / kSessions);
  EXPECT_LT(seconds, 5.0);

  std::mt19937 random(3);
  const auto restoring = Clock::now();
  for (int k = 0; k < 500; ++k) {
    ExpectRestored(*opened->store, opened->listing.sessions[random() % kSessions]);
  }
  std::printf("restored one in %.2f ms\n", SecondsSince(restoring) * 1000 / 500);
}

}  // namespace
}  // namespace mneme
