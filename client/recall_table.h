#ifndef MNEME_CLIENT_RECALL_TABLE_H_
#define MNEME_CLIENT_RECALL_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace mneme {

// One question: how many tokens lay between the fact and it, and who knew the answer.
struct RecallOutcome {
  uint64_t distance_tokens = 0;
  bool learning_knew = false;
  bool frozen_knew = false;
};

// The questions of one range of distances.
struct RecallBucket {
  uint64_t begin_tokens = 0;  // inclusive
  uint64_t end_tokens = 0;    // exclusive
  uint32_t questions = 0;
  uint32_t learning_knew = 0;
  uint32_t frozen_knew = 0;
};

// Sorts the outcomes into [0, 128), [128, 256), [256, 512), … up to the largest distance. Ranges
// without a question are left out.
std::vector<RecallBucket> MakeRecallBuckets(const std::vector<RecallOutcome>& outcomes);

// All outcomes in one bucket.
RecallBucket SumRecall(const std::vector<RecallBucket>& buckets);

// A share of the questions; 0 of none.
double RecallShare(uint32_t knew, uint32_t questions);

// A line for each bucket and one for the sum.
std::string RecallTable(const std::vector<RecallBucket>& buckets);

}  // namespace mneme

#endif  // MNEME_CLIENT_RECALL_TABLE_H_
