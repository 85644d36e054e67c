#include "tests/storage/store_harness.h"

#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <random>
#include <utility>

#include "base/check.h"

namespace mneme {

StoreHarness::StoreHarness(Durability durability, size_t max_record_bytes,
                           std::function<std::chrono::steady_clock::time_point()> now)
    : options_{.durability = durability,
               .sync_interval = std::chrono::hours(1),
               .retry_delay = std::chrono::milliseconds(1),
               .compact_after_records = kCompactAfterRecords,
               .max_record_bytes = max_record_bytes,
               .now = std::move(now)},
      disk_(std::make_shared<FaultyFileSystem>(directory_ / "graveyard")) {
  std::filesystem::create_directory(data_dir());
  MNEME_CHECK(Open().ok());
}

StoreHarness::~StoreHarness() { Close(); }

absl::Status StoreHarness::Open() {
  Close();
  auto opened = SessionStore::Open({.data_dir = data_dir(), .files = disk_, .log = options_});
  if (!opened.ok()) return opened.status();
  store_ = std::move(opened->store);
  listing_ = std::move(opened->listing);
  return absl::OkStatus();
}

void StoreHarness::CutPower() {
  disk_->CutPower();
  Close();
  disk_->SetHook(nullptr);
  disk_->RestorePower();
}

absl::Status StoreHarness::Commit(LogBatch batch) {
  std::promise<absl::Status> done;
  store_->Commit(std::move(batch), [&done](const absl::Status& status) { done.set_value(status); });
  return done.get_future().get();
}

StoreId StoreHarness::MakeSession(const std::string& id, const std::vector<int32_t>& tokens) {
  const StoreId name = StoreId::Random();
  const SessionMetadata metadata{.tenant = "tenant", .id = id, .create_time = absl::UnixEpoch()};
  MNEME_CHECK(Commit({CreateSession{name, metadata}, LogTokens(name, 0, tokens)}).ok());
  return name;
}

LogEvents LogTokens(const StoreId& id, int64_t before, std::vector<int32_t> tokens) {
  LogEvents log{.id = id,
                .position = before + static_cast<int64_t>(tokens.size()),
                .time = absl::UnixEpoch() + absl::Seconds(before)};
  log.events.emplace_back(TokensLogged{std::move(tokens)});
  return log;
}

std::vector<int32_t> RareTokens(int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() >> 1);
  return tokens;
}

std::vector<std::string> FileContents(const std::string& directory) {
  std::vector<std::string> contents;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream stream(entry.path(), std::ios::binary);
    contents.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
  }
  return contents;
}

}  // namespace mneme
