#include "engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "base/status_macros.h"
#include "engine/error.h"
#include "engine/loop/engine_loop.h"
#include "engine/loop/intake.h"
#include "engine/model/warm_up.h"

namespace mneme {
namespace {

// What the disk gets to take what requests that have ended wait for.
constexpr absl::Duration kFlushTime = absl::Seconds(5);

// The engine with its thread. Everything but the intake and what `mutex_` guards belongs to it.
class ThreadedEngine final : public Engine {
 public:
  ThreadedEngine(const EngineOptions& options, std::unique_ptr<Backend> backend, ServedModel model,
                 const Clock& clock, StatsSink& stats)
      : options_(options),
        backend_(std::move(backend)),
        model_(std::move(model)),
        clock_(clock),
        stats_(stats),
        intake_(std::make_shared<Intake>(options.max_queued_requests)) {}

  absl::Status Start(std::optional<SessionStore::Opened> stored) {
    MNEME_ASSIGN_OR_RETURN(auto model, Model::Create(model_.config, model_.weights, *backend_,
                                                     options_.max_step_tokens));
    MNEME_RETURN_IF_ERROR(WarmUpPrefill(model_.config, *backend_, *model, CacheLimits()));
    MNEME_ASSIGN_OR_RETURN(auto pools, CachePools::Create(model_.config, *backend_, CacheLimits()));
    MNEME_RETURN_IF_ERROR(WarmUpDecode(*backend_, *model, *pools, options_.max_step_tokens));
    MNEME_ASSIGN_OR_RETURN(
        auto tiers,
        SessionTiers::Create(*pools, *backend_,
                             {.host_cache_bytes = options_.host_cache_bytes,
                              .tenant_host_cache_bytes = options_.tenant_host_cache_bytes,
                              .use_files = stored.has_value()},
                             clock_, stats_, Notifier()));
    JobContext context = {.config = model_.config,
                          .defaults = model_.defaults,
                          .options = options_,
                          .tokenizer = model_.tokenizer.get(),
                          .clock = clock_,
                          .stats = stats_,
                          .seeds = std::mt19937_64(std::random_device()()),
                          .model_fingerprint = model_.fingerprint};
    loop_ = std::make_unique<EngineLoop>(std::move(pools), std::move(model), std::move(tiers),
                                         context, std::move(stored), Notifier());
    thread_ = std::thread([this] { RunThread(); });
    return absl::OkStatus();
  }

  ~ThreadedEngine() override {
    if (!thread_.joinable()) return;
    intake_->Post([this] { stopping_ = true; });
    thread_.join();
  }

  const ModelConfig& config() const override { return model_.config; }
  const GenerationDefaults& defaults() const override { return model_.defaults; }
  const EngineOptions& options() const override { return options_; }
  std::string backend_description() const override { return backend_->description(); }
  const Tokenizer* tokenizer() const override { return model_.tokenizer.get(); }

