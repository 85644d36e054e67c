#include "engine/scheduling/plan.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "engine/scheduling/step_draft.h"

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
// What updates that no token waits for may add to the time of the rows beside which they run.
constexpr double kUpdateShare = 0.01;

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
      : candidates_(candidates), limits_(limits), cost_(cost), draft_(candidates, limits, cost) {}

  StepPlan Plan(PlanState state) {
    const bool prefill_waits = Any(WorkKind::kPrefill);
    const bool decodes = Any(WorkKind::kDecode);
    const Room all = {limits_.max_step_tokens, kMaxStepSequences};
    const Room most = {all.rows - all.rows / 4, all.places - all.places / 4};
    const FairRing decode_ring = state.decode;
    state.decode = Serve(WorkKind::kDecode, decode_ring, prefill_waits ? most : all);
    Room room = all;
    if (decodes && (prefill_waits || Any(WorkKind::kUpdate))) LimitTime(&room);
    if (decodes || prefill_waits) {
      ServeUpdates(room.time_us, &state.update_debt_us);
    } else {
      ServeIdleUpdates();
    }
    if (prefill_waits) {
      state.prefill = Serve(WorkKind::kPrefill, std::move(state.prefill), room);
      state.decode = Serve(WorkKind::kDecode, std::move(state.decode), all);
    } else {
      state.prefill.clear();
    }
    state.steps_since_input_waited = InputIsLeft() ? 0 : state.steps_since_input_waited + 1;
    state.update_debt_us = std::max(state.update_debt_us - kUpdateShare * draft_.PredictUs(), 0.0);
    return Result(std::move(state));
  }

 private:
  // Up to where a step may be filled.
  struct Room {
    int64_t rows = 0;
    int64_t places = 0;
    int64_t prefill_rows = std::numeric_limits<int64_t>::max();
    double time_us = std::numeric_limits<double>::infinity();
  };

  bool Any(WorkKind kind) const {
    return std::any_of(candidates_.begin(), candidates_.end(),
                       [kind](const Candidate& c) { return c.kind == kind; });
  }

  bool InputIsLeft() const {
    for (size_t i = 0; i < candidates_.size(); ++i) {
      if (candidates_[i].kind == WorkKind::kPrefill && draft_.Wanted(i) > 0) return true;
    }
    return false;
  }

  void LimitTime(Room* room) {
    const double decode_us = draft_.PredictUs();
    budget_us_ = std::max(limits_.target_us, decode_us * cost_.margin() / kDecodeShare);
    room->time_us = budget_us_ / cost_.margin();
    if (std::isfinite(limits_.target_us) && !cost_.knows_prefill()) {
      room->prefill_rows = kProbeRows;
    }
  }

  // --- Updates that no token waits for. ---

  int64_t MostUpdates() const {
    const int64_t chunk = std::max<int64_t>(limits_.chunk_tokens, 1);
    return std::max<int64_t>(limits_.max_step_tokens / chunk, 1);
  }

  // Beside rows: at most one, when those before are paid off; but as many as there is time for, and
  // one in any case, where somebody waits for their memory.
  void ServeUpdates(double time_us, double* debt_us) {
    int64_t planned = 0;
    for (size_t i = 0; i < candidates_.size() && planned < MostUpdates(); ++i) {
      if (candidates_[i].kind != WorkKind::kUpdate) continue;
      const double cost_us = draft_.CostOf({.updates = 1});
      const bool timely = draft_.PredictUs() + cost_us <= time_us;
      const bool paid = *debt_us <= 0 && draft_.PredictUs() > 0;
      if (!(candidates_[i].awaited ? timely || planned == 0 : timely && paid)) continue;
      draft_.Take(i, 0);
      *debt_us += cost_us;
      ++planned;
    }
  }

  // In a step of their own: no more than a request that comes meanwhile would wait for others'
  // rows.
  void ServeIdleUpdates() {
    const double time_us = limits_.target_us / cost_.margin();
    int64_t planned = 0;
    for (size_t i = 0; i < candidates_.size() && planned < MostUpdates(); ++i) {
      if (candidates_[i].kind != WorkKind::kUpdate) continue;
      if (planned > 0 && draft_.PredictUs() + draft_.CostOf({.updates = 1}) > time_us) return;
      draft_.Take(i, 0);
      ++planned;
    }
  }

  // --- Rows. ---

  std::vector<Backlog> BacklogsOf(WorkKind kind) const {
    std::vector<Backlog> backlogs;
    for (size_t i = 0; i < candidates_.size(); ++i) {
      const Candidate& c = candidates_[i];
      if (c.kind != kind || (draft_.taken(i) && draft_.Wanted(i) == 0)) continue;
      const FlowKey flow = {c.tenant, c.priority, c.begins_stream};
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
        if (other.flow.tenant == backlog.flow.tenant) parts += FlowWeight(other.flow);
      }
      backlog.weight = backlog.tenant_weight * FlowWeight(backlog.flow) / parts;
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
        if (draft_.Wanted(next) == 0) backlog.candidates.pop_back();
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
    const double row = draft_.CostOf(draft_.WorkOf(next, 1));
    const int64_t rows =
        candidates_[next].kind == WorkKind::kDecode ? kDecodeQuantumRows : kPrefillQuantumRows;
    return std::max(row, 1e-6) * static_cast<double>(rows) * backlog.weight / heaviest;
  }

  // Plans rows of candidate `i` for at most `*credit` if it can, and takes what they cost from it.
  // False if there is no room.
  bool ServeOne(size_t i, const Room& room, double* credit) {
    const int64_t rows = RowsFor(i, room, *credit);
    const bool places = draft_.taken(i) || draft_.places() < room.places;
    if (rows < 0 || !places || draft_.rows() >= room.rows) return false;
    *credit -= draft_.Take(i, rows);
    return true;
  }

  // Rows that the step has room for and the credit pays; -1: no room.
  int64_t RowsFor(size_t i, const Room& room, double credit) const {
    const int64_t wanted = draft_.Wanted(i);
    if (candidates_[i].kind == WorkKind::kDecode || wanted == 0) return wanted;
    const int64_t planned = draft_.work().prefill_rows;
    const int64_t left = std::min(room.rows - draft_.rows(), room.prefill_rows - planned);
    const double row = std::max(draft_.CostOf(draft_.WorkOf(i, 1)), 1e-6);
    const int64_t paid = std::max(ToRows(credit / row), kMinPieceRows);
    int64_t timely = left;
    if (std::isfinite(room.time_us) && cost_.knows_prefill()) {
      timely = TimelyRows(i, std::min({wanted, left, paid}), room.time_us);
      if (planned == 0) timely = std::max(timely, kMinPieceRows);
    }
    const int64_t rows = std::min({wanted, left, paid, timely});
    return rows > 0 ? rows : -1;
  }

  // The most rows, up to `rows`, with which the step, updates inside the piece included, is done in
  // time.
  int64_t TimelyRows(size_t i, int64_t rows, double time_us) const {
    int64_t fit = 0;
    for (int64_t beyond = rows + 1; fit + 1 < beyond;) {
      const int64_t middle = (fit + beyond) / 2;
      const StepWork step = draft_.work() + draft_.WorkOf(i, middle);
      (cost_.PredictUs(step) <= time_us ? fit : beyond) = middle;
    }
    return fit;
  }

  static int64_t ToRows(double rows) { return static_cast<int64_t>(std::clamp(rows, 0.0, 1e9)); }

  StepPlan Result(PlanState state) const {
    return {.rows = draft_.planned(),
            .work = draft_.work(),
            .expected_us = draft_.PredictUs(),
            .budget_us = budget_us_,
            .state = std::move(state)};
  }

  const absl::Span<const Candidate> candidates_;
  const PlanLimits& limits_;
  const StepCostModel& cost_;
  StepDraft draft_;
  double budget_us_ = std::numeric_limits<double>::infinity();
};

}  // namespace

double FlowWeight(const FlowKey& flow) {
  const double weight = flow.of_stream ? 16 : 1;
  switch (flow.priority) {
    case Priority::kHigh:
      return 16 * weight;
    case Priority::kNormal:
      return 4 * weight;
    case Priority::kLow:
      break;
  }
  return weight;
}

StepPlan PlanStep(absl::Span<const Candidate> candidates, const PlanLimits& limits,
                  const StepCostModel& cost, PlanState state) {
  return Planner(candidates, limits, cost).Plan(std::move(state));
}

}  // namespace mneme
