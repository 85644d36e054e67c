#ifndef MNEME_ENGINE_SESSION_SESSION_CACHE_H_
#define MNEME_ENGINE_SESSION_SESSION_CACHE_H_

// What a session holds on the device: KV pages, fast weights ΔW, and the rows of chunks that are
// not learnt yet. Everything comes in blocks from pools and is accounted in one budget: a session
// reserves blocks before it takes them, so reserved ≥ held at any time, and reserved = held at
// rest.

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/session/cache_pools.h"
#include "engine/session/pool.h"
#include "kernels/backend.h"

namespace mneme {

// Which blocks a cache holds, without their content.
struct CacheShape {
  struct Pages {
    int64_t first_position = 0;
    int64_t count = 0;

    friend bool operator==(const Pages&, const Pages&) = default;
  };

  std::vector<Pages> pages;  // one for each KV group
  bool has_deltas = false;
  bool deltas_written = false;
  bool has_open_rows = false;
  int64_t waiting_rows = 0;

  friend bool operator==(const CacheShape&, const CacheShape&) = default;
};

// Content that a block needs before it is used: it was shared, and is to be written.
struct BlockCopy {
  void* to = nullptr;          // device
  const void* from = nullptr;  // device
  int64_t bytes = 0;
};

// One session's blocks. Those that other sessions share are never written: before that the cache
// takes blocks of its own instead (Own…). One thread; gives everything back when destroyed.
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
  // What of `blocks` is not reserved yet.
  int64_t MissingBytes(const BlockCounts& blocks) const;
  int64_t held_bytes() const { return budget().BytesOf(held_); }
  int64_t reserved_bytes() const { return budget().BytesOf(reserved_); }

  // --- All of it. ---
  CacheShape shape() const;
  // Takes blocks of unspecified content so that the cache, which holds nothing, has this shape;
  // false, and nothing taken, if the budget has not that much.
  bool TakeAll(const CacheShape& shape);
  // Likewise, sharing the blocks of `other`, a cache of the same pools.
  bool ShareAll(const SessionCache& other);
  // Holds nothing afterwards, and has reserved nothing.
  void GiveAll();

  // --- KV pages. ---
  // Takes pages for every position below `end_position`.
  void ExtendPages(int64_t end_position);
  // Gives back the pages of positions from `end_position` on.
  void TruncatePages(int64_t end_position);
  // Gives back the pages that no position from `next_position` on can see.
  void RecyclePages(int64_t next_position);
  // Makes the pages into which positions from `first_position` on are written its own.
  void OwnPages(int64_t first_position, std::vector<BlockCopy>* copies);
  // One for each group; valid until the next change.
  absl::Span<const PageTable> page_tables() const { return tables_; }

  // --- Fast weights; `layer` counts the TTT layers. ---
  bool has_deltas() const { return !deltas_.empty(); }
  // Takes a ΔW for each TTT layer, of unspecified content: unwritten.
  void TakeDeltas();
  // One for each TTT layer, or none. They hold something once they are written.
  absl::Span<const void* const> deltas() const { return deltas_; }
  // Before updates. What is not written yet needs no copy.
  void OwnDeltas(std::vector<BlockCopy>* copies);
  void* delta(int64_t layer) const;
  // False while ΔW = 0 in all layers.
  bool deltas_written() const { return deltas_written_; }
  void MarkDeltasWritten() { deltas_written_ = true; }

  // --- Rows of chunks: of the open one, and of closed ones that wait for their update. ---
  bool has_open_rows() const { return open_rows_ >= 0; }
  // Whether a block for them is reserved and not held.
  bool can_take_open_rows() const;
  void TakeOpenRows();
  // Before more rows are kept in the block.
  void OwnOpenRows(std::vector<BlockCopy>* copies);
  void GiveOpenRows();
  void* open_rows() const;  // the block
  // The open chunk has closed: its block is the last of those that wait. Returns it.
  void* KeepOpenRowsWaiting();
  // The `index`-th block that waits.
  void* waiting_rows(size_t index) const { return ChunkBlock(waiting_rows_[index]); }
  // Gives back the first `count` blocks that wait.
  void GiveWaitingRows(int64_t count);

 private:
  struct Pages {
    int64_t first_position = 0;
    std::vector<int32_t> blocks;
  };

  void* ChunkBlock(int32_t block) const;
  int32_t Take(size_t pool);
  int32_t Share(size_t pool, int32_t block);
  void Give(size_t pool, int32_t block);
  // A block of its own instead of `*block`, if others hold that too; its content is copied if
  // `copies` is not null.
  void Own(size_t pool, int32_t* block, std::vector<BlockCopy>* copies);
  BlockCounts BlocksOf(const CacheShape& shape) const;
  BlockCounts MissingBlocks(const BlockCounts& blocks) const;
  void RefreshTables();
  void RefreshDeltas();

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

#endif  // MNEME_ENGINE_SESSION_SESSION_CACHE_H_
