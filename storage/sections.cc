#include "storage/sections.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "storage/coding.h"

namespace mneme {
namespace {

const char* NameOfKind(SectionKind kind) {
  switch (kind) {
    case SectionKind::kEnd:
      return "end";
    case SectionKind::kInfo:
      return "info";
    case SectionKind::kDelta:
      return "delta";
    case SectionKind::kKv:
      return "kv";
    case SectionKind::kOpenChunk:
      return "open_chunk";
    case SectionKind::kPendingUpdate:
      return "pending_update";
    case SectionKind::kFinalHidden:
      return "final_hidden";
    case SectionKind::kSampler:
      return "sampler";
    case SectionKind::kMetadata:
      return "metadata";
    case SectionKind::kLog:
      return "log";
    case SectionKind::kState:
      return "state";
  }
  return "unknown";
}

}  // namespace

std::string NameOf(SectionKind kind, uint32_t index) {
  return absl::StrCat(NameOfKind(kind), "[", index, "]");
}

uint64_t SectionHead::frames() const {
  const uint64_t full = length / kFrameBytes + (length % kFrameBytes != 0 ? 1 : 0);
  return sealed ? std::max<uint64_t>(full, 1) : full;
}

uint64_t SectionHead::stored_bytes() const { return length + (sealed ? frames() * kTagBytes : 0); }

Nonce FrameNonce(uint32_t section, uint64_t frame) {
  Nonce nonce;
  std::memcpy(nonce.data(), &section, sizeof section);
  std::memcpy(nonce.data() + sizeof section, &frame, sizeof frame);
  return nonce;
}

std::string FrameBinding(const StoreId& subject, uint32_t section, const SectionHead& head,
                         uint64_t frame) {
  ByteWriter writer;
  writer.Raw(subject.view());
  writer.Fixed(section);
  writer.Fixed(head.kind);
  writer.Fixed(head.index);
  writer.Fixed(head.length);
  writer.Fixed(frame);
  return writer.Take();
}

uint64_t KeyId(const SecretKey& key) {
  const SecretKey derived = key.Derive("", "mneme key id");
  return Checksum(derived.bytes());
}

uint64_t Checksum(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace mneme
