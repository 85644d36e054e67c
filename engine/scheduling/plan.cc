#include "engine/scheduling/plan.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace mneme {
namespace {

// Rows of a turn in the round. Of prefill so many that a piece is worth its overhead, so few that a
// round of many flows is short; streams take turns row by row.
constexpr int64_t kPrefillQuantumRows = 128;
constexpr int64_t kDecodeQuantumRows = 1;
// No piece is cut shorter than this, but for want of rows.
constexpr int64_t kMinPieceRows = 16;
// Rows of prefill beside running streams until their time is known.
constexpr int64_t kProbeRows = 64;

// Candidates of one flow that are still to be served, the next one last.
struct Backlog {
  FlowKey flow;
  double tenant_weight = 1;
  double weight = 1;
  std::vector<size_t> candidates;
};

class Planner {
 public:
  Planner(absl::Span<const Candidate> candidates, const PlanLimits& limits,
          const StepCostModel& cost)
      : candidates_(candidates), limits_(limits), cost_(cost), planned_(candidates.size()) {}

  StepPlan Plan(FairRings rings) {
    const bool prefill_waits = Any(WorkKind::kPrefill);
    const bool decodes = Any(WorkKind::kDecode);
    const Room all = {limits_.max_step_tokens, kMaxStepSequences};
    const Room most = {all.rows - all.rows / 4, all.places - all.places / 4};
    const FairRing decode_ring = rings.decode;
    rings.decode = Serve(WorkKind::kDecode, decode_ring, prefill_waits ? most : all);
    if (prefill_waits) {
      Room room = all;
      if (decodes) LimitTime(&room);
      rings.prefill = Serve(WorkKind::kPrefill, std::move(rings.prefill), room);
      rings.decode = Serve(WorkKind::kDecode, std::move(rings.decode), all);
    } else {
      rings.prefill.clear();
    }
    return Result(std::move(rings));
  }

 private:
  // Up to where a step may be filled.
  struct Room {
    int64_t rows = 0;
    int64_t places = 0;
    int64_t prefill_rows = std::numeric_limits<int64_t>::max();
    double time_us = std::numeric_limits<double>::infinity();
  };

  struct Planned {
    bool taken = false;
    int64_t rows = 0;
    double cost = 0;
  };

  bool Any(WorkKind kind) const {
    return std::any_of(candidates_.begin(), candidates_.end(),
                       [kind](const Candidate& c) { return c.kind == kind; });
  }

  int64_t Wanted(size_t i) const { return candidates_[i].rows_wanted - planned_[i].rows; }

  void LimitTime(Room* room) {
    const double decode_us = cost_.PredictUs(work_);
    budget_us_ = std::max(limits_.target_us, 2 * decode_us * cost_.margin());
    room->time_us = budget_us_ / cost_.margin();
    if (std::isfinite(limits_.target_us) && !cost_.knows_prefill()) {
      room->prefill_rows = kProbeRows;
    }
  }

