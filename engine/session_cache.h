#ifndef MNEME_ENGINE_SESSION_CACHE_H_
#define MNEME_ENGINE_SESSION_CACHE_H_

// What a session holds on the device: KV pages, fast weights ΔW, and the rows of its open chunk.
// Everything comes in blocks from pools and is accounted in one budget: a session reserves bytes
// before it takes blocks, so reserved ≥ held at any time, and reserved = held at rest.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/config.h"
#include "engine/pool.h"
#include "kernels/backend.h"

namespace mneme {

// Positions in a KV page.
inline constexpr int64_t kPageTokens = 16;

// Layers whose sliding window is the same: they need and free pages together.
struct KvGroup {
  int64_t window = 0;  // 0: full attention
  std::vector<int> layers;
};

// The pools of one engine and the layout of their blocks. One thread. Must outlive its sessions'
// caches and be outlived by the backend.
class CachePools {
 public:
  // `limit_bytes`: of all sessions together.
  static absl::StatusOr<std::unique_ptr<CachePools>> Create(const ModelConfig& config,
                                                            Backend& backend, int64_t limit_bytes);

  const std::vector<KvGroup>& groups() const { return groups_; }
  // Where layer `layer` finds its keys and values in the pages of its group.
  KvLayer LayerKv(int layer) const;

  int64_t num_ttt_layers() const { return num_ttt_layers_; }
  int64_t chunk() const { return chunk_; }  // C; 0 without TTT
  MemoryBudget& budget() { return budget_; }
  // Of blocks that are taken now.
  int64_t held_bytes() const;

 private:
  friend class SessionCache;

  CachePools(const ModelConfig& config, const Backend& backend, int64_t limit_bytes);
  absl::Status CreatePools(Backend& backend);
  int64_t LayerPageBytes() const;  // one layer's K and V of a page

  const int64_t kv_heads_, head_dim_, hidden_size_, intermediate_size_;
  const int64_t num_ttt_layers_, chunk_;
  const DType kv_dtype_, delta_dtype_, activation_dtype_;
  std::vector<KvGroup> groups_;
  std::vector<int> group_of_layer_, index_in_group_;  // [num_layers]
  MemoryBudget budget_;

  std::vector<BlockPool> kv_pools_;    // one for each group; a block is a page of all its layers
  std::vector<BlockPool> delta_pool_;  // at most one; a block is one layer's ΔW
  std::vector<BlockPool> chunk_pool_;  // at most one; a block is an open chunk's rows, all layers
};

// One session's blocks. One thread; gives everything back when destroyed.
class SessionCache {
 public:
  explicit SessionCache(CachePools& pools);
  ~SessionCache();
  SessionCache(const SessionCache&) = delete;
  SessionCache& operator=(const SessionCache&) = delete;

  // --- Reservation. ---
  // An upper bound of the bytes held while positions are computed from `computed` on, in steps of
  // at most `max_step_tokens` rows: up to `logged_end` for good, then up to `provisional_end` with
  // rows that close no chunk and free no pages.
  int64_t PeakBytes(int64_t computed, int64_t logged_end, int64_t provisional_end,
                    int64_t max_step_tokens) const;
  // Raises the reservation to `bytes`; false, and nothing changed, if the budget has not that much.
  bool Reserve(int64_t bytes);
  // Reserves just what is held.
  void ReleaseUnused();
  const MemoryBudget& budget() const { return pools_.budget_; }
  int64_t held_bytes() const { return held_bytes_; }
  int64_t reserved_bytes() const { return reserved_bytes_; }

  // --- KV pages. ---
  // Takes pages for every position below `end_position`.
  void ExtendPages(int64_t end_position);
  // Gives back the pages of positions from `end_position` on.
  void TruncatePages(int64_t end_position);
  // Gives back the pages that no position from `next_position` on can see.
  void RecyclePages(int64_t next_position);
  // One for each group; valid until the next change.
  absl::Span<const PageTable> page_tables() const { return tables_; }

  // --- Fast weights; `layer` counts the TTT layers. ---
  bool has_deltas() const { return !deltas_.empty(); }
  // Takes a ΔW for each TTT layer, of unspecified content: unwritten.
  void TakeDeltas();
  // Null while ΔW = 0.
  const void* delta(int64_t layer) const;
  void* mutable_delta(int64_t layer);
  bool delta_written(int64_t layer) const { return deltas_[static_cast<size_t>(layer)].written; }
  void MarkDeltaWritten(int64_t layer) { deltas_[static_cast<size_t>(layer)].written = true; }

  // --- Rows of the open chunk, in the activation dtype. ---
  bool has_chunk_rows() const { return chunk_rows_ >= 0; }
  void TakeChunkRows();
  void GiveChunkRows();
  Matrix chunk_target(int64_t layer) const;  // t [C, d]
  Matrix chunk_z(int64_t layer) const;       // [C, f]

 private:
  struct Pages {
    int64_t first_position = 0;
    std::vector<int32_t> blocks;
  };
  struct Delta {
    int32_t block;
    bool written;
  };

  int32_t Take(BlockPool& pool);
  void Give(BlockPool& pool, int32_t block);
  void RefreshTables();

  CachePools& pools_;
  int64_t reserved_bytes_ = 0;
  int64_t held_bytes_ = 0;
  std::vector<Pages> pages_;  // one for each group
  std::vector<PageTable> tables_;
  std::vector<Delta> deltas_;  // empty, or one for each TTT layer
  int32_t chunk_rows_ = -1;    // block; -1: none
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_CACHE_H_