  void CreateSession(SessionKey key, SessionOptions options, Done<SessionInfo> done) override {
    intake_->Post([=, this] { AnswerDurably(done, loop_->CreateSession(key, options)); });
  }
  void GetSession(SessionKey key, Done<SessionInfo> done) override {
    intake_->Post([=, this] { done(loop_->GetSession(key)); });
  }
  void ListSessions(std::string tenant, std::string after, int limit,
                    Done<SessionPage> done) override {
    intake_->Post([=, this] {
      if (!loop_->failure().ok()) return done(loop_->failure());
      done(loop_->ListSessions(tenant, after, limit));
    });
  }
  void UpdateSession(SessionKey key, SessionUpdate update, Done<SessionInfo> done) override {
    intake_->Post([=, this] { AnswerDurably(done, loop_->UpdateSession(key, update)); });
  }
  void ForkSession(SessionKey key, std::string new_id, HistoryPoint at, GaveUp gave_up,
                   Done<SessionInfo> done) override {
    intake_->Post([=, this] {
      loop_->WhenBack(key, HeldCalls::Until::kLog, gave_up, [=, this](const absl::Status& status) {
        if (!status.ok()) return done(status);
        AnswerDurably(done, loop_->ForkSession(key, new_id, at));
      });
    });
  }
  void RollbackSession(SessionKey key, HistoryPoint to, GaveUp gave_up,
                       Done<SessionInfo> done) override {
    intake_->Post([=, this] {
      loop_->WhenBack(key, HeldCalls::Until::kAtRest, gave_up,
                      [=, this](const absl::Status& status) {
                        if (!status.ok()) return done(status);
                        AnswerDurably(done, loop_->RollbackSession(key, to));
                      });
    });
  }
  void ExportSession(SessionKey key, Done<SessionArchive> done) override {
    intake_->Post([=, this] { loop_->ExportSession(key, done); });
  }
  void BeginImport(SessionKey key, ImportStart start,
                   Done<std::shared_ptr<ArchiveFile>> done) override {
    intake_->Post([=, this] { loop_->BeginImport(key, start, done); });
  }
  void ImportSession(SessionKey key, std::shared_ptr<ArchiveFile> archive,
                     Done<SessionInfo> done) override {
    intake_->Post([=, this] { loop_->ImportSession(key, archive, done); });
  }
  void CheckpointSession(SessionKey key, std::string name, GaveUp gave_up,
                         Done<CheckpointSummary> done) override {
    intake_->Post([=, this] { loop_->CheckpointSession(key, name, done, gave_up); });
  }
  void DeleteSession(SessionKey key, Done<SessionInfo> done) override {
    intake_->Post([=, this] { AnswerDurably(done, loop_->DeleteSession(key)); });
  }

  void Append(AppendRequest request, std::shared_ptr<RequestChannel> channel) override {
    channel->SetEngineNotify(Notifier());
    PostRequest(*channel, [=, this] { loop_->Append(request, channel); });
  }
  void Generate(GenerateRequest request, std::shared_ptr<RequestChannel> channel) override {
    channel->SetEngineNotify(Notifier());
    PostRequest(*channel, [=, this] { loop_->Generate(request, channel); });
  }
  void Cancel(SessionKey key, std::string request_id, Done<std::monostate> done) override {
    intake_->Post([=, this] {
      const absl::Status status = loop_->Cancel(key, request_id);
      status.ok() ? done(std::monostate()) : done(status);
    });
  }
  void GetLoad(Done<EngineLoad> done) override {
    intake_->Post([=, this] {
      EngineLoad load = loop_->load();
      load.queued_requests = intake_->requests();
      done(std::move(load));
    });
  }

  void Drain(absl::Duration grace) override {
    const absl::Status draining =
        MakeError(absl::StatusCode::kUnavailable, "the server is draining; use another replica",
                  {.reason = ErrorReason::kDraining, .retryable = true});
    intake_->Post([=, this] { loop_->Refuse(draining); });
    if (WaitUntilIdle(grace)) return;
    intake_->Post([=, this] { loop_->EndAll(draining); });
    if (WaitUntilIdle(kFlushTime)) return;
    intake_->Post([this] {
      loop_->log().GiveUp(MakeError(
          absl::StatusCode::kUnavailable,
          "the server is stopping and its disk does not take the session log; a retry will show "
          "what was kept",
          {.reason = ErrorReason::kStorageFailed, .retryable = true}));
    });
    WaitUntilIdle(absl::InfiniteDuration());
  }

  absl::Status health() const override {
    std::lock_guard lock(mutex_);
    return health_;
  }
  void SetFailureCallback(std::function<void(absl::Status)> on_failure) override {
    intake_->Post([=, this] { on_failure_ = on_failure; });
  }

 private:
  // What sessions may take of what is free now.
  CacheOptions CacheLimits() const {
    const auto share = static_cast<int64_t>(options_.device_memory_fraction *
                                            static_cast<double>(backend_->FreeBytes()));
    return {.limit_bytes = options_.cache_bytes > 0 ? options_.cache_bytes : share,
            .session_tokens = options_.session_tokens,
            .max_step_tokens = options_.max_step_tokens};
  }

