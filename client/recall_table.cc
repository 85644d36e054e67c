#include "client/recall_table.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mneme {
namespace {

constexpr uint64_t kFirstEndTokens = 128;

std::string Row(const std::string& name, const RecallBucket& bucket) {
  return absl::StrFormat("  %-18s %9d %9.2f %9.2f\n", name, bucket.questions,
                         RecallShare(bucket.learning_knew, bucket.questions),
                         RecallShare(bucket.frozen_knew, bucket.questions));
}

}  // namespace

std::vector<RecallBucket> MakeRecallBuckets(const std::vector<RecallOutcome>& outcomes) {
  std::map<uint64_t, RecallBucket> by_end;
  for (const RecallOutcome& outcome : outcomes) {
    uint64_t end_tokens = kFirstEndTokens;
    while (end_tokens <= outcome.distance_tokens) end_tokens *= 2;
    RecallBucket& bucket = by_end[end_tokens];
    bucket.begin_tokens = end_tokens == kFirstEndTokens ? 0 : end_tokens / 2;
    bucket.end_tokens = end_tokens;
    bucket.questions += 1;
    bucket.learning_knew += outcome.learning_knew ? 1 : 0;
    bucket.frozen_knew += outcome.frozen_knew ? 1 : 0;
  }
  std::vector<RecallBucket> buckets;
  for (const auto& [unused, bucket] : by_end) buckets.push_back(bucket);
  return buckets;
}

RecallBucket SumRecall(const std::vector<RecallBucket>& buckets) {
  RecallBucket sum;
  for (const RecallBucket& bucket : buckets) {
    sum.end_tokens = bucket.end_tokens;
    sum.questions += bucket.questions;
    sum.learning_knew += bucket.learning_knew;
    sum.frozen_knew += bucket.frozen_knew;
  }
  return sum;
}

double RecallShare(uint32_t knew, uint32_t questions) {
  return questions == 0 ? 0 : static_cast<double>(knew) / questions;
}

std::string RecallTable(const std::vector<RecallBucket>& buckets) {
  std::string table = absl::StrFormat("  %-18s %9s %9s %9s\n", "tokens since fact", "questions",
                                      "learning", "frozen");
  for (const RecallBucket& bucket : buckets) {
    absl::StrAppend(
        &table,
        Row(absl::StrFormat("%6d - %d", bucket.begin_tokens, bucket.end_tokens - 1), bucket));
  }
  return table + Row("   all", SumRecall(buckets));
}

}  // namespace mneme
