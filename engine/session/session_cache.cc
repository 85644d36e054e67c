#include "engine/session/session_cache.h"

#include <algorithm>
#include <functional>

#include "base/check.h"

namespace mneme {

SessionCache::SessionCache(CachePools& pools)
    : pools_(pools),
      reserved_(pools.pools_.size(), 0),
      held_(pools.pools_.size(), 0),
      pages_(pools.groups().size()),
      tables_(pools.groups().size()) {}

SessionCache::~SessionCache() { GiveAll(); }

CacheShape SessionCache::shape() const {
  CacheShape shape = {.has_deltas = has_deltas(),
                      .deltas_written = deltas_written_,
                      .has_open_rows = has_open_rows(),
                      .waiting_rows = static_cast<int64_t>(waiting_rows_.size())};
  for (const Pages& pages : pages_) {
    shape.pages.push_back({pages.first_position, static_cast<int64_t>(pages.blocks.size())});
  }
  return shape;
}

BlockCounts SessionCache::BlocksOf(const CacheShape& shape) const {
  BlockCounts blocks;
  for (const CacheShape::Pages& pages : shape.pages) blocks.push_back(pages.count);
  if (pools_.num_ttt_layers_ == 0) return blocks;
  blocks.push_back(shape.has_deltas ? pools_.num_ttt_layers_ : 0);
  blocks.push_back(shape.waiting_rows + (shape.has_open_rows ? 1 : 0));
  return blocks;
}

bool SessionCache::TakeAll(const CacheShape& shape) {
  MNEME_CHECK(held_bytes() == 0);
  if (!Reserve(BlocksOf(shape))) return false;
  for (size_t g = 0; g < pages_.size(); ++g) {
    pages_[g].first_position = shape.pages[g].first_position;
    for (int64_t i = 0; i < shape.pages[g].count; ++i) pages_[g].blocks.push_back(Take(g));
  }
  RefreshTables();
  if (shape.has_deltas) TakeDeltas();
  deltas_written_ = shape.deltas_written;
  for (int64_t i = 0; i < shape.waiting_rows; ++i) {
    waiting_rows_.push_back(Take(pools_.chunk_pool()));
  }
  if (shape.has_open_rows) TakeOpenRows();
  ReleaseUnused();
  return true;
}

bool SessionCache::ShareAll(const SessionCache& other) {
  MNEME_CHECK(held_bytes() == 0);
  if (!Reserve(other.held_)) return false;
  pages_ = other.pages_;
  for (size_t g = 0; g < pages_.size(); ++g) {
    for (const int32_t block : pages_[g].blocks) Share(g, block);
  }
  RefreshTables();
  for (const int32_t block : other.delta_blocks_) {
    delta_blocks_.push_back(Share(pools_.delta_pool(), block));
  }
  RefreshDeltas();
  deltas_written_ = other.deltas_written_;
  for (const int32_t block : other.waiting_rows_) {
    waiting_rows_.push_back(Share(pools_.chunk_pool(), block));
  }
  if (other.has_open_rows()) open_rows_ = Share(pools_.chunk_pool(), other.open_rows_);
  ReleaseUnused();
  return true;
}

void SessionCache::GiveAll() {
  TruncatePages(0);
  for (Pages& pages : pages_) pages.first_position = 0;
  RefreshTables();
  for (const int32_t block : delta_blocks_) Give(pools_.delta_pool(), block);
  delta_blocks_.clear();
  RefreshDeltas();
  deltas_written_ = false;
  if (has_open_rows()) GiveOpenRows();
  for (const int32_t block : waiting_rows_) Give(pools_.chunk_pool(), block);
  waiting_rows_.clear();
  MNEME_CHECK(held_bytes() == 0);
  ReleaseUnused();
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

BlockCounts SessionCache::MissingBlocks(const BlockCounts& blocks) const {
  BlockCounts more(blocks.size(), 0);
  for (size_t i = 0; i < more.size(); ++i) more[i] = std::max<int64_t>(blocks[i] - reserved_[i], 0);
  return more;
}

int64_t SessionCache::MissingBytes(const BlockCounts& blocks) const {
  return budget().BytesOf(MissingBlocks(blocks));
}

bool SessionCache::Reserve(const BlockCounts& blocks) {
  const BlockCounts more = MissingBlocks(blocks);
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

int32_t SessionCache::Share(size_t pool, int32_t block) {
  ++held_[pool];
  MNEME_CHECK(held_[pool] <= reserved_[pool]);
  pools_.pools_[pool].Share(block);
  return block;
}

void SessionCache::Give(size_t pool, int32_t block) {
  pools_.pools_[pool].Give(block);
  --held_[pool];
}

void SessionCache::Own(size_t pool, int32_t* block, std::vector<BlockCopy>* copies) {
  BlockPool& blocks = pools_.pools_[pool];
  if (!blocks.IsShared(*block)) return;
  blocks.Give(*block);
  const int32_t own = blocks.Take();
  if (copies != nullptr) {
    copies->push_back({blocks.Address(own), blocks.Address(*block), blocks.block_bytes()});
  }
  *block = own;
}

void SessionCache::ExtendPages(int64_t end_position) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const auto wanted = static_cast<size_t>(PagesFor(end_position - pages.first_position));
    while (pages.blocks.size() < wanted) pages.blocks.push_back(Take(g));
  }
  RefreshTables();
}

void SessionCache::OwnPages(int64_t first_position, std::vector<BlockCopy>* copies) {
  for (size_t g = 0; g < pages_.size(); ++g) {
    Pages& pages = pages_[g];
    const auto first = static_cast<size_t>((first_position - pages.first_position) / kPageTokens);
    for (size_t i = first; i < pages.blocks.size(); ++i) Own(g, &pages.blocks[i], copies);
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
  }
  RefreshDeltas();
}

void SessionCache::OwnDeltas(std::vector<BlockCopy>* copies) {
  for (int32_t& block : delta_blocks_) {
    Own(pools_.delta_pool(), &block, deltas_written_ ? copies : nullptr);
  }
  RefreshDeltas();
}

void SessionCache::RefreshDeltas() {
  deltas_.clear();
  for (size_t layer = 0; layer < delta_blocks_.size(); ++layer) {
    deltas_.push_back(delta(static_cast<int64_t>(layer)));
  }
}

void* SessionCache::delta(int64_t layer) const {
  return pools_.pools_[pools_.delta_pool()].Address(delta_blocks_[static_cast<size_t>(layer)]);
}

bool SessionCache::can_take_open_rows() const {
  return held_[pools_.chunk_pool()] < reserved_[pools_.chunk_pool()];
}

void SessionCache::TakeOpenRows() {
  MNEME_CHECK(!has_open_rows());
  open_rows_ = Take(pools_.chunk_pool());
}

void SessionCache::OwnOpenRows(std::vector<BlockCopy>* copies) {
  if (has_open_rows()) Own(pools_.chunk_pool(), &open_rows_, copies);
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
