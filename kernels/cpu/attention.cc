#include "kernels/cpu/attention.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cpu/attention_row.h"
#include "kernels/cpu/parallel.h"

namespace mneme {
namespace {

// Keys that make a share of a task worth its merging.
constexpr int64_t kMinSplitKeys = 256;
// Below this the keys that only some rows of a block see outweigh what a large block saves.
constexpr int64_t kNarrowWindow = 512;
// Beyond this no window limits anything that a 32-bit index can name.
constexpr int64_t kNoWindow = int64_t{1} << 30;

const PageTable& TableOf(const SequenceRows& sequence, const KvLayer& kv) {
  return sequence.page_tables[static_cast<size_t>(kv.group)];
}

float* PageAddress(const KvLayer& kv, const PageTable& table, int64_t index) {
  const int64_t page = table.pages[static_cast<size_t>(index)];
  return reinterpret_cast<float*>(static_cast<char*>(kv.data) + page * kv.page_stride_bytes);
}

// Calls run(keys, count) for the runs of keys at positions [first, end) that lie in one page: rows
// of `head`, kv.heads · kv.head_dim floats apart.
template <typename Run>
void ForPageRuns(const KvLayer& kv, const PageTable& table, int64_t head, int64_t first,
                 int64_t end, const Run& run) {
  int64_t index = (first - table.first_position) / kv.page_tokens;
  int64_t slot = (first - table.first_position) % kv.page_tokens;
  for (; first < end; ++index, slot = 0) {
    const int64_t count = std::min(end - first, kv.page_tokens - slot);
    run(PageAddress(kv, table, index) + (slot * kv.heads + head) * kv.head_dim, count);
    first += count;
  }
}

// Copies the keys and values at positions [first, end) to the block.
void FillTile(const KvLayer& kv, const PageTable& table, int64_t head, int64_t first, int64_t end,
              AttentionBlock& block) {
  const size_t row_bytes = static_cast<size_t>(kv.head_dim) * sizeof(float);
  float* to_key = block.keys;
  float* to_value = block.values;
  ForPageRuns(kv, table, head, first, end, [&](const float* key, int64_t count) {
    for (int64_t i = 0; i < count; ++i, key += kv.heads * kv.head_dim) {
      std::memcpy(to_key, key, row_bytes);
      std::memcpy(to_value, key + ValueOffset(kv), row_bytes);
      to_key += kv.head_dim;
      to_value += kv.head_dim;
    }
  });
}

// The state of a single row's queries as that of a block.
void MoveToBlock(const RowAttention& row, AttentionBlock& block) {
  for (int64_t q = 0; q < row.query_count; ++q) {
    block.max[q] = row.max[static_cast<size_t>(q)];
    block.sum[q] = row.sum[static_cast<size_t>(q)];
    for (int64_t i = 0; i < row.head_dim; ++i) {
      block.out[i * kMaxBlockQueries + q] = row.out[q * row.head_dim + i];
    }
  }
}

}  // namespace

float* KeyAddress(const KvLayer& kv, const PageTable& table, int64_t position, int64_t head) {
  const int64_t slot = position - table.first_position;
  return PageAddress(kv, table, slot / kv.page_tokens) +
         ((slot % kv.page_tokens) * kv.heads + head) * kv.head_dim;
}

struct PagedAttention::Call {
  Matrix qkv;
  QkvShape shape;
  KvLayer kv;
  int64_t window;
  float scale;
  Matrix out;

