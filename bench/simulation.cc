#include "bench/simulation.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <utility>

#include "base/check.h"
#include "bench/arrivals.h"
#include "engine/scheduling/stream_gate.h"

namespace mneme {
namespace {

constexpr QueueLimits kQueue = {.requests = 1024, .tokens = 1 << 20};
constexpr int64_t kMaxLagChunks = 4;
// A chat is served in time if its first token comes within this, and the others come as fast as
// twice the target allows, on average.
constexpr double kGoodFirstTokenUs = 2e6;
constexpr double kGoodTargets = 2;
constexpr double kBucketRatio = 1.005;

struct Running {
  SimulatedRequest request;
  uint64_t arrival = 0;
  uint64_t last_step = 0;
  int64_t computed = 0;  // of its input and output
  int64_t generated = 0;
  int64_t waiting_updates = 0;
  double first_token_us = 0, last_token_us = 0;

  bool decodes() const { return generated > 0; }
  int64_t position() const { return request.position + computed; }
};

// A chunk that the last token of a request closed.
struct ClosedChunk {
  int tenant = 0;
  double since_us = 0;
};

class Simulation {
 public:
  Simulation(const SimulationOptions& options, const std::function<void(double)>& progress)
      : options_(options), progress_(progress), arrivals_(options), noise_(options.seed) {
    limits_.max_step_tokens = options.device.max_step_tokens;
    limits_.chunk_tokens = options.device.chunk_tokens;
    if (!first_come()) limits_.target_us = options.device.target_us;
    report_.scenario = options.scenario;
    report_.policy = options.policy;
    report_.requests = options.requests;
  }

  SimulationReport Run() {
    next_ = arrivals_.Next();
    for (left_ = options_.requests; left_ > 0 || !running_.empty();) {
      if (running_.empty() && closed_.empty()) now_us_ = std::max(now_us_, next_.arrival_us);
      while (left_ > 0 && next_.arrival_us <= now_us_) Admit();
      if (!running_.empty() || !closed_.empty()) Step();
    }
    report_.seconds = now_us_ / 1e6;
    report_.tokens_per_second = static_cast<double>(tokens_) / report_.seconds;
    report_.goodput = static_cast<double>(good_) / report_.seconds;
    report_.fairness = Fairness();
    return std::move(report_);
  }

 private:
  struct Tenant {
    int64_t requests = 0, pending_tokens = 0;  // in flight
    double offered = 0, served = 0;            // tokens of input and output
  };

  bool first_come() const { return options_.policy == "first-come"; }

  void Admit() {
    const SimulatedRequest request = std::exchange(next_, arrivals_.Next());
    if (--left_ % (options_.requests / 100 + 1) == 0) {
      progress_(1 - static_cast<double>(left_) / static_cast<double>(options_.requests));
    }
    Tenant& tenant = tenants_[static_cast<size_t>(request.tenant)];
    tenant.offered += static_cast<double>(request.input + request.output);
    if (!CheckQueue(kQueue, QueueFor(tenant), request.input).ok()) {
      ++report_.refused;
      return;
    }
    ++tenant.requests;
    tenant.pending_tokens += request.input;
    running_.push_back({.request = request, .arrival = ++arrival_});
  }

  QueueState QueueFor(const Tenant& asking) const {
    QueueState state = {.tenant_requests = asking.requests, .tenant_tokens = asking.pending_tokens};
    for (const Tenant& tenant : tenants_) {
      state.requests += tenant.requests;
      state.tokens += tenant.pending_tokens;
    }
    state.tenant_share = first_come() ? 1 : 1.0 / kTenants;
    return state;
  }

  Candidate CandidateOf(const Running& running) const {
    Candidate candidate = {.position = running.position(), .arrival = running.arrival};
    candidate.kind = running.decodes() ? WorkKind::kDecode : WorkKind::kPrefill;
    candidate.rows_wanted = running.decodes() ? 1 : running.request.input - running.computed;
    const int64_t may_wait = options_.policy == "deferred" ? kMaxLagChunks : 0;
    candidate.updates = std::max<int64_t>(running.waiting_updates - may_wait, 0);
    if (first_come()) return candidate;
    candidate.begins_stream = !running.decodes() && running.request.output > 0;
    candidate.last_step = running.last_step;
    candidate.has_begun = running.last_step != 0;
    candidate.tenant = running.request.tenant;
    return candidate;
  }