  // Answers with `result` when the log has what has led to it.
  template <typename T>
  void AnswerDurably(const Done<T>& done, const absl::StatusOr<T>& result) {
    if (!result.ok()) return done(result);
    loop_->log().WhenDurable(
        [done, result](const absl::Status& status) { status.ok() ? done(result) : done(status); });
  }

  // Refuses the request at once if too many have come since the engine thread last looked.
  void PostRequest(RequestChannel& channel, Intake::Command command) {
    if (intake_->PostRequest(std::move(command))) return;
    std::unique_lock lock(mutex_);
    const absl::Duration delay = retry_delay_;
    lock.unlock();
    channel.PushEvent(RequestEnd{
        MakeError(absl::StatusCode::kResourceExhausted,
                  "more requests come than the engine can look at; try again later",
                  {.reason = ErrorReason::kQueueFull, .retryable = true, .retry_delay = delay})});
  }

  RequestChannel::Notify Notifier() const {
    return [intake = intake_] { intake->Notify(); };
  }

  void RunThread() {
    bool progress = true;
    while (!stopping_) {
      const absl::Duration wait =
          progress ? absl::ZeroDuration() : loop_->NextWake() - clock_.Now();
      for (const Intake::Command& command : intake_->Take(wait)) command();
      progress = loop_->RunOnce();
      PublishState();
    }
    loop_.reset();
    PublishIdle(0);
  }

  // Lets other threads see how many requests are in flight and whether the backend has failed.
  void PublishState() {
    const absl::Status& failure = loop_->failure();
    if (!failure.ok() && on_failure_) std::exchange(on_failure_, nullptr)(failure);
    {
      std::lock_guard lock(mutex_);
      if (health_ != failure) health_ = failure;
      retry_delay_ = loop_->retry_delay();
    }
    PublishIdle(loop_->requests_in_flight());
  }

  void PublishIdle(int64_t requests) {
    {
      std::lock_guard lock(mutex_);
      requests_ = requests;
      acknowledged_ = passed_;
    }
    state_changed_.notify_all();
  }

  // False if requests are still in flight after `grace`.
  bool WaitUntilIdle(absl::Duration grace) {
    std::unique_lock lock(mutex_);
    const int64_t ticket = ++tickets_;
    // Behind everything that was posted before.
    intake_->Post([this, ticket] { passed_ = std::max(passed_, ticket); });
    const auto idle = [&] { return acknowledged_ >= ticket && requests_ == 0; };
    if (grace == absl::InfiniteDuration()) {
      state_changed_.wait(lock, idle);
      return true;
    }
    return state_changed_.wait_for(lock, absl::ToChronoNanoseconds(grace), idle);
  }

  const EngineOptions options_;
  const std::unique_ptr<Backend> backend_;
  const ServedModel model_;
  const Clock& clock_;
  StatsSink& stats_;

  // Shared with the channels, which their clients may keep for longer.
  const std::shared_ptr<Intake> intake_;
  mutable std::mutex mutex_;
  std::condition_variable state_changed_;
  int64_t requests_ = 0;      // guarded by mutex_, as are the next four
  int64_t tickets_ = 0;       // drawn by those who wait
  int64_t acknowledged_ = 0;  // up to which ticket requests_ is true
  absl::Status health_;
  absl::Duration retry_delay_ = absl::Seconds(1);

  // Engine thread only, once it runs.
  std::unique_ptr<EngineLoop> loop_;
  std::function<void(absl::Status)> on_failure_;
  bool stopping_ = false;
  int64_t passed_ = 0;  // the last ticket that came through the intake
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(const EngineOptions& options,
                                                       std::unique_ptr<Backend> backend,
                                                       ServedModel model, const Clock& clock,
                                                       StatsSink& stats,
                                                       std::optional<SessionStore::Opened> stored) {
  auto engine =
      std::make_unique<ThreadedEngine>(options, std::move(backend), std::move(model), clock, stats);
  MNEME_RETURN_IF_ERROR(engine->Start(std::move(stored)));
  return engine;
}

}  // namespace mneme