  // What `rows` rows more of a candidate add to the step.
  StepWork WorkOf(size_t i, int64_t rows) const {
    const Candidate& candidate = candidates_[i];
    const int64_t first = candidate.position + planned_[i].rows;
    StepWork work = {.updates = planned_[i].taken ? 0 : candidate.updates};
    if (limits_.chunk_tokens > 0 && rows > 0) {
      // A chunk with which the piece ends waits; one with which it ended so far no longer does.
      const int64_t before = planned_[i].rows > 0 ? first - 1 : first;
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

  // In the unit of credits: microseconds, or rows while no time is known.
  double CostOf(const StepWork& work) const {
    const double us = cost_.PredictUs(work_ + work) - cost_.PredictUs(work_);
    return us > 0 ? us : static_cast<double>(work.decode_rows + work.prefill_rows);
  }

  std::vector<Backlog> BacklogsOf(WorkKind kind) const {
    std::vector<Backlog> backlogs;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const Candidate& c = candidates_[i];
      if (c.kind != kind || (planned_[i].taken && Wanted(i) == 0)) continue;
      const FlowKey flow = {c.tenant, c.priority};
      auto backlog = std::find_if(backlogs.begin(), backlogs.end(),
                                  [&](const Backlog& b) { return b.flow == flow; });
      if (backlog == backlogs.end()) {
        backlog = backlogs.insert(backlog, {.flow = flow, .tenant_weight = c.tenant_weight});
      }
      backlog->candidates.push_back(i);
    }
    for (Backlog& backlog : backlogs) {
      SortForService(&backlog.candidates);
      double parts = 0;  // of its tenant's share, in all
      for (const Backlog& other : backlogs) {
        if (other.flow.tenant == backlog.flow.tenant) parts += PriorityWeight(other.flow.priority);
      }
      backlog.weight = backlog.tenant_weight * PriorityWeight(backlog.flow.priority) / parts;
    }
    return backlogs;
  }

  void SortForService(std::vector<size_t>* order) const {
    const auto waited = [this](size_t i) {
      return std::tuple(candidates_[i].last_step, candidates_[i].arrival);
    };
    std::sort(order->begin(), order->end(),
              [&](size_t a, size_t b) { return waited(a) > waited(b); });
  }

  // Plans candidates of a kind, flow by flow, until all have what they want or the room is full.
  // Returns the ring as it is then.
  FairRing Serve(WorkKind kind, const FairRing& before, const Room& room) {
    std::vector<Backlog> backlogs = BacklogsOf(kind);
    FairRing ring = WithFlowsOf(before, backlogs);
    while (!ring.empty()) {
      FlowCredit& turn = ring.front();
      Backlog& backlog = *std::find_if(backlogs.begin(), backlogs.end(),
                                       [&](const Backlog& b) { return b.flow == turn.flow; });
      const size_t next = backlog.candidates.back();
      if (turn.credit <= 0) turn.credit += Quantum(next, backlog, backlogs, ring);
      if (turn.credit > 0) {
        if (!ServeOne(next, room, &turn.credit)) return ring;
        if (Wanted(next) == 0) backlog.candidates.pop_back();
      }
      const FlowCredit served = turn;
      if (backlog.candidates.empty()) {
        ring.pop_front();
      } else if (served.credit <= 0) {
        ring.pop_front();
        ring.push_back(served);
      }
    }
    return ring;
  }

  static FairRing WithFlowsOf(const FairRing& before, const std::vector<Backlog>& backlogs) {
    FairRing ring;
    for (const FlowCredit& entry : before) {
      if (std::any_of(backlogs.begin(), backlogs.end(),
                      [&](const Backlog& b) { return b.flow == entry.flow; })) {
        ring.push_back(entry);
      }
    }
    for (const Backlog& backlog : backlogs) {
      if (std::none_of(ring.begin(), ring.end(),
                       [&](const FlowCredit& entry) { return entry.flow == backlog.flow; })) {
        ring.push_back({backlog.flow});
      }
    }
    return ring;
  }

  // The credit of a turn: a quantum of rows for the heaviest flow in the ring, less for the others.
  double Quantum(size_t next, const Backlog& backlog, const std::vector<Backlog>& backlogs,
                 const FairRing& ring) const {
    double heaviest = 0;
    for (const FlowCredit& entry : ring) {
      for (const Backlog& other : backlogs) {
        if (other.flow == entry.flow) heaviest = std::max(heaviest, other.weight);
      }
    }
    const double row = CostOf(WorkOf(next, 1));
    const int64_t rows =
        candidates_[next].kind == WorkKind::kDecode ? kDecodeQuantumRows : kPrefillQuantumRows;
    return std::max(row, 1e-6) * static_cast<double>(rows) * backlog.weight / heaviest;
  }

  // Plans rows of candidate `i` for at most `*credit` if it can, and takes what they cost from it.
  // False if there is no room.
  bool ServeOne(size_t i, const Room& room, double* credit) {
    const int64_t rows = RowsFor(i, room, *credit);
    const bool places = planned_[i].taken || places_ < room.places;
    if (rows < 0 || !places || rows_ >= room.rows) return false;
    const StepWork work = WorkOf(i, rows);
    const double cost = CostOf(work);
    *credit -= cost;
    if (!planned_[i].taken) {
      ++places_;
      order_.push_back(i);
    }
    planned_[i] = {true, planned_[i].rows + rows, planned_[i].cost + cost};
    rows_ += std::max<int64_t>(rows, 1);
    work_ += work;
    return true;
  }

  // Rows that the step has room for and the credit pays; -1: no room.
  int64_t RowsFor(size_t i, const Room& room, double credit) const {
    const int64_t wanted = Wanted(i);
    if (candidates_[i].kind == WorkKind::kDecode || wanted == 0) return wanted;
    const int64_t left = std::min(room.rows - rows_, room.prefill_rows - work_.prefill_rows);
    const double row = std::max(CostOf(WorkOf(i, 1)), 1e-6);
    const int64_t paid = std::max(ToRows(credit / row), kMinPieceRows);
    int64_t timely = left;
    if (std::isfinite(room.time_us) && cost_.knows_prefill()) {
      timely = ToRows((room.time_us - cost_.PredictUs(work_)) / PieceRowUs(i, left));
      if (work_.prefill_rows == 0) timely = std::max(timely, kMinPieceRows);
    }
    const int64_t rows = std::min({wanted, left, paid, timely});
    return rows > 0 ? rows : -1;
  }

  // What a row of a piece of up to `rows` takes, its part in the updates included.
  double PieceRowUs(size_t i, int64_t rows) const {
    const int64_t piece = std::clamp<int64_t>(std::min(rows, Wanted(i)), 1, kPrefillQuantumRows);
    StepWork work = WorkOf(i, piece);
    work.updates = 0;
    double us = CostOf(work) / static_cast<double>(piece);
    if (limits_.chunk_tokens > 0) {
      us += CostOf({.updates = 1}) / static_cast<double>(limits_.chunk_tokens);
    }
    return std::max(us, 1e-6);
  }

  static int64_t ToRows(double rows) { return static_cast<int64_t>(std::clamp(rows, 0.0, 1e9)); }

  StepPlan Result(FairRings rings) const {
    StepPlan plan = {.work = work_,
                     .expected_us = cost_.PredictUs(work_),
                     .budget_us = budget_us_,
                     .rings = std::move(rings)};
    for (size_t i : order_) plan.rows.push_back({i, planned_[i].rows, planned_[i].cost});
    return plan;
  }

  const absl::Span<const Candidate> candidates_;
  const PlanLimits& limits_;
  const StepCostModel& cost_;
  std::vector<Planned> planned_;  // one for each candidate
  std::vector<size_t> order_;     // in which they were planned
  StepWork work_;
  int64_t rows_ = 0;
  int64_t places_ = 0;
  double budget_us_ = std::numeric_limits<double>::infinity();
};

}  // namespace

double PriorityWeight(Priority priority) {
  switch (priority) {
    case Priority::kHigh:
      return 16;
    case Priority::kNormal:
      return 4;
    case Priority::kLow:
      break;
  }
  return 1;
}

StepPlan PlanStep(absl::Span<const Candidate> candidates, const PlanLimits& limits,
                  const StepCostModel& cost, FairRings rings) {
  return Planner(candidates, limits, cost).Plan(std::move(rings));
}

}  // namespace mneme