  // Those who may take part in the next step, requests first; `who` of running_ the requests are.
  std::vector<Candidate> Candidates(std::vector<size_t>* who) const {
    std::vector<Candidate> all, candidates;
    StreamGate gate(limits_, cost_, state_);
    for (const Running& running : running_) {
      all.push_back(CandidateOf(running));
      gate.Note(all.back());
    }
    for (size_t i = 0; i < all.size(); ++i) {
      if (StreamGate::IsBeginning(all[i]) && !gate.Admit(all[i])) continue;
      candidates.push_back(all[i]);
      who->push_back(i);
    }
    const auto looked_at = static_cast<size_t>(limits_.max_step_tokens / limits_.chunk_tokens);
    for (size_t i = 0; i < std::min(closed_.size(), looked_at); ++i) {
      candidates.push_back({.kind = WorkKind::kUpdate, .updates = 1, .tenant = closed_[i].tenant});
    }
    return candidates;
  }

  void Step() {
    std::vector<size_t> who;
    const std::vector<Candidate> candidates = Candidates(&who);
    StepPlan plan = PlanStep(candidates, limits_, cost_, std::move(state_));
    state_ = std::move(plan.state);
    const double noise = std::uniform_real_distribution<double>(0.95, 1.05)(noise_);
    const double time_us = options_.device.TimeUs(plan.work) * noise;
    if (plan.work.decode_rows + plan.work.prefill_rows > 0) cost_.Observe(plan.work, time_us);
    now_us_ += time_us;
    ++report_.steps;
    std::vector<size_t> learnt;  // of closed_, in order
    for (const PlannedRows& planned : plan.rows) {
      const size_t i = planned.candidate;
      if (i >= who.size()) {
        learnt.push_back(i - who.size());
      } else {
        Commit(running_[who[i]], planned.rows, candidates[i].updates);
      }
    }
    for (; !learnt.empty(); learnt.pop_back()) {
      const auto chunk = closed_.begin() + static_cast<std::ptrdiff_t>(learnt.back());
      report_.update_wait.Add(now_us_ - chunk->since_us);
      closed_.erase(chunk);
    }
    std::erase_if(running_, [this](const Running& running) { return Retire(running); });
  }

  void Commit(Running& running, int64_t rows, int64_t updates) {
    Tenant& tenant = tenants_[static_cast<size_t>(running.request.tenant)];
    running.last_step = static_cast<uint64_t>(report_.steps);
    if (!running.decodes()) tenant.pending_tokens -= rows;
    tenant.served += static_cast<double>(rows);
    tokens_ += rows;
    running.computed += rows;
    running.waiting_updates -= updates;
    if (running.position() % options_.device.chunk_tokens == 0) ++running.waiting_updates;
    if (running.request.output > 0 && running.computed >= running.request.input) Draw(running);
  }

  void Draw(Running& running) {
    if (running.generated == 0) {
      running.first_token_us = now_us_;
      const double waited_us = now_us_ - running.request.arrival_us;
      report_.first_token.Add(waited_us);
      if (running.request.tenant < kTenants - 1) report_.polite_first_token.Add(waited_us);
    } else {
      report_.between.Add(now_us_ - running.last_token_us);
    }
    running.last_token_us = now_us_;
    ++running.generated;
  }

  bool Retire(const Running& running) {
    const bool done = running.request.output > 0 ? running.generated == running.request.output
                                                 : running.computed == running.request.input;
    if (!done) return false;
    --tenants_[static_cast<size_t>(running.request.tenant)].requests;
    closed_.insert(closed_.end(), static_cast<size_t>(running.waiting_updates),
                   {running.request.tenant, now_us_});
    if (running.request.output == 0) return true;
    const double waited_us = running.first_token_us - running.request.arrival_us;
    const double between_us = (running.last_token_us - running.first_token_us) /
                              static_cast<double>(std::max<int64_t>(running.generated - 1, 1));
    const bool good =
        waited_us <= kGoodFirstTokenUs && between_us <= kGoodTargets * options_.device.target_us;
    if (good) ++good_;
    return true;
  }

