#include "engine/loop/engine_loop.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "engine/durability/stored_session.h"
#include "engine/error.h"

namespace mneme {

static_assert(kMaxStepSequences <= Model::kLogitRows, "every one of them may draw");

namespace {

// How often clients of held calls are asked, if nothing else happens, whether they have given up.
constexpr absl::Duration kHeldLook = absl::Seconds(1);

PlanLimits LimitsOf(const JobContext& context) {
  PlanLimits limits = {.max_step_tokens = context.options.max_step_tokens,
                       .target_us = absl::ToDoubleMicroseconds(context.options.target_inter_token),
                       .chunk_tokens = context.config.ttt ? context.config.ttt->chunk : 0};
  const std::vector<int64_t>& windows = context.config.windows;
  const bool all = std::find(windows.begin(), windows.end(), 0) == windows.end();
  if (all) limits.attention_tokens = *std::max_element(windows.begin(), windows.end());
  return limits;
}

}  // namespace

EngineLoop::EngineLoop(std::unique_ptr<CachePools> pools, std::unique_ptr<Model> model,
                       std::unique_ptr<SessionTiers> tiers, const JobContext& context,
                       std::optional<SessionStore::Opened> stored, std::function<void()> wake)
    : pools_(std::move(pools)),
      model_(std::move(model)),
      context_(context),
      usage_(
          std::make_unique<DiskUsage>(log_,
                                      DiskUsage::Limits{context_.options.disk_cache_bytes,
                                                        context_.options.tenant_disk_cache_bytes},
                                      context_.clock)),
      checkpointer_(std::make_unique<Checkpointer>(
          log_, *tiers, *usage_, StateFormat{*pools_, context_.model_fingerprint},
          Checkpointer::Options{context_.options.checkpoints, context_.options.checkpoint_kv},
          context_.clock, context_.stats)),
      log_(std::move(stored), LogMeaning(context_.config, context_.tokenizer),
           {*pools_, context_.model_fingerprint}, context_.clock, std::move(wake)),
      sessions_(*pools_, context_.options.max_sessions),
      scheduler_(LimitsOf(context_)),
      tenants_(context_.options.tenant_weights),
      tiers_(std::move(tiers)),
      disk_(log_, *tiers_, *checkpointer_, context_.options.checkpoint_kv, context_.clock,
            context_.stats) {
  context_.log = &log_;
  log_.OpenArchives(context_.options.archives, context_.config, context_.model_fingerprint);
  context_.tiers = tiers_.get();
  context_.checkpointer = checkpointer_.get();
  log_.ListInto(&sessions_);
  usage_->Survey(sessions_.All());
  next_expiry_ = sessions_.NextExpiry();
}

EngineLoop::~EngineLoop() {
  const absl::Status stopping =
      MakeError(absl::StatusCode::kUnavailable, "the server is shutting down",
                {.reason = ErrorReason::kDraining, .retryable = true});
  Refuse(stopping);  // also what comes late of an archive
  EndAll(stopping);
  checkpointer_->GiveUp(stopping);  // who gets one may change its session
  log_.Stop();                      // while the sessions are there
}

// --- Steps. ---

bool EngineLoop::RunOnce() {
  const bool received = log_.Receive();
  log_.Commit();  // what was asked for between two steps need not wait for the next
  const bool worked = failure_.ok() && Work();
  const bool answered = AnswerHeld();
  log_.Commit();
  const bool progress = received || worked || answered;
  if (!progress) busy_since_.reset();
  return progress;
}

bool EngineLoop::Work() {
  const int64_t before = queues_.size();
  const bool moved = FinishMoves();
  const bool expired = Sweep();
  const bool left = FinishLeaving();
  TrimDisk();
  BeginCheckpoint();
  const std::vector<Ready> ready = CollectReady();
  const bool has_room = MakeRoom() || left;
  if (ready.empty()) {
    BeginCheckpoint();  // that room may wait for; not of sessions that the step computes
    Retire();           // before updates that nobody waits for
    if (moved || expired || has_room || queues_.size() != before) return true;
  }
  const std::vector<Session*> updates = CollectUpdates(ready);
  if (ready.empty() && updates.empty()) {
    RelieveMemory();
    return queues_.size() != before;
  }
  RunStep(ready, updates);
  Retire();
  return true;
}

void EngineLoop::Retire() {
  const absl::Time now = context_.clock.Now();
  queues_.EndWhere([](const Job& job) {
    return job.done() ? std::optional<absl::Status>(absl::OkStatus()) : std::nullopt;
  });
  const int64_t ended = queues_.ended() - counted_ended_;
  if (ended > 0) ended_.Add(now, static_cast<double>(ended));
  counted_ended_ += ended;
  CountRequests();
}

void EngineLoop::CountRequests() {
  tenants_.BeginCount(context_.clock.Now());
  queues_.ForEach([this](const Job& job, bool head) {
    tenants_.Count(job.header().session.tenant, head && !job.waits(), job.pending_tokens());
  });
}

void EngineLoop::EndJob(const Job& job, const absl::Status& status) {
  const Session& session = job.session();
  if (!session.ready()) return EndRequests(session, status);
  if (!tiers_->IsHere(session)) held_.End(session, status);  // they wait for the same
  queues_.End(&job, status);
}

void EngineLoop::EndRequests(const Session& session, const absl::Status& status) {
  held_.End(session, status);
  tiers_->DropAdopted(session);  // without requests it waits for nothing
  queues_.EndWhere([&](const Job& job) {
    return &job.session() == &session ? std::optional<absl::Status>(status) : std::nullopt;
  });
}

bool EngineLoop::Sweep() {
  const absl::Time now = context_.clock.Now();
  queues_.EndWhere([now](const Job& job) {
    const absl::Status status = job.Interruption(now);
    return status.ok() ? std::nullopt : std::optional<absl::Status>(status);
  });
  for (const Session* session : queues_.OnlyRestoring()) {
    if (!held_.Has(*session)) EndRequests(*session, absl::OkStatus());
  }
  return now >= next_expiry_ && DeleteExpired(now);
}

std::vector<EngineLoop::Asked> EngineLoop::AskHeads() {
  std::vector<Asked> asked;
  const bool may_log = log_.MayLog();
  for (Job* job : queues_.Heads()) {
    const bool is_here = tiers_->IsHere(job->session());
    if (!is_here && !job->idle()) {
      asked.push_back({job, std::nullopt});
      continue;
    }
    if (job->logs() ? !may_log : !log_.HasAllOf(job->session())) continue;
    const absl::StatusOr<std::optional<Candidate>> candidate = job->Next();
    if (!candidate.ok()) {
      EndJob(*job, candidate.status());
    } else if (candidate->has_value()) {
      asked.push_back({job, std::nullopt});
      if (is_here) asked.back().candidate = WithTenant(**candidate, *job);
    }
  }
  return asked;
}

std::vector<EngineLoop::Ready> EngineLoop::CollectReady() {
  const std::vector<Asked> asked = AskHeads();
  StreamGate gate = scheduler_.Gate();
  for (const Asked& entry : asked) {
    if (entry.candidate.has_value()) gate.Note(*entry.candidate);
  }
  std::vector<Ready> ready;
  starved_.clear();
  for (const auto& [job, candidate] : asked) {
    job->set_waits(true);
    if (!candidate.has_value()) {
      BringBack(job);
      continue;
    }
    if (StreamGate::IsBeginning(*candidate) && !gate.Admit(*candidate)) continue;
    const int64_t rows = std::min(candidate->rows_wanted, context_.options.max_step_tokens);
    const absl::StatusOr<bool> reserved = job->Reserve(rows, /*may_grow=*/starved_.empty());
    if (!reserved.ok()) {
      EndJob(*job, reserved.status());
    } else if (*reserved) {
      job->set_waits(false);
      ready.push_back({job, *candidate});
    } else {
      starved_.push_back(job);
    }
  }
  return ready;
}

std::vector<Session*> EngineLoop::CollectUpdates(const std::vector<Ready>& ready) const {
  if (updates_.empty()) return {};
  std::unordered_set<const Session*> taken;
  for (const Ready& entry : ready) taken.insert(&entry.job->session());
  std::vector<Session*> updates;
  // More than a step takes are not looked at.
  const int64_t most = std::max<int64_t>(context_.options.max_step_tokens / pools_->chunk(), 1);
  for (Session* session : updates_.First(most + static_cast<int64_t>(ready.size()))) {
    if (!taken.contains(session)) updates.push_back(session);
  }
  return updates;
}

Candidate EngineLoop::WithTenant(Candidate candidate, const Job& job) {
  const Tenants::Tenant& tenant = tenants_.Get(job.header().session.tenant);
  candidate.tenant = tenant.number;
  candidate.tenant_weight = tenant.weight;
  return candidate;
}

StepPlan EngineLoop::Plan(const std::vector<Ready>& ready, const std::vector<Session*>& updates) {
  std::vector<Candidate> candidates;
  for (const Ready& entry : ready) candidates.push_back(entry.candidate);
  const Candidate update = {.kind = WorkKind::kUpdate, .updates = 1, .awaited = !starved_.empty()};
  candidates.insert(candidates.end(), updates.size(), update);
  StepPlan plan = scheduler_.Plan(candidates);
  // Decode rows, pieces of input, updates.
  const auto order = [&](const PlannedRows& planned) {
    return planned.candidate >= ready.size() ? 2 : planned.rows <= 1 ? 0 : 1;
  };
  std::stable_sort(plan.rows.begin(), plan.rows.end(),
                   [&](const auto& a, const auto& b) { return order(a) < order(b); });
  return plan;
}

void EngineLoop::RunStep(const std::vector<Ready>& ready, const std::vector<Session*>& updates) {
  // Tokens also wait for what is done between two steps.
  const absl::Time begin = busy_since_.value_or(context_.clock.Now());
  const StepPlan plan = Plan(ready, updates);
  ++steps_;
  std::vector<SequenceStep> steps;
  for (const PlannedRows& planned : plan.rows) {
    if (planned.candidate < ready.size()) {
      MNEME_CHECK(tiers_->IsHere(ready[planned.candidate].job->session()));
      steps.push_back(ready[planned.candidate].job->MakeStep(planned.rows, steps_));
    } else {
      Session* session = updates[planned.candidate - ready.size()];
      MNEME_CHECK(tiers_->IsHere(*session));  // one that moves is leased
      session->state().Prepare(steps.emplace_back(), /*updates=*/1);
      updates_.Note(*session);
      log_.Note(*session, nullptr);
    }
  }
  if (!RunModel(absl::MakeSpan(steps))) return;
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (plan.rows[i].candidate >= ready.size()) continue;
    Job* job = ready[plan.rows[i].candidate].job;
    tenants_.Charge(job->header().session.tenant, begin, plan.rows[i].cost);
    const absl::Status status = job->Commit(steps[i]);
    // A throw-away session ends with its request; a replay applies its updates itself.
    if (!job->session().key().id.empty() && job->session().ready()) {
      updates_.Note(job->session());
      checkpointer_->Note(job->session());
    }
    if (!status.ok()) EndJob(*job, status);
  }
  const absl::Time end = context_.clock.Now();
  tokens_in_.Add(end, static_cast<double>(plan.work.prefill_rows));
  scheduler_.OnStepDone(plan, end, end - begin);
  busy_since_ = end;
}

