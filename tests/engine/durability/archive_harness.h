#ifndef MNEME_TESTS_ENGINE_DURABILITY_ARCHIVE_HARNESS_H_
#define MNEME_TESTS_ENGINE_DURABILITY_ARCHIVE_HARNESS_H_

// Archives of an engine's sessions, made and taken in the test's own thread.

#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tests/engine/durability/durable_engine.h"

namespace mneme {

inline const std::filesystem::path kArchiveModel = "tests/golden/qwen3-hidden-target";

inline HarnessOptions With(const std::optional<SecretKey>& key, uint64_t max_bytes = 1 << 20) {
  HarnessOptions options;
  options.engine.archives = {.operator_key = key, .max_bytes = max_bytes};
  return options;
}

// Runs the engine until `begin` has been answered.
template <typename T, typename Begin>
absl::StatusOr<T> Await(LoopHarness& engine, Begin begin) {
  absl::StatusOr<T> answer = absl::UnknownError("no answer");
  begin([&answer](absl::StatusOr<T> result) { answer = std::move(result); });
  engine.RunAll({});
  return answer;
}

inline absl::StatusOr<SessionArchive> StartExport(LoopHarness& engine, const std::string& id) {
  return Await<SessionArchive>(engine, [&](auto done) {
    engine.loop().ExportSession({"test", id}, done);
  });
}

inline std::string BytesOf(ArchiveFile& file, uint64_t offset = 0) {
  std::promise<absl::StatusOr<std::string>> bytes;
  file.Read(offset, UINT64_MAX, [&bytes](auto part) { bytes.set_value(std::move(part)); });
  return *bytes.get_future().get();
}

inline std::string Export(LoopHarness& engine, const std::string& id) {
  const absl::StatusOr<SessionArchive> archive = StartExport(engine, id);
  EXPECT_TRUE(archive.ok()) << archive.status();
  if (!archive.ok()) return "";
  const std::string bytes = BytesOf(*archive->file);
  EXPECT_EQ(bytes.size(), archive->size_bytes);
  return bytes;
}

inline absl::StatusOr<std::shared_ptr<ArchiveFile>> BeginImport(
    LoopHarness& engine, const std::string& id, const ImportStart& start = {},
    const std::string& tenant = "test") {
  return Await<std::shared_ptr<ArchiveFile>>(engine, [&](auto done) {
    engine.loop().BeginImport({tenant, id}, start, done);
  });
}

inline absl::Status Append(ArchiveFile& file, uint64_t offset, const std::string& bytes) {
  std::promise<absl::Status> appended;
  file.Append(offset, bytes, [&appended](absl::Status status) { appended.set_value(status); });
  return appended.get_future().get();
}

inline absl::StatusOr<SessionInfo> Import(LoopHarness& engine, const std::string& id,
                                          const std::string& bytes) {
  const auto file = BeginImport(engine, id);
  if (!file.ok()) return file.status();
  for (size_t at = 0; at < bytes.size(); at += 1000) {
    const absl::Status status = Append(**file, at, bytes.substr(at, 1000));
    if (!status.ok()) return status;
  }
  return Await<SessionInfo>(engine, [&](auto done) {
    engine.loop().ImportSession({"test", id}, *file, done);
  });
}

inline int64_t SpooledFiles(const DurableEngine& durable) {
  const std::filesystem::directory_iterator files(durable.data_dir() + "/spool");
  return std::distance(begin(files), end(files));
}

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_DURABILITY_ARCHIVE_HARNESS_H_
