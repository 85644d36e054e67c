#ifndef MNEME_TESTS_STORAGE_STORE_HARNESS_H_
#define MNEME_TESTS_STORAGE_STORE_HARNESS_H_

// A store in a temporary directory, on a disk that can fail.

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "storage/session_store.h"
#include "tests/storage/faulty_file_system.h"
#include "tests/storage/temporary_directory.h"

namespace mneme {

class StoreHarness {
 public:
  static constexpr int kCompactAfterRecords = 16;

  // Its writer syncs once an hour by `now`, if not more often.
  explicit StoreHarness(
      Durability durability = Durability::kSync,
      size_t max_record_bytes = LogWriterOptions().max_record_bytes,
      std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now);
  ~StoreHarness();

  // Opens, closing what was open. The listing is kept.
  absl::Status Open();
  void Close() { store_.reset(); }
  // Closes as a loss of power does, and brings back the disk as it was synced.
  void CutPower();

  SessionStore& store() { return *store_; }
  const SessionListing& listing() const { return listing_; }
  FaultyFileSystem& disk() { return *disk_; }
  std::string data_dir() const { return directory_ / "data"; }

  // Commits and waits for the completion.
  absl::Status Commit(LogBatch batch);
  // A new session that has logged `tokens`.
  StoreId MakeSession(const std::string& id, const std::vector<int32_t>& tokens);

 private:
  TemporaryDirectory directory_;
  const LogWriterOptions options_;
  std::shared_ptr<FaultyFileSystem> disk_;
  std::unique_ptr<SessionStore> store_;
  SessionListing listing_;
};

// Tokens appended to a session that has logged `before` tokens.
LogEvents LogTokens(const StoreId& id, int64_t before, std::vector<int32_t> tokens);

// `count` tokens that are unlikely to be found anywhere by chance.
std::vector<int32_t> RareTokens(int count, uint32_t seed);

// All bytes of all files under `directory`.
std::vector<std::string> FileContents(const std::string& directory);

}  // namespace mneme

#endif  // MNEME_TESTS_STORAGE_STORE_HARNESS_H_