  // Jain's index of what part each tenant got of what it could claim: what it sent, or its fair
  // part of what was served if that is less.
  double Fairness() const {
    double served = 0;
    for (const Tenant& tenant : tenants_) served += tenant.served;
    double sum = 0, squares = 0;
    for (const Tenant& tenant : tenants_) {
      const double claim = std::min(tenant.offered, served / kTenants);
      const double part = claim > 0 ? std::min(tenant.served / claim, 1.0) : 1;
      sum += part;
      squares += part * part;
    }
    return sum * sum / (kTenants * squares);
  }

  const SimulationOptions& options_;
  const std::function<void(double)>& progress_;
  Arrivals arrivals_;
  std::mt19937 noise_;
  PlanLimits limits_;
  StepCostModel cost_;
  PlanState state_;

  SimulatedRequest next_;
  int64_t left_ = 0;
  uint64_t arrival_ = 0;
  double now_us_ = 0;
  std::vector<Running> running_;
  std::deque<ClosedChunk> closed_;
  std::array<Tenant, kTenants> tenants_;
  int64_t tokens_ = 0, good_ = 0;
  SimulationReport report_;
};

}  // namespace

const std::vector<std::string> kScenarios = {"chat", "mixed", "ingestion", "bursts", "hostile"};
const std::vector<std::string> kPolicies = {"exact", "deferred", "first-come"};

double DeviceProfile::TimeUs(const StepWork& work) const {
  // Without rows there is no pass over the model's weights.
  const bool has_rows = work.decode_rows + work.prefill_rows > 0;
  return (has_rows ? step_us : 0) + decode_row_us * static_cast<double>(work.decode_rows) +
         decode_key_us * static_cast<double>(work.decode_keys) +
         prefill_row_us * static_cast<double>(work.prefill_rows) +
         prefill_key_us * static_cast<double>(work.prefill_keys) +
         update_us * static_cast<double>(work.updates);
}

const DeviceProfile* FindProfile(const std::string& name) {
  // Fitted to docs/benchmarks.md; docs/scheduling.md says how.
  static const std::array<DeviceProfile, 2> profiles = {DeviceProfile{.name = "h200",
                                                                      .step_us = 3470,
                                                                      .decode_row_us = 79,
                                                                      .decode_key_us = 0.035,
                                                                      .prefill_row_us = 11.5,
                                                                      .prefill_key_us = 0.00115,
                                                                      .update_us = 930,
                                                                      .chunk_tokens = 1024,
                                                                      .max_step_tokens = 4096,
                                                                      .target_us = 40000},
                                                        DeviceProfile{.name = "cpu",
                                                                      .step_us = 450,
                                                                      .decode_row_us = 150,
                                                                      .decode_key_us = 0.1,
                                                                      .prefill_row_us = 55,
                                                                      .prefill_key_us = 0.006,
                                                                      .update_us = 1250,
                                                                      .chunk_tokens = 64,
                                                                      .max_step_tokens = 512,
                                                                      .target_us = 8000,
                                                                      .token_scale = 0.25}};
  for (const DeviceProfile& profile : profiles) {
    if (profile.name == name) return &profile;
  }
  return nullptr;
}

void TimeHistogram::Add(double time_us) {
  const double bucket = std::log(std::max(time_us, 1.0)) / std::log(kBucketRatio);
  ++counts_[std::min(static_cast<size_t>(bucket), counts_.size() - 1)];
  ++total_;
}

double TimeHistogram::QuantileMs(double share) const {
  int64_t left = static_cast<int64_t>(share * static_cast<double>(total_));
  for (size_t i = 0; i < counts_.size(); ++i) {
    left -= counts_[i];
    if (left < 0) return std::pow(kBucketRatio, static_cast<double>(i) + 0.5) / 1000;
  }
  return 0;
}

SimulationReport Simulate(const SimulationOptions& options,
                          const std::function<void(double)>& progress) {
  MNEME_CHECK(options.requests > 0);
  return Simulation(options, progress).Run();
}

}  // namespace mneme
