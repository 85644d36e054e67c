#include "engine/tiers/image_sections.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/coding.h"

namespace mneme {
namespace {

// More than any state's shape takes.
constexpr uint64_t kMaxShapeBytes = 1 << 16;
// More than any session's, and sizes that follow from it do not overflow.
constexpr int64_t kMaxPosition = int64_t{1} << 40;

SectionKind KindOf(StatePart part) {
  switch (part) {
    case StatePart::kDelta:
      return SectionKind::kDelta;
    case StatePart::kKv:
      return SectionKind::kKv;
    case StatePart::kOpenChunk:
      return SectionKind::kOpenChunk;
    case StatePart::kWaitingChunk:
      return SectionKind::kPendingUpdate;
  }
  return SectionKind::kEnd;
}

// The image's bytes from its beginning on, piece by piece.
class Cursor {
 public:
  explicit Cursor(const HostMemory& memory) : ranges_(memory.ranges()) {}

  // Calls `use(data, size)` for the pieces of the next `bytes`.
  template <typename Use>
  absl::Status Next(int64_t bytes, const Use& use) {
    while (bytes > 0) {
      const MemoryRange& range = ranges_[at_];
      const int64_t piece = std::min(bytes, range.bytes - done_);
      MNEME_RETURN_IF_ERROR(
          use(static_cast<char*>(range.data) + done_, static_cast<size_t>(piece)));
      bytes -= piece;
      done_ += piece;
      if (done_ < range.bytes) continue;
      ++at_;
      done_ = 0;
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<MemoryRange> ranges_;
  size_t at_ = 0;
  int64_t done_ = 0;  // of ranges_[at_]
};

// What the sizes of all parts follow from, but for the state's own shape.
std::vector<int64_t> LayoutOf(const CachePools& pools) {
  std::vector<int64_t> layout = {kPageTokens, pools.chunk(), pools.num_ttt_layers(),
                                 pools.TargetBytes(1), pools.ZBytes(1)};
  if (pools.num_ttt_layers() > 0) layout.push_back(pools.delta_bytes());
  for (size_t g = 0; g < pools.groups().size(); ++g) {
    layout.push_back(pools.groups()[g].window);
    layout.push_back(pools.page_bytes(g));
  }
  return layout;
}

std::string EncodeShape(const StateShape& shape, const CachePools& pools) {
  ByteWriter writer;
  writer.Array<int64_t>(LayoutOf(pools));
  writer.Bool(shape.cache.deltas_written);
  for (const CacheShape::Pages& pages : shape.cache.pages) writer.Fixed(pages.first_position);
  writer.Varint(shape.waiting.size());
  for (const StateShape::Waiting& update : shape.waiting) {
    writer.Fixed(update.chunk);
    writer.Fixed(update.controls.max_lag_chunks);
    writer.Fixed(update.controls.clip_norm);
    writer.Fixed(update.controls.decay);
    writer.Fixed(update.controls.lr_scale);
    writer.Fixed(update.controls.max_relative_norm);
  }
  return writer.Take();
}

StateShape::Waiting DecodeWaiting(ByteReader& reader) {
  StateShape::Waiting update;
  update.chunk = reader.Fixed<int64_t>();
  update.controls.max_lag_chunks = reader.Fixed<int64_t>();
  update.controls.clip_norm = reader.Fixed<float>();
  update.controls.decay = reader.Fixed<float>();
  update.controls.lr_scale = reader.Fixed<float>();
  update.controls.max_relative_norm = reader.Fixed<float>();
  return update;
}

// Where the pages of a group with `window` begin once `computed` positions are computed.
int64_t FirstPosition(int64_t window, int64_t computed) {
  if (window == 0) return 0;
  return std::max<int64_t>(computed - window + 1, 0) / kPageTokens * kPageTokens;
}

// Waiting updates as a session can have them: of closed chunks, in order, with valid controls.
bool AreSound(const std::vector<StateShape::Waiting>& waiting, int64_t closed_chunks) {
  if (static_cast<int64_t>(waiting.size()) > kMaxLagChunks + 1) return false;
  int64_t next_chunk = 0;
  for (const StateShape::Waiting& update : waiting) {
    if (update.chunk < next_chunk || update.chunk >= closed_chunks) return false;
    if (!ValidateControls(update.controls).ok()) return false;
    next_chunk = update.chunk + 1;
  }
  return true;
}

absl::Status Damaged(const std::string& why) {
  return absl::DataLossError(absl::StrCat("the checkpoint's state is damaged: ", why));
}

absl::StatusOr<StateShape> DecodeShape(absl::string_view bytes, const CheckpointInfo& info,
                                       const CachePools& pools) {
  ByteReader reader(bytes);
  std::vector<int64_t> layout;
  reader.Array(&layout);
  if (reader.ok() && layout != LayoutOf(pools)) {
    return absl::FailedPreconditionError(
        "the checkpoint was written with another model, backend or number format");
  }
  if (info.position < 0 || info.position > kMaxPosition) return Damaged("its position");
  StateShape shape = {.computed = info.position};
  shape.cache.deltas_written = reader.Bool();
  for (const KvGroup& group : pools.groups()) {
    // All that windows have left behind was given back in the step that did so.
    const auto first = reader.Fixed<int64_t>();
    if (first != FirstPosition(group.window, info.position)) return Damaged("where pages begin");
    const int64_t pages = info.has_kv ? PagesFor(info.position - first) : 0;
    shape.cache.pages.push_back({first, pages});
  }
  for (size_t count = reader.Count(sizeof(int64_t)); count > 0 && reader.ok(); --count) {
    shape.waiting.push_back(DecodeWaiting(reader));
  }
  MNEME_RETURN_IF_ERROR(reader.Finish("the shape of a checkpoint's state"));
  const int64_t chunk = pools.chunk();
  if (!AreSound(shape.waiting, chunk == 0 ? 0 : info.position / chunk)) {
    return Damaged("which updates wait");
  }
  if (shape.cache.deltas_written && chunk == 0) return Damaged("what was learnt");
  shape.cache.waiting_rows = static_cast<int64_t>(shape.waiting.size());
  shape.cache.has_open_rows = chunk > 0 && info.position % chunk != 0;
  shape.cache.has_deltas = shape.cache.deltas_written || !shape.waiting.empty();
  return shape;
}

// The next section, which must be this one.
absl::Status Expect(CheckpointReader& reader, SectionKind kind, int64_t index, int64_t length) {
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader.Next());
  const std::string name = NameOf(kind, static_cast<uint32_t>(index));
  if (!head || head->kind != kind || head->index != static_cast<uint32_t>(index)) {
    return Damaged(absl::StrCat(name, " is missing"));
  }
  if (head->length == static_cast<uint64_t>(length)) return absl::OkStatus();
  return Damaged(absl::StrCat(name, " has ", head->length, " bytes instead of ", length));
}

absl::StatusOr<StateShape> ReadShape(CheckpointReader& reader, const CachePools& pools) {
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> head, reader.Next());
  if (!head || head->kind != SectionKind::kState) return Damaged("it has no shape");
  MNEME_ASSIGN_OR_RETURN(const std::string bytes, reader.ReadAll(kMaxShapeBytes));
  return DecodeShape(bytes, reader.info(), pools);
}

absl::Status ReadParts(CheckpointReader& reader, const CachePools& pools, const StateImage& image) {
  Cursor cursor(image.bytes);
  for (const ImagePart& part : PartsOf(image.shape, pools)) {
    if (part.part == StatePart::kKv && !reader.info().has_kv) continue;
    MNEME_RETURN_IF_ERROR(Expect(reader, KindOf(part.part), part.index, part.bytes));
    MNEME_RETURN_IF_ERROR(
        cursor.Next(part.bytes, [&](char* data, size_t size) { return reader.Read(size, data); }));
  }
  return absl::OkStatus();
}

absl::Status ReadFinalHidden(CheckpointReader& reader, const CachePools& pools, StateShape* shape) {
  const int64_t bytes = shape->computed == 0 ? 0 : pools.hidden_bytes();
  MNEME_RETURN_IF_ERROR(Expect(reader, SectionKind::kFinalHidden, 0, bytes));
  shape->last_hidden.resize(static_cast<size_t>(bytes));
  return reader.Read(shape->last_hidden.size(), shape->last_hidden.data());
}

}  // namespace

absl::Status WriteImage(const StateImage& image, const CachePools& pools, bool with_kv,
                        SectionWriter& writer) {
  MNEME_RETURN_IF_ERROR(writer.Write(SectionKind::kState, 0, EncodeShape(image.shape, pools)));
  Cursor cursor(image.bytes);
  for (const ImagePart& part : PartsOf(image.shape, pools)) {
    const bool skipped = part.part == StatePart::kKv && !with_kv;
    if (!skipped) {
      MNEME_RETURN_IF_ERROR(writer.Begin(KindOf(part.part), static_cast<uint32_t>(part.index),
                                         static_cast<uint64_t>(part.bytes)));
    }
    MNEME_RETURN_IF_ERROR(cursor.Next(part.bytes, [&](char* data, size_t size) {
      return skipped ? absl::OkStatus() : writer.Append({data, size});
    }));
  }
  const HiddenRow& hidden = image.shape.last_hidden;
  return writer.Write(SectionKind::kFinalHidden, 0, {hidden.data(), hidden.size()});
}

absl::StatusOr<StateImage> ReadImage(CheckpointReader& reader, const CachePools& pools,
                                     HostPool& host) {
  return ReadImage(reader, pools, [&host](int64_t bytes) { return host.Take(bytes); });
}

absl::StatusOr<StateImage> ReadImage(CheckpointReader& reader, const CachePools& pools,
                                     const TakeHostMemory& take) {
  MNEME_ASSIGN_OR_RETURN(StateShape shape, ReadShape(reader, pools));
  const int64_t bytes = ImageBytes(shape, pools);
  std::optional<HostMemory> memory = take(bytes);
  if (!memory) {
    return absl::ResourceExhaustedError(absl::StrCat("the host cache has no room for a state of ",
                                                     bytes, " bytes (--host_cache_bytes)"));
  }
  StateImage image = {std::move(shape), *std::move(memory)};
  MNEME_RETURN_IF_ERROR(ReadParts(reader, pools, image));
  MNEME_RETURN_IF_ERROR(ReadFinalHidden(reader, pools, &image.shape));
  MNEME_ASSIGN_OR_RETURN(const std::optional<SectionHead> end, reader.Next());
  if (end) return Damaged("there is more than the state");
  return image;
}

}  // namespace mneme