  int64_t group() const { return shape.query_heads / shape.kv_heads; }
  // Whether all queries of the task are of one row, and few.
  bool IsSingleRow(const Task& task) const {
    const int64_t last_query = task.first_query + task.query_count - 1;
    return task.first_query / group() == last_query / group() &&
           ServesRow(task.query_count, shape.head_dim);
  }
  // Where query vector `query` of a task begins in a matrix of query heads.
  float* QueryRow(Matrix m, const Task& task, int64_t query) const {
    const int64_t index = task.first_query + query;
    const int64_t row = task.sequence->first_row + index / group();
    const int64_t head = task.kv_head * group() + index % group();
    return static_cast<float*>(m.data) + row * m.stride + head * shape.head_dim;
  }
};

void PagedAttention::Run(absl::Span<const SequenceRows> sequences, Matrix qkv,
                         const QkvShape& shape, const KvLayer& kv, int64_t window, float scale,
                         Matrix out) {
  const Call call{qkv, shape, kv, window > 0 ? std::min(window, kNoWindow) : kNoWindow, scale, out};
  tasks_.clear();
  for (const SequenceRows& sequence : sequences) AddTasks(call, sequence);
  if (tasks_.empty()) return;
  SplitTasks();

  const int64_t task_count = static_cast<int64_t>(split_tasks_.size());
  const bool split = split_tasks_.size() != tasks_.size();
  const int64_t block_floats = BlockFloats(shape.head_dim);
  float* blocks = blocks_.Floats((split ? task_count : threads_) * block_floats);
  const auto block_at = [&](int64_t i) {
    return PlaceBlock(blocks + i * block_floats, shape.head_dim);
  };
  // The last rows see the most keys: first come the longest tasks.
  ParallelForDynamic(task_count, threads_, [&](int64_t i, int thread) {
    const int64_t index = task_count - 1 - i;
    const Task& task = split_tasks_[static_cast<size_t>(index)];
    AttentionBlock block = block_at(split ? index : thread);
    block.query_count = task.query_count;
    if (call.IsSingleRow(task)) {
      AttendRow(call, task, block);
    } else {
      AttendRows(call, task, block);
    }
    if (!split) Finish(call, task, block);
  });
  if (!split) return;
  ParallelForDynamic(task_count, threads_, [&](int64_t i, int) {
    const Task& task = split_tasks_[static_cast<size_t>(i)];
    if (!task.first_split) return;
    AttentionBlock block = block_at(i);
    block.query_count = task.query_count;
    for (int64_t j = 1; j < task.split_count; ++j) MergeBlock(block_at(i + j), block);
    Finish(call, task, block);
  });
}

void PagedAttention::AddTasks(const Call& call, const SequenceRows& sequence) {
  const int64_t queries = sequence.row_count * call.group();
  const int64_t block = call.window < kNarrowWindow ? kMaxBlockQueries / 2 : kMaxBlockQueries;
  for (int64_t first = 0; first < queries; first += block) {
    Task task{.sequence = &sequence, .first_query = first};
    task.query_count = std::min(block, queries - first);
    const int64_t first_row = first / call.group();
    const int64_t last_row = (first + task.query_count - 1) / call.group();
    task.first_key = std::max<int64_t>(0, sequence.first_position + first_row - call.window + 1);
    task.end_key = sequence.first_position + last_row + 1;
    for (task.kv_head = 0; task.kv_head < call.shape.kv_heads; ++task.kv_head) {
      tasks_.push_back(task);
    }
  }
}

// Cuts the keys of the tasks so that every thread has work.
void PagedAttention::SplitTasks() {
  split_tasks_.clear();
  const int64_t task_count = static_cast<int64_t>(tasks_.size());
  const int64_t wanted = task_count >= threads_ ? 1 : (2 * threads_ + task_count - 1) / task_count;
  for (const Task& task : tasks_) {
    const int64_t keys = task.end_key - task.first_key;
    const int64_t splits = std::clamp<int64_t>(keys / kMinSplitKeys, 1, wanted);
    const int64_t tiles = (keys + kTileKeys - 1) / kTileKeys;
    const int64_t share = (tiles + splits - 1) / splits * kTileKeys;
    const int64_t split_count = (keys + share - 1) / share;
    for (int64_t i = 0; i < split_count; ++i) {
      Task part = task;
      part.first_key = task.first_key + i * share;
      part.end_key = std::min(task.end_key, part.first_key + share);
      part.split_count = split_count;
      part.first_split = i == 0;
      split_tasks_.push_back(part);
    }
  }
}

void PagedAttention::AttendRow(const Call& call, const Task& task, AttentionBlock& block) {
  RowAttention row{.head_dim = block.head_dim,
                   .query_count = task.query_count,
                   .scale = call.scale,
                   .out = block.keys};
  for (int64_t i = 0; i < task.query_count; ++i) {
    row.queries[static_cast<size_t>(i)] = call.QueryRow(call.qkv, task, i);
  }
  StartRow(row);
  const int64_t stride = call.kv.heads * call.kv.head_dim;
  ForPageRuns(call.kv, TableOf(*task.sequence, call.kv), task.kv_head, task.first_key, task.end_key,
              [&](const float* keys, int64_t count) {
                for (int64_t i = 0; i < count; i += kMaxRunKeys) {
                  const float* run = keys + i * stride;
                  AttendRun(run, run + ValueOffset(call.kv), stride,
                            std::min(kMaxRunKeys, count - i), row);
                }
              });
  MoveToBlock(row, block);
}

void PagedAttention::AttendRows(const Call& call, const Task& task, AttentionBlock& block) {
  // Keys are counted from the last one of the task's first row, so that 32 bits suffice.
  const int64_t first_row = task.first_query / call.group();
  const int64_t origin = task.sequence->first_position + first_row;
  std::array<const float*, kMaxBlockQueries> rows;
  block.window = static_cast<int32_t>(call.window);
  for (int64_t i = 0; i < kMaxBlockQueries; ++i) {
    const int64_t query = std::min(i, task.query_count - 1);
    rows[static_cast<size_t>(i)] = call.QueryRow(call.qkv, task, query);
    block.last_key[i] = static_cast<int32_t>((task.first_query + query) / call.group() - first_row);
  }
  StartBlock(rows.data(), call.scale, block);

  const PageTable& table = TableOf(*task.sequence, call.kv);
  const int64_t last_row_key = origin + block.last_key[task.query_count - 1];
  KeyValueTile tile;
  for (int64_t first = task.first_key; first < task.end_key; first += kTileKeys) {
    tile.count = std::min(kTileKeys, task.end_key - first);
    tile.first_key = static_cast<int32_t>(first - origin);
    tile.masked = first + tile.count - 1 > origin || first <= last_row_key - call.window;
    FillTile(call.kv, table, task.kv_head, first, first + tile.count, block);
    AttendTile(tile, block);
  }
}

void PagedAttention::Finish(const Call& call, const Task& task, const AttentionBlock& block) {
  std::array<float*, kMaxBlockQueries> rows;
  for (int64_t i = 0; i < task.query_count; ++i) {
    rows[static_cast<size_t>(i)] = call.QueryRow(call.out, task, i);
  }
  FinishBlock(block, rows.data());
}

}  // namespace mneme
