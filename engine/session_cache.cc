#include "engine/session_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace

CachePools::CachePools(const ModelConfig& config, const Backend& backend, int64_t limit_bytes)
    : kv_heads_(config.num_kv_heads),
      head_dim_(config.head_dim),
      hidden_size_(config.hidden_size),
      intermediate_size_(config.intermediate_size),
      num_ttt_layers_(config.ttt ? static_cast<int64_t>(config.ttt->layers.size()) : 0),
      chunk_(config.ttt ? config.ttt->chunk : 0),
      kv_dtype_(backend.kv_dtype()),
      delta_dtype_(backend.delta_dtype()),
      activation_dtype_(backend.activation_dtype()),
      budget_(limit_bytes) {
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
                                                               int64_t limit_bytes) {
  std::unique_ptr<CachePools> pools(new CachePools(config, backend, limit_bytes));
  MNEME_RETURN_IF_ERROR(pools->CreatePools(backend));
  return pools;
}

absl::Status CachePools::CreatePools(Backend& backend) {
  const auto add = [&](std::vector<BlockPool>& pools, int64_t block_bytes) -> absl::Status {
    MNEME_ASSIGN_OR_RETURN(BlockPool pool,
                           BlockPool::Create(backend, block_bytes, budget_.limit_bytes()));
    pools.push_back(std::move(pool));
    return absl::OkStatus();
  };
  for (const KvGroup& group : groups_) {
    MNEME_RETURN_IF_ERROR(
        add(kv_pools_, static_cast<int64_t>(group.layers.size()) * LayerPageBytes()));
  }
  if (num_ttt_layers_ == 0) return absl::OkStatus();
  MNEME_RETURN_IF_ERROR(add(delta_pool_, hidden_size_ * intermediate_size_ * SizeOf(delta_dtype_)));
  return add(chunk_pool_, num_ttt_layers_ * chunk_ * (hidden_size_ + intermediate_size_) *
                              SizeOf(activation_dtype_));
}

int64_t CachePools::LayerPageBytes() const {
  return 2 * kPageTokens * kv_heads_ * head_dim_ * SizeOf(kv_dtype_);
}

KvLayer CachePools::LayerKv(int layer) const {
  const int group = group_of_layer_[static_cast<size_t>(layer)];
  const BlockPool& pool = kv_pools_[static_cast<size_t>(group)];
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
  for (const auto* pools : {&kv_pools_, &delta_pool_, &chunk_pool_}) {
    for (const BlockPool& pool : *pools) bytes += pool.held_blocks() * pool.block_bytes();
  }
  return bytes;
}

SessionCache::SessionCache(CachePools& pools)
    : pools_(pools), pages_(pools.groups().size()), tables_(pools.groups().size()) {}

SessionCache::~SessionCache() {
  TruncatePages(0);
  for (const Delta& delta : deltas_) Give(pools_.delta_pool_[0], delta.block);
  if (has_chunk_rows()) GiveChunkRows();
  MNEME_CHECK(held_bytes_ == 0);
  pools_.budget_.Release(reserved_bytes_);
}

int64_t SessionCache::PeakBytes(int64_t computed, int64_t logged_end, int64_t provisional_end,
                                int64_t max_step_tokens) const {
  int64_t bytes = 0;
  for (size_t g = 0; g < pages_.size(); ++g) {
    const int64_t window = pools_.groups_[g].window;
    int64_t tokens = logged_end - pages_[g].first_position;
    if (window > 0) {
      // A step holds the window before it, its own rows, and what is left of two pages.
      const int64_t step = std::min(max_step_tokens, logged_end - computed);
      tokens = std::min(tokens, window + step + 2 * kPageTokens);
    }
    tokens += provisional_end - logged_end;
    bytes += PagesFor(tokens) * pools_.kv_pools_[g].block_bytes();
  }
  if (pools_.num_ttt_layers_ == 0) return bytes;
  if (has_deltas() || logged_end / pools_.chunk_ > computed / pools_.chunk_) {
    bytes += pools_.num_ttt_layers_ * pools_.delta_pool_[0].block_bytes();
  }
  if (has_chunk_rows() || logged_end > computed) bytes += pools_.chunk_pool_[0].block_bytes();
  return bytes;
}