bool EngineLoop::RunModel(absl::Span<SequenceStep> steps) {
  const absl::Time begin = context_.clock.Now();
  const absl::StatusOr<ModelStepStats> stats = model_->Run(*pools_, steps);
  if (!stats.ok()) {
    Fail(stats.status());
    return false;
  }
  context_.stats.OnStep(stats->rows, context_.clock.Now() - begin);
  if (stats->chunks_closed > 0) context_.stats.OnChunksClosed(stats->chunks_closed);
  if (stats->updates.updates > 0) context_.stats.OnUpdates(stats->updates);
  return true;
}

void EngineLoop::Fail(const absl::Status& status) {
  failure_ = MakeError(absl::StatusCode::kUnavailable,
                       absl::StrCat("the backend has failed: ", std::string(status.message()),
                                    "; the server must be restarted"),
                       {.reason = ErrorReason::kBackendFailed, .retryable = true});
  refusal_ = failure_;
  EndAll(failure_);
  checkpointer_->GiveUp(failure_);
}

absl::Time EngineLoop::NextWake() const {
  if (!failure_.ok()) return absl::InfiniteFuture();
  const absl::Time next_look =
      held_.empty() ? absl::InfiniteFuture() : context_.clock.Now() + kHeldLook;
  return std::min({next_expiry_, queues_.NextInterruption(), checkpointer_->NextDue(),
                   log_.NextWake(), disk_.NextWake(), usage_->NextTrim(), next_look});
}

}  // namespace mneme
