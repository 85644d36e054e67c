#ifndef MNEME_ENGINE_SESSION_CACHE_POOLS_H_
#define MNEME_ENGINE_SESSION_CACHE_POOLS_H_

// The device memory of all sessions: pools of blocks, and what lies where in a block.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loading/config.h"
#include "engine/session/pool.h"
#include "kernels/backend.h"

namespace mneme {

// Positions in a KV page.
inline constexpr int64_t kPageTokens = 16;

// Pages that hold so many positions.
int64_t PagesFor(int64_t tokens);
// Tokens whose pages are held at most while a group with `window` computes positions from
// `computed` up to `end`, the first of its pages being that of `first_position`.
int64_t PeakTokens(int64_t window, int64_t first_position, int64_t computed, int64_t end,
                   int64_t max_step_tokens);

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

  // --- Blocks. ---
  void* PageAddress(size_t group, int32_t page) const { return pools_[group].Address(page); }
  int64_t page_bytes(size_t group) const { return pools_[group].block_bytes(); }
  int64_t delta_bytes() const { return pools_[delta_pool()].block_bytes(); }  // with TTT
  int64_t chunk_bytes() const { return ChunkTargetOffset(num_ttt_layers_); }
  // Of `rows` of a chunk, those of one TTT layer.
  int64_t TargetBytes(int64_t rows) const {
    return rows * hidden_size_ * SizeOf(activation_dtype_);
  }
  int64_t ZBytes(int64_t rows) const {
    return rows * intermediate_size_ * SizeOf(activation_dtype_);
  }
  // Of a HiddenRow.
  int64_t hidden_bytes() const { return TargetBytes(1); }
  MemoryBudget& budget() { return *budget_; }
  // Of blocks that are taken now, once for each session that holds them.
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

}  // namespace mneme

#endif  // MNEME_ENGINE_SESSION_CACHE_POOLS_H_
