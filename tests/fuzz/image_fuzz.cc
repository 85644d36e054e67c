// Any sections as the state in a checkpoint: refused, or an image that is written and read again
// alike, and of no more memory than the sections hold. They come in a valid, sealed container, so
// that it is the state's decoder that sees them: the input is position [8 bytes], whether there is
// KV [1], and sections, each of kind [1], index [1], length [2] and content.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>

#include "base/check.h"
#include "engine/tiers/image_sections.h"
#include "kernels/cpu/cpu_backend.h"
#include "storage/coding.h"
#include "tests/storage/checkpoint_harness.h"

namespace mneme {
namespace {

constexpr int64_t kMaxImageBytes = 1 << 20;

const SecretKey& Key() {
  static const SecretKey key = SecretKey::FromBytes(std::string(SecretKey::kBytes, 'k'));
  return key;
}

// Of a model with windows of 4 and none, and chunks of 4.
const CachePools& Pools() {
  static const std::unique_ptr<Backend> backend = [] {
    auto created = CreateCpuBackend({.threads = 1});
    MNEME_CHECK(created.ok());
    return *std::move(created);
  }();
  static const std::unique_ptr<CachePools> pools = [] {
    ModelConfig config;
    config.hidden_size = 2;
    config.intermediate_size = 3;
    config.num_layers = 2;
    config.num_heads = config.num_kv_heads = 1;
    config.head_dim = 2;
    config.max_position_embeddings = 4096;
    config.windows = {0, 4};
    config.ttt = TttConfig{.layers = {1}, .chunk = 4};
    auto created = CachePools::Create(config, *backend, {.limit_bytes = 1 << 20});
    MNEME_CHECK(created.ok());
    return *std::move(created);
  }();
  return *pools;
}

std::optional<HostMemory> Take(int64_t bytes) {
  MNEME_CHECK(bytes >= 0);
  if (bytes > kMaxImageBytes) return std::nullopt;
  return HostMemory::Allocate(bytes);
}

absl::StatusOr<StateImage> Read(const MemoryFile& file) {
  auto reader = CheckpointReader::Open("input", file, StoreId(), Key());
  MNEME_CHECK(reader.ok());
  return ReadImage(*reader, Pools(), Take);
}

// A checkpoint whose sections behind the info are written by `write`.
template <typename Write>
MemoryFile MakeFile(const CheckpointInfo& info, const Write& write) {
  MemoryFile file;
  SectionWriter writer(kCheckpointMagic, StoreId(), Key(), file);
  MNEME_CHECK(writer.Write(SectionKind::kInfo, 0, EncodeCheckpointInfo(info)).ok());
  write(writer);
  MNEME_CHECK(writer.Finish().ok());
  return file;
}

// Writes the input's sections.
void CopySections(ByteReader* input, SectionWriter& writer) {
  constexpr SectionKind kKinds[] = {
      SectionKind::kState,     SectionKind::kDelta,         SectionKind::kKv,
      SectionKind::kOpenChunk, SectionKind::kPendingUpdate, SectionKind::kFinalHidden};
  while (input->ok() && input->remaining() >= 4) {
    const SectionKind kind = kKinds[input->Fixed<uint8_t>() % std::size(kKinds)];
    const auto index = input->Fixed<uint8_t>();
    const size_t length = std::min<size_t>(input->Fixed<uint16_t>(), input->remaining());
    MNEME_CHECK(writer.Write(kind, index, input->Raw(length)).ok());
  }
}

}  // namespace
}  // namespace mneme

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mneme;
  ByteReader input({reinterpret_cast<const char*>(data), size});
  CheckpointInfo info = {.create_time = absl::UnixEpoch()};
  info.position = input.Fixed<int64_t>();
  info.has_kv = input.Fixed<uint8_t>() % 2 == 1;
  const auto image =
      Read(MakeFile(info, [&input](SectionWriter& writer) { CopySections(&input, writer); }));
  if (!image.ok()) return 0;
  MNEME_CHECK(image->shape.computed == info.position);
  MNEME_CHECK(image->bytes.bytes() == ImageBytes(image->shape, Pools()));
  MNEME_CHECK(image->bytes.bytes() <= static_cast<int64_t>(size));
  const auto again = Read(MakeFile(info, [&](SectionWriter& writer) {
    MNEME_CHECK(WriteImage(*image, Pools(), info.has_kv, writer).ok());
  }));
  MNEME_CHECK(again.ok() && again->shape.last_hidden == image->shape.last_hidden);
  MNEME_CHECK(again->shape.waiting.size() == image->shape.waiting.size());
  return 0;
}
