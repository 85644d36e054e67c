#include "engine/session/cache_pools.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

// The share of `limit_bytes` that a pool gets of which a session of `session_bytes` takes `blocks`.
int64_t SharedBlocks(int64_t limit_bytes, int64_t session_bytes, int64_t blocks) {
  return limit_bytes / session_bytes * blocks +
         limit_bytes % session_bytes * blocks / session_bytes;
}

}  // namespace

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

int64_t PeakTokens(int64_t window, int64_t first_position, int64_t computed, int64_t end,
                   int64_t max_step_tokens) {
  const int64_t tokens = end - first_position;
  if (window == 0) return tokens;
  // A step holds the window before it, its own rows, and what is left of two pages.
  return std::min(tokens, window + std::min(max_step_tokens, end - computed) + 2 * kPageTokens);
}

CachePools::CachePools(const ModelConfig& config, const Backend& backend)
    : kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      hidden_size_(config.hidden_size),
      intermediate_size_(config.intermediate_size),
      num_ttt_layers_(config.ttt ? static_cast<int64_t>(config.ttt->layers.size()) : 0),
      chunk_(config.ttt ? config.ttt->chunk : 0),
      context_(config.MaxSessionTokens()),
      kv_dtype_(backend.kv_dtype()),
      activation_dtype_(backend.activation_dtype()) {
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const int64_t window = config.windows[static_cast<size_t>(layer)];
    auto group = std::find_if(groups_.begin(), groups_.end(),
                              [window](const KvGroup& g) { return g.window == window; });
    if (group == groups_.end()) group = groups_.insert(group, KvGroup{window, {}});
    group_of_layer_.push_back(static_cast<int>(group - groups_.begin()));
    index_in_group_.push_back(static_cast<int>(group->layers.size()));
    group->layers.push_back(layer);
  }
}

absl::StatusOr<std::unique_ptr<CachePools>> CachePools::Create(const ModelConfig& config,
                                                               Backend& backend,
                                                               const CacheOptions& options) {
  std::unique_ptr<CachePools> pools(new CachePools(config, backend));
  MNEME_RETURN_IF_ERROR(pools->CreatePools(backend, options));
  return pools;
}

int64_t CachePools::SessionBytes(const ModelConfig& config, const Backend& backend, int64_t tokens,
                                 int64_t max_step_tokens) {
  const CachePools pools(config, backend);
  return MemoryBudget(pools.Shapes(backend), 0)
      .BytesOf(pools.SessionBlocks(tokens, max_step_tokens));
}

std::vector<PoolShape> CachePools::Shapes(const Backend& backend) const {
  std::vector<PoolShape> shapes;
  for (const KvGroup& group : groups_) {
    shapes.push_back({group.window == 0
                          ? std::string("keys and values")
                          : absl::StrCat("keys and values with a window of ", group.window),
                      static_cast<int64_t>(group.layers.size()) * LayerPageBytes()});
  }
  if (num_ttt_layers_ == 0) return shapes;
  shapes.push_back({"fast weights", backend.DeltaBytes(hidden_size_, intermediate_size_)});
  shapes.push_back({"open chunks", ChunkTargetOffset(num_ttt_layers_)});
  return shapes;
}

BlockCounts CachePools::SessionBlocks(int64_t tokens, int64_t max_step_tokens) const {
  const int64_t end = std::min(tokens, context_);
  BlockCounts blocks;
  for (const KvGroup& group : groups_) {
    blocks.push_back(PagesFor(PeakTokens(group.window, 0, 0, end, max_step_tokens)));
  }
  if (num_ttt_layers_ > 0) blocks.insert(blocks.end(), {num_ttt_layers_, 1});
  return blocks;
}

absl::Status CachePools::CreatePools(Backend& backend, const CacheOptions& options) {
  std::vector<PoolShape> shapes = Shapes(backend);
  const BlockCounts session = SessionBlocks(options.session_tokens, options.max_step_tokens);
  const int64_t session_bytes = MemoryBudget(shapes, 0).BytesOf(session);
  for (size_t i = 0; i < shapes.size(); ++i) {
    PoolShape& shape = shapes[i];
    const int64_t blocks = backend.commits_on_touch()
                               ? options.limit_bytes / shape.block_bytes
                               : SharedBlocks(options.limit_bytes, session_bytes, session[i]);
    shape.capacity = std::min<int64_t>(blocks, std::numeric_limits<int32_t>::max());
    if (shape.capacity == 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("one block of session memory for ", shape.name, " takes ", shape.block_bytes,
                       " bytes, but its share of ", options.limit_bytes,
                       " has no room for it; raise --cache_bytes"));
    }
    MNEME_ASSIGN_OR_RETURN(BlockPool pool, BlockPool::Create(backend, shape));
    pools_.push_back(std::move(pool));
  }
  budget_.emplace(std::move(shapes), options.limit_bytes);
  return absl::OkStatus();
}

int64_t CachePools::LayerPageBytes() const {
  return 2 * kPageTokens * kv_heads_ * head_dim_ * SizeOf(kv_dtype_);
}

int64_t CachePools::ChunkTargetOffset(int64_t layer) const {
  return layer * chunk_ * (hidden_size_ + intermediate_size_) * SizeOf(activation_dtype_);
}

int64_t CachePools::ChunkZOffset(int64_t layer) const {
  return ChunkTargetOffset(layer) + chunk_ * hidden_size_ * SizeOf(activation_dtype_);
}

Matrix CachePools::ChunkTarget(void* rows, int64_t layer) const {
  return {static_cast<char*>(rows) + ChunkTargetOffset(layer), activation_dtype_, chunk_,
          hidden_size_, hidden_size_};
}

Matrix CachePools::ChunkZ(void* rows, int64_t layer) const {
  return {static_cast<char*>(rows) + ChunkZOffset(layer), activation_dtype_, chunk_,
          intermediate_size_, intermediate_size_};
}

KvLayer CachePools::LayerKv(int layer) const {
  const int group = group_of_layer_[static_cast<size_t>(layer)];
  const BlockPool& pool = pools_[static_cast<size_t>(group)];
  const int64_t offset = index_in_group_[static_cast<size_t>(layer)] * LayerPageBytes();
  return {.data = static_cast<char*>(pool.Address(0)) + offset,
          .dtype = kv_dtype_,
          .page_stride_bytes = pool.block_bytes(),
          .page_tokens = kPageTokens,
          .heads = kv_heads_,
          .head_dim = head_dim_,
          .group = group};
}

int64_t CachePools::held_bytes() const {
  int64_t bytes = 0;
  for (const BlockPool& pool : pools_) bytes += pool.held_blocks() * pool.block_bytes();
  return bytes;
}

}  // namespace mneme