bool SessionCache::Reserve(int64_t bytes) {
  if (bytes <= reserved_bytes_) return true;
  if (!pools_.budget_.Reserve(bytes - reserved_bytes_)) return false;
  reserved_bytes_ = bytes;
  return true;
}

void SessionCache::ReleaseUnused() {
  pools_.budget_.Release(reserved_bytes_ - held_bytes_);
  reserved_bytes_ = held_bytes_;
}

int32_t SessionCache::Take(BlockPool& pool) {
  held_bytes_ += pool.block_bytes();
  MNEME_CHECK(held_bytes_ <= reserved_bytes_);
  return pool.Take();
}

void SessionCache::Give(BlockPool& pool, int32_t block) {
  pool.Give(block);
  held_bytes_ -= pool.block_bytes();
}

void SessionCache::ExtendPages(int64_t end_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const auto wanted = static_cast<size_t>(PagesFor(end_position - pages.first_position));
    while (pages.blocks.size() < wanted) pages.blocks.push_back(Take(pools_.kv_pools_[g]));
  }
  RefreshTables();
}

void SessionCache::TruncatePages(int64_t end_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const int64_t tokens = std::max<int64_t>(end_position - pages.first_position, 0);
    while (pages.blocks.size() > static_cast<size_t>(PagesFor(tokens))) {
      Give(pools_.kv_pools_[g], pages.blocks.back());
      pages.blocks.pop_back();
    }
  }
  RefreshTables();
}

void SessionCache::RecyclePages(int64_t next_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    const int64_t window = pools_.groups_[g].window;
    if (window == 0) continue;
    Pages& pages = pages_[g];
    const int64_t first_visible = std::max<int64_t>(next_position - window + 1, 0);
    const auto unseen =
        std::min(static_cast<size_t>((first_visible - pages.first_position) / kPageTokens),
                 pages.blocks.size());
    for (size_t i = 0; i < unseen; ++i) Give(pools_.kv_pools_[g], pages.blocks[i]);
    pages.blocks.erase(pages.blocks.begin(),
                       pages.blocks.begin() + static_cast<std::ptrdiff_t>(unseen));
    pages.first_position += static_cast<int64_t>(unseen) * kPageTokens;
  }
  RefreshTables();
}

void SessionCache::RefreshTables() {
  for (size_t g = 0; g < pages_.size(); ++g) {
    tables_[g] = {.pages = pages_[g].blocks, .first_position = pages_[g].first_position};
  }
}

void SessionCache::TakeDeltas() {
  MNEME_CHECK(deltas_.empty());
  for (int64_t layer = 0; layer < pools_.num_ttt_layers_; ++layer) {
    deltas_.push_back({.block = Take(pools_.delta_pool_[0]), .written = false});
  }
}

const void* SessionCache::delta(int64_t layer) const {
  if (deltas_.empty()) return nullptr;
  const Delta& delta = deltas_[static_cast<size_t>(layer)];
  return delta.written ? pools_.delta_pool_[0].Address(delta.block) : nullptr;
}

void* SessionCache::mutable_delta(int64_t layer) {
  return pools_.delta_pool_[0].Address(deltas_[static_cast<size_t>(layer)].block);
}

void SessionCache::TakeChunkRows() {
  MNEME_CHECK(!has_chunk_rows());
  chunk_rows_ = Take(pools_.chunk_pool_[0]);
}

void SessionCache::GiveChunkRows() {
  Give(pools_.chunk_pool_[0], chunk_rows_);
  chunk_rows_ = -1;
}

Matrix SessionCache::chunk_target(int64_t layer) const {
  const int64_t d = pools_.hidden_size_, f = pools_.intermediate_size_, rows = pools_.chunk_;
  const DType dtype = pools_.activation_dtype_;
  char* block = static_cast<char*>(pools_.chunk_pool_[0].Address(chunk_rows_));
  return {block + layer * rows * (d + f) * SizeOf(dtype), dtype, rows, d, d};
}

Matrix SessionCache::chunk_z(int64_t layer) const {
  const Matrix target = chunk_target(layer);
  const int64_t f = pools_.intermediate_size_;
  char* end = static_cast<char*>(target.data) + target.rows * target.cols * SizeOf(target.dtype);
  return {end, target.dtype, target.rows, f, f};
}

}  // namespace mneme
