#include "engine/scheduling/step_draft.h"

#include <algorithm>

namespace mneme {

StepWork StepDraft::WorkOf(size_t i, int64_t rows) const {
  const Candidate& candidate = candidates_[i];
  const int64_t first = candidate.position + parts_[i].rows;
  StepWork work = {.updates = parts_[i].taken ? 0 : candidate.updates};
  if (candidate.kind == WorkKind::kUpdate) return work;
  if (candidate.learns && limits_.chunk_tokens > 0 && rows > 0) {
    // A chunk with which the piece ends waits; one with which it ended so far no longer does.
    const int64_t before = parts_[i].rows > 0 ? first - 1 : first;
    work.updates += (first + rows - 1) / limits_.chunk_tokens - before / limits_.chunk_tokens;
  }
  int64_t keys = first + (rows + 1) / 2;  // of a row, on average
  if (limits_.attention_tokens > 0) keys = std::min(keys, limits_.attention_tokens);
  if (candidate.kind == WorkKind::kDecode) {
    work.decode_rows = std::max<int64_t>(rows, 1);
    work.decode_keys = rows * keys;
  } else {
    work.prefill_rows = rows;
    work.prefill_keys = rows * keys;
  }
  return work;
}

double StepDraft::CostOf(const StepWork& more) const {
  const double us = cost_.PredictUs(work_ + more) - cost_.PredictUs(work_);
  return us > 0 ? us : static_cast<double>(more.decode_rows + more.prefill_rows);
}

double StepDraft::Take(size_t i, int64_t rows) {
  const StepWork work = WorkOf(i, rows);
  const double cost = CostOf(work);
  Part& part = parts_[i];
  if (!part.taken) order_.push_back(i);
  if (candidates_[i].kind != WorkKind::kUpdate) {
    if (!part.taken) ++places_;
    rows_ += std::max<int64_t>(rows, 1);
  }
  part = {true, part.rows + rows, part.cost + cost};
  work_ += work;
  return cost;
}

std::vector<PlannedRows> StepDraft::planned() const {
  std::vector<PlannedRows> planned;
  for (size_t i : order_) planned.push_back({i, parts_[i].rows, parts_[i].cost});
  return planned;
}

}  // namespace mneme
