#include "engine/scheduling/stream_gate.h"

#include <algorithm>

namespace mneme {
namespace {

// For how many steps input that had to wait is remembered: documents come and go.
constexpr int64_t kRememberedSteps = 64;

}  // namespace

StreamGate::StreamGate(const PlanLimits& limits, const StepCostModel& cost, const PlanState& state)
    : limits_(limits),
      cost_(cost),
      target_us_(limits.target_us / cost.margin() *
                 (state.steps_since_input_waited < kRememberedSteps ? kDecodeShare : 1)) {}

bool StreamGate::IsBeginning(const Candidate& candidate) {
  return candidate.kind == WorkKind::kPrefill && candidate.begins_stream && !candidate.has_begun;
}

StepWork StreamGate::RowOf(const Candidate& candidate) const {
  int64_t keys = candidate.position + candidate.rows_wanted;
  if (limits_.attention_tokens > 0) keys = std::min(keys, limits_.attention_tokens);
  return {.decode_rows = 1, .decode_keys = keys};
}

void StreamGate::Note(const Candidate& candidate) {
  const auto [tenant, is_new] = tenants_.try_emplace(candidate.tenant);
  if (is_new) {
    tenant->second.weight = candidate.tenant_weight;
    weights_ += candidate.tenant_weight;
  }
  const bool runs = candidate.kind == WorkKind::kDecode || candidate.begins_stream;
  if (runs && !IsBeginning(candidate)) Count(candidate);
}

bool StreamGate::Admit(const Candidate& candidate) {
  const StepWork row = RowOf(candidate);
  const double limit_us = std::max(target_us_, 2 * cost_.PredictUs(row));
  Tenant& tenant = tenants_.at(candidate.tenant);
  if (tenant.refused && candidate.priority >= *tenant.refused) return false;
  const double share = tenant.weight / weights_ * static_cast<double>(running_.decode_rows);
  if (cost_.PredictUs(running_ + row) > limit_us && tenant.streams + 1 > share) {
    tenant.refused = candidate.priority;
    return false;
  }
  Count(candidate);
  return true;
}

void StreamGate::Count(const Candidate& stream) {
  running_ += RowOf(stream);
  tenants_.at(stream.tenant).streams += 1;
}

}  // namespace mneme
