// Any bytes as an archive: refused, or its log is consistent and its state, if it opens, is copied.
// The key is known, so that files made with it are read to their depths.

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/check.h"
#include "storage/archive.h"
#include "tests/storage/checkpoint_harness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using mneme::ArchiveReader;
  using mneme::SecretKey;
  const mneme::MemoryFile file(std::string(reinterpret_cast<const char*>(data), size));
  auto reader = ArchiveReader::Open("input", file);
  if (!reader.ok()) return 0;
  MNEME_CHECK(reader->state().tokens.size() * sizeof(int32_t) <= size);
  MNEME_CHECK(reader->state().requests.size() <= mneme::SessionState::kMaxRequests);
  const SecretKey key = SecretKey::FromBytes(std::string(SecretKey::kBytes, 'k'));
  bool asked = false;
  const auto copied =
      reader->CopyState(key, /*model_fingerprint=*/1,
                        [&](const mneme::CheckpointInfo& info)
                            -> absl::StatusOr<std::unique_ptr<mneme::CheckpointWriter>> {
                          MNEME_CHECK(info.position <= reader->state().position());
                          asked = true;
                          return absl::CancelledError("nothing is written here");
                        });
  MNEME_CHECK(!copied.ok() && absl::IsCancelled(copied.status()) == asked);
  return 0;
}
