#ifndef MNEME_KERNELS_CPU_ATTENTION_H_
#define MNEME_KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/scratch.h"

namespace mneme {

// Where key `position` of key-value head `head` lies; its value lies ValueOffset floats further.
float* KeyAddress(const KvLayer& kv, const PageTable& table, int64_t position, int64_t head);
inline int64_t ValueOffset(const KvLayer& kv) { return kv.page_tokens * kv.heads * kv.head_dim; }

// Paged attention over the rows of a step. Work is cut into tasks of (sequence, key-value head, up
// to 128 query vectors), so that each key and value read serves all of them; if that makes too few
// tasks for the threads, the keys of each are cut too. One thread at a time.
class PagedAttention {
 public:
  explicit PagedAttention(int threads) : threads_(threads) {}

  // As Stream::Attention, of the rows of `sequences`. May throw std::bad_alloc.
  void Run(absl::Span<const SequenceRows> sequences, Matrix qkv, const QkvShape& shape,
           const KvLayer& kv, int64_t window, float scale, Matrix out);

 private:
  struct Call;
  // Query vectors [first_query, first_query + query_count) of one key-value head: query i is head
  // i % group of row i / group. They attend to keys [first_key, end_key).
  struct Task {
    const SequenceRows* sequence = nullptr;
    int64_t kv_head = 0;
    int64_t first_query = 0;
    int64_t query_count = 0;
    int64_t first_key = 0;
    int64_t end_key = 0;
    int64_t split_count = 1;  // this task and the next ones share the same queries
    bool first_split = true;
  };

  void AddTasks(const Call& call, const SequenceRows& sequence);
  void SplitTasks();
  static void AttendRow(const Call& call, const Task& task, AttentionBlock& block);
  static void AttendRows(const Call& call, const Task& task, AttentionBlock& block);
  static void Finish(const Call& call, const Task& task, const AttentionBlock& block);

  int threads_;
  std::vector<Task> tasks_;
  std::vector<Task> split_tasks_;
  Scratch blocks_;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_ATTENTION_H_
