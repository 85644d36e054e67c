#include "engine/session_cache.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Tokens whose pages are held at most while a group with `window` computes positions from
// `computed` up to `end`, the first of its pages being that of `first_position`.
int64_t PeakTokens(int64_t window, int64_t first_position, int64_t computed, int64_t end,
                   int64_t max_step_tokens) {
  const int64_t tokens = end - first_position;
  if (window == 0) return tokens;
  // A step holds the window before it, its own rows, and what is left of two pages.
  return std::min(tokens, window + std::min(max_step_tokens, end - computed) + 2 * kPageTokens);
}

// The share of `limit_bytes` that a pool gets of which a session of `session_bytes` takes `blocks`.
int64_t SharedBlocks(int64_t limit_bytes, int64_t session_bytes, int64_t blocks) {
  return limit_bytes / session_bytes * blocks +
         limit_bytes % session_bytes * blocks / session_bytes;
}

}  // namespace

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

SessionCache::SessionCache(CachePools& pools)
    : pools_(pools),
      reserved_(pools.pools_.size(), 0),
      held_(pools.pools_.size(), 0),
      pages_(pools.groups().size()),
      tables_(pools.groups().size()) {}

SessionCache::~SessionCache() {
  TruncatePages(0);
  for (const int32_t block : delta_blocks_) Give(pools_.delta_pool(), block);
  if (has_open_rows()) GiveOpenRows();
  for (const int32_t block : waiting_rows_) Give(pools_.chunk_pool(), block);
  MNEME_CHECK(held_bytes() == 0);
  pools_.budget().Release(reserved_);
}

BlockCounts SessionCache::PeakBlocks(int64_t computed, int64_t logged_end, int64_t provisional_end,
                                     int64_t max_step_tokens, int64_t max_lag_chunks) const {
  BlockCounts blocks;
  for (size_t g = 0; g < pages_.size(); ++g) {
    const int64_t tokens = PeakTokens(pools_.groups_[g].window, pages_[g].first_position, computed,
                                      logged_end, max_step_tokens);
    blocks.push_back(PagesFor(tokens + provisional_end - logged_end));
  }
  if (pools_.num_ttt_layers_ == 0) return blocks;
  const int64_t first_chunk = computed / pools_.chunk_;
  const bool learns = has_deltas() || logged_end / pools_.chunk_ > first_chunk;
  blocks.push_back(learns ? pools_.num_ttt_layers_ : 0);
  const int64_t held_chunks = held_[pools_.chunk_pool()];
  int64_t chunks = static_cast<int64_t>(waiting_rows_.size());
  if (logged_end > computed) chunks += (logged_end - 1) / pools_.chunk_ - first_chunk + 1;
  blocks.push_back(std::max(held_chunks, std::min(chunks, max_lag_chunks + 1)));
  return blocks;
}

bool SessionCache::Covers(const BlockCounts& blocks) const {
  return std::equal(blocks.begin(), blocks.end(), reserved_.begin(), std::less_equal<>());
}

bool SessionCache::Reserve(const BlockCounts& blocks) {
  BlockCounts more(blocks.size(), 0);
  for (size_t i = 0; i < more.size(); ++i) more[i] = std::max<int64_t>(blocks[i] - reserved_[i], 0);
  if (!pools_.budget().Reserve(more)) return false;
  for (size_t i = 0; i < more.size(); ++i) reserved_[i] += more[i];
  leased_ = true;
  return true;
}

void SessionCache::ReleaseUnused() {
  BlockCounts unused(held_.size());
  for (size_t i = 0; i < unused.size(); ++i) unused[i] = reserved_[i] - held_[i];
  pools_.budget().Release(unused);
  reserved_ = held_;
  leased_ = false;
}

int32_t SessionCache::Take(size_t pool) {
  ++held_[pool];
  MNEME_CHECK(held_[pool] <= reserved_[pool]);
  return pools_.pools_[pool].Take();
}

void SessionCache::Give(size_t pool, int32_t block) {
  pools_.pools_[pool].Give(block);
  --held_[pool];
}

void SessionCache::ExtendPages(int64_t end_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const auto wanted = static_cast<size_t>(PagesFor(end_position - pages.first_position));
    while (pages.blocks.size() < wanted) pages.blocks.push_back(Take(g));
  }
  RefreshTables();
}

void SessionCache::TruncatePages(int64_t end_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const int64_t tokens = std::max<int64_t>(end_position - pages.first_position, 0);
    while (pages.blocks.size() > static_cast<size_t>(PagesFor(tokens))) {
      Give(g, pages.blocks.back());
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
    for (size_t i = 0; i < unseen; ++i) Give(g, pages.blocks[i]);
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
    delta_blocks_.push_back(Take(pools_.delta_pool()));
    deltas_.push_back(mutable_delta(layer));
  }
}

void* SessionCache::mutable_delta(int64_t layer) {
  return pools_.pools_[pools_.delta_pool()].Address(delta_blocks_[static_cast<size_t>(layer)]);
}

bool SessionCache::can_take_open_rows() const {
  return held_[pools_.chunk_pool()] < reserved_[pools_.chunk_pool()];
}

void SessionCache::TakeOpenRows() {
  MNEME_CHECK(!has_open_rows());
  open_rows_ = Take(pools_.chunk_pool());
}

void SessionCache::GiveOpenRows() {
  Give(pools_.chunk_pool(), open_rows_);
  open_rows_ = -1;
}

void* SessionCache::open_rows() const { return ChunkBlock(open_rows_); }

void* SessionCache::KeepOpenRowsWaiting() {
  MNEME_CHECK(has_open_rows());
  waiting_rows_.push_back(open_rows_);
  open_rows_ = -1;
  return ChunkBlock(waiting_rows_.back());
}

void SessionCache::GiveWaitingRows(int64_t count) {
  const auto end = waiting_rows_.begin() + count;
  std::for_each(waiting_rows_.begin(), end,
                [this](int32_t block) { Give(pools_.chunk_pool(), block); });
  waiting_rows_.erase(waiting_rows_.begin(), end);
  if (!leased_) ReleaseUnused();
}

void* SessionCache::ChunkBlock(int32_t block) const {
  return pools_.pools_[pools_.chunk_pool()].Address(block);
}

}  // namespace mneme
