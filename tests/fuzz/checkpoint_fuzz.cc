// Any bytes as a checkpoint: refused, or read whole, and no more is read than they hold. The key is
// known, so that files made with it are read to their depths.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "storage/checkpoint.h"
#include "tests/storage/checkpoint_harness.h"

namespace mneme {
namespace {

void ReadSections(const MemoryFile& file) {
  auto reader = SectionReader::Open(kCheckpointMagic, "input", file);
  if (!reader.ok()) return;
  uint64_t total = 0;
  while (true) {
    const auto head = reader->Next();
    if (!head.ok() || !*head) return;
    if ((*head)->sealed) continue;
    const auto content = reader->ReadAll(UINT64_MAX);
    MNEME_CHECK(content.ok() && content->size() == (*head)->length);
    total += content->size();
    MNEME_CHECK(total <= file.size());
  }
}

void ReadCheckpoint(const MemoryFile& file) {
  const SecretKey key = SecretKey::FromBytes(std::string(SecretKey::kBytes, 'k'));
  auto reader = CheckpointReader::Open("input", file, StoreId(), key);
  if (reader.ok()) static_cast<void>(reader->Verify());
}

}  // namespace
}  // namespace mneme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const mneme::MemoryFile file(std::string(reinterpret_cast<const char*>(data), size));
  mneme::ReadSections(file);
  mneme::ReadCheckpoint(file);
  return 0;
}
