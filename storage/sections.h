#ifndef MNEME_STORAGE_SECTIONS_H_
#define MNEME_STORAGE_SECTIONS_H_

// The file format that checkpoints and archives share: a header, then sections one after another,
// each with a checksum, sealed or in the clear. Written and read as a stream, frame by frame.
//
//   header   magic [8] | version u32 | subject [16] | key id u64 | salt [32] | xxh3 of these u64
//   section  kind u32 | index u32 | length u64 | sealed u8 | xxh3 of these u64
//            frames: kFrameBytes of content each, the last one less; sealed ones with a tag
//            xxh3 of the frames u64
//   …        the last section is of kind kEnd and holds the number of those before it, u64
//
// Sealed frames are under a key that is derived from the owner's key and the file's random salt, so
// it seals this file alone, and the nonce (section, frame) occurs once. Bound to each frame are the
// subject and its section's number, kind, index and length: no frame opens in another place, and
// none can be left out. A sealed section has at least one frame.

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "storage/crypto.h"
#include "storage/store_id.h"

namespace mneme {

// Numbers in files: none is ever given another meaning.
enum class SectionKind : uint32_t {
  kEnd = 0,
  kInfo = 1,           // what the rest belongs to
  kDelta = 2,          // ΔW of TTT layer `index`
  kKv = 3,             // pages of KV group `index`
  kOpenChunk = 4,      // rows (t, z) of TTT layer `index`
  kPendingUpdate = 5,  // rows of a closed chunk, the `index`-th, whose update is not applied yet
  kFinalHidden = 6,    // of the last computed token
  kSampler = 7,        // the sampler's state
  kMetadata = 8,       // archives: of the session
  kLog = 9,            // archives: tokens, controls, updates
  kState = 10,         // which of the above a computed state consists of, and their shapes
};

// Such as "delta[3]", for messages.
std::string NameOf(SectionKind kind, uint32_t index);

inline constexpr uint32_t kSectionFormatVersion = 1;
inline constexpr absl::string_view kCheckpointMagic = "MNEMECKP";
inline constexpr absl::string_view kArchiveMagic = "MNEMEARC";
inline constexpr size_t kFrameBytes = size_t{1} << 18;

struct SectionHead {
  SectionKind kind = SectionKind::kEnd;
  uint32_t index = 0;
  uint64_t length = 0;
  bool sealed = false;

  uint64_t frames() const;
  uint64_t stored_bytes() const;  // of the frames
};

// --- For writer and reader. ---

inline constexpr size_t kSaltBytes = 32;
inline constexpr size_t kHeaderBytes = 8 + 4 + StoreId::kBytes + 8 + kSaltBytes + 8;
inline constexpr size_t kSectionHeadBytes = 4 + 4 + 8 + 1 + 8;
inline constexpr size_t kChecksumBytes = 8;

// What a frame is sealed with.
Nonce FrameNonce(uint32_t section, uint64_t frame);
std::string FrameBinding(const StoreId& subject, uint32_t section, const SectionHead& head,
                         uint64_t frame);
// Says which key seals a file, without saying anything of the key.
uint64_t KeyId(const SecretKey& key);
uint64_t Checksum(absl::string_view bytes);

}  // namespace mneme

#endif  // MNEME_STORAGE_SECTIONS_H_
