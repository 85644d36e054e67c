#include "engine/tiers/state_image.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace mneme {
namespace {

// Rows of the open chunk that are kept.
int64_t OpenRows(const StateShape& shape, const CachePools& pools) {
  return shape.cache.has_open_rows ? shape.computed % pools.chunk() : 0;
}

void* Offset(void* data, int64_t bytes) { return static_cast<char*>(data) + bytes; }

}  // namespace

std::vector<ImagePart> PartsOf(const StateShape& shape, const CachePools& pools) {
  std::vector<ImagePart> parts;
  for (int64_t layer = 0; shape.cache.deltas_written && layer < pools.num_ttt_layers(); ++layer) {
    parts.push_back({StatePart::kDelta, layer, pools.delta_bytes()});
  }
  for (size_t g = 0; g < shape.cache.pages.size(); ++g) {
    const int64_t bytes = shape.cache.pages[g].count * pools.page_bytes(g);
    parts.push_back({StatePart::kKv, static_cast<int64_t>(g), bytes});
  }
  if (shape.cache.has_open_rows) {
    const int64_t rows = OpenRows(shape, pools);
    for (int64_t layer = 0; layer < pools.num_ttt_layers(); ++layer) {
      parts.push_back({StatePart::kOpenChunk, layer, pools.TargetBytes(rows) + pools.ZBytes(rows)});
    }
  }
  for (int64_t i = 0; i < shape.cache.waiting_rows; ++i) {
    parts.push_back({StatePart::kWaitingChunk, i, pools.chunk_bytes()});
  }
  return parts;
}

int64_t ImageBytes(const StateShape& shape, const CachePools& pools) {
  const std::vector<ImagePart> parts = PartsOf(shape, pools);
  return std::accumulate(parts.begin(), parts.end(), int64_t{0},
                         [](int64_t sum, const ImagePart& part) { return sum + part.bytes; });
}

std::vector<MemoryRange> DeviceRanges(const ComputedState& state, const CachePools& pools) {
  const SessionCache& cache = state.cache();
  const StateShape shape = state.shape();
  std::vector<MemoryRange> ranges;
  for (int64_t layer = 0; shape.cache.deltas_written && layer < pools.num_ttt_layers(); ++layer) {
    ranges.push_back({cache.delta(layer), pools.delta_bytes()});
  }
  for (size_t g = 0; g < shape.cache.pages.size(); ++g) {
    for (const int32_t page : cache.page_tables()[g].pages) {
      ranges.push_back({pools.PageAddress(g, page), pools.page_bytes(g)});
    }
  }
  if (shape.cache.has_open_rows) {
    const int64_t rows = OpenRows(shape, pools);
    for (int64_t layer = 0; layer < pools.num_ttt_layers(); ++layer) {
      ranges.push_back(
          {Offset(cache.open_rows(), pools.ChunkTargetOffset(layer)), pools.TargetBytes(rows)});
      ranges.push_back({Offset(cache.open_rows(), pools.ChunkZOffset(layer)), pools.ZBytes(rows)});
    }
  }
  for (int64_t i = 0; i < shape.cache.waiting_rows; ++i) {
    ranges.push_back({cache.waiting_rows(static_cast<size_t>(i)), pools.chunk_bytes()});
  }
  return ranges;
}

std::vector<HostCopy> CopiesBetween(const std::vector<MemoryRange>& device,
                                    const std::vector<MemoryRange>& host) {
  std::vector<HostCopy> copies;
  size_t at = 0;
  int64_t done = 0;  // of host[at]
  for (MemoryRange rest : device) {
    while (rest.bytes > 0) {
      MNEME_CHECK(at < host.size());
      const int64_t bytes = std::min(rest.bytes, host[at].bytes - done);
      copies.push_back({rest.data, Offset(host[at].data, done), bytes});
      rest = {Offset(rest.data, bytes), rest.bytes - bytes};
      done += bytes;
      if (done < host[at].bytes) continue;
      ++at;
      done = 0;
    }
  }
  MNEME_CHECK(at == host.size());
  return copies;
}

}  // namespace mneme
