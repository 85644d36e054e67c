#ifndef MNEME_ENGINE_SESSION_CACHE_H_
#define MNEME_ENGINE_SESSION_CACHE_H_

// What a session holds on the device: KV pages, fast weights ΔW, and the rows of chunks that are
// not learnt yet. Everything comes in blocks from pools and is accounted in one budget: a session
// reserves blocks before it takes them, so reserved ≥ held at any time, and reserved = held at
// rest.

#include <cstdint>
#include <memory>
#include <optional>
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

// How much memory the pools get, and by what it is divided among them.
struct CacheOptions {
  int64_t limit_bytes = 0;  // of all sessions together
  // Where memory is taken up by being allocated, each pool gets the share that it has of a
  // session of so many tokens. Elsewhere any pool may fill the limit.
  int64_t session_tokens = 4096;
  int64_t max_step_tokens = 512;
};

// The pools of one engine and the layout of their blocks: first those of the KV groups, a block
// being a page of all the group's layers; with TTT then that of ΔW, a block being one layer's, and
// that of chunks, a block being the rows of all layers. One thread. Must outlive its sessions'
// caches and be outlived by the backend.
class CachePools {
 public:
  // RESOURCE_EXHAUSTED if the limit does not give every pool a block, or the device has not that
  // much.
  static absl::StatusOr<std::unique_ptr<CachePools>> Create(const ModelConfig& config,
                                                            Backend& backend,
                                                            const CacheOptions& options);
  // Bytes that a session of `tokens` which learns holds at most, computed in steps of up to
  // `max_step_tokens` rows.
  static int64_t SessionBytes(const ModelConfig& config, const Backend& backend, int64_t tokens,
                              int64_t max_step_tokens);

  const std::vector<KvGroup>& groups() const { return groups_; }
  // Where layer `layer` finds its keys and values in the pages of its group.
  KvLayer LayerKv(int layer) const;

  int64_t num_ttt_layers() const { return num_ttt_layers_; }
  int64_t chunk() const { return chunk_; }  // C; 0 without TTT
  // Where a TTT layer's rows t [C, d] and z [C, f] begin in a chunk's block, in bytes.
  int64_t ChunkTargetOffset(int64_t layer) const;
  int64_t ChunkZOffset(int64_t layer) const;
  // These rows of the block `rows`, in the activation dtype.
  Matrix ChunkTarget(void* rows, int64_t layer) const;
  Matrix ChunkZ(void* rows, int64_t layer) const;
  MemoryBudget& budget() { return *budget_; }
  // Of blocks that are taken now.
  int64_t held_bytes() const;

 private:
  friend class SessionCache;

  CachePools(const ModelConfig& config, const Backend& backend);
  // Name and size of each pool's blocks.
  std::vector<PoolShape> Shapes(const Backend& backend) const;
  BlockCounts SessionBlocks(int64_t tokens, int64_t max_step_tokens) const;
  absl::Status CreatePools(Backend& backend, const CacheOptions& options);
  int64_t LayerPageBytes() const;  // one layer's K and V of a page
  size_t delta_pool() const { return groups_.size(); }
  size_t chunk_pool() const { return groups_.size() + 1; }

  const int64_t kv_heads_, head_dim_, hidden_size_, intermediate_size_;
  const int64_t num_ttt_layers_, chunk_, context_;
  const DType kv_dtype_, activation_dtype_;
  std::vector<KvGroup> groups_;
  std::vector<int> group_of_layer_, index_in_group_;  // [num_layers]
  std::optional<MemoryBudget> budget_;
  std::vector<BlockPool> pools_;
};

// One session's blocks. One thread; gives everything back when destroyed.
class SessionCache {
 public:
  explicit SessionCache(CachePools& pools);
  ~SessionCache();
  SessionCache(const SessionCache&) = delete;
  SessionCache& operator=(const SessionCache&) = delete;

  // --- Reservation. ---
  // An upper bound of the blocks held while positions are computed from `computed` on, in steps of
  // at most `max_step_tokens` rows: up to `logged_end` for good, then up to `provisional_end` with
  // rows that close no chunk and free no pages. `max_lag_chunks` closed chunks may wait while
  // positions are computed.
  BlockCounts PeakBlocks(int64_t computed, int64_t logged_end, int64_t provisional_end,
                         int64_t max_step_tokens, int64_t max_lag_chunks) const;
  // Whether so much is reserved already.
  bool Covers(const BlockCounts& blocks) const;
  // Raises the reservation to `blocks` of each pool; false, and nothing changed, if the budget has
  // not that much. The reservation is then leased: it stays, whatever is given back.
  bool Reserve(const BlockCounts& blocks);
  // Ends the lease: reserves just what is held, now and when chunks' rows are given back.
  void ReleaseUnused();
  const MemoryBudget& budget() const { return *pools_.budget_; }
  int64_t held_bytes() const { return budget().BytesOf(held_); }
  int64_t reserved_bytes() const { return budget().BytesOf(reserved_); }

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
  // One for each TTT layer, or none. They hold something once they are written.
  absl::Span<const void* const> deltas() const { return deltas_; }
  void* mutable_delta(int64_t layer);
  // False while ΔW = 0 in all layers.
  bool deltas_written() const { return deltas_written_; }
  void MarkDeltasWritten() { deltas_written_ = true; }

  // --- Rows of chunks: of the open one, and of closed ones that wait for their update. ---
  bool has_open_rows() const { return open_rows_ >= 0; }
  // Whether a block for them is reserved and not held.
  bool can_take_open_rows() const;
  void TakeOpenRows();
  void GiveOpenRows();
  void* open_rows() const;  // the block
  // The open chunk has closed: its block is the last of those that wait. Returns it.
  void* KeepOpenRowsWaiting();
  // Gives back the first `count` blocks that wait.
  void GiveWaitingRows(int64_t count);

 private:
  struct Pages {
    int64_t first_position = 0;
    std::vector<int32_t> blocks;
  };

  void* ChunkBlock(int32_t block) const;
  int32_t Take(size_t pool);
  void Give(size_t pool, int32_t block);
  void RefreshTables();

  CachePools& pools_;
  BlockCounts reserved_, held_;
  std::vector<Pages> pages_;  // one for each group
  std::vector<PageTable> tables_;
  std::vector<int32_t> delta_blocks_;  // empty, or one for each TTT layer
  std::vector<const void*> deltas_;    // their addresses
  bool deltas_written_ = false;
  int32_t open_rows_ = -1;  // block; -1: none
  std::vector<int32_t> waiting_rows_;
  bool leased_ = false;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_CACHE_H_
