#ifndef MNEME_TESTS_STORAGE_CHECKPOINT_HARNESS_H_
#define MNEME_TESTS_STORAGE_CHECKPOINT_HARNESS_H_

// Files of sections taken apart and put together wrongly.

#include <functional>
#include <string>
#include <vector>

#include "storage/files.h"
#include "storage/sections.h"

namespace mneme {

// Bytes in memory as a source, and as a sink.
class MemoryFile : public ByteSource, public ByteSink {
 public:
  MemoryFile() = default;
  explicit MemoryFile(std::string content) : bytes(std::move(content)) {}

  uint64_t size() const override { return bytes.size(); }
  absl::Status ReadAt(uint64_t offset, size_t count, char* destination) const override;
  absl::Status Append(absl::string_view more) override;

  std::string bytes;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& bytes);

// A stored section: its head, frames and checksum.
struct StoredSection {
  SectionHead head;
  std::string bytes;
};

// The header and the sections of a valid file.
struct TakenApart {
  std::string header;
  std::vector<StoredSection> sections;

  explicit TakenApart(const std::string& bytes);
  std::string Joined() const;
};

// A valid file's bytes, damaged in one way; `what` says how.
struct Damage {
  std::string what;
  std::string bytes;
};

// Of a checkpoint: the header and every section truncated, with one bit flipped in its head,
// frames and checksum, once with checksums made to fit again, left out, and exchanged with that of
// the same place in `other`.
std::vector<Damage> Damages(const std::string& bytes, const std::string& other);

}  // namespace mneme

#endif  // MNEME_TESTS_STORAGE_CHECKPOINT_HARNESS_H_
