#include "server/metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <exception>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/version.h"
#include "server/address.h"

namespace mneme {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;

const Buckets kShortTimes = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                             0.1,    0.2,   0.5,   1,     2,    5,    10};
const Buckets kLongTimes = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
                            2,     5,    10,   20,   60,  120, 300, 600};
const Buckets kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

prometheus::Counter& AddCounter(prometheus::Registry& registry, const std::string& name,
                                const std::string& help) {
  return BuildCounter().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name,
                                    const std::string& help, const Buckets& buckets) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

prometheus::MetricFamily Gauge(const std::string& name, const std::string& help,
                               const std::vector<std::pair<std::string, double>>& values,
                               const std::string& label = "state") {
  prometheus::MetricFamily family{name, help, prometheus::MetricType::Gauge, {}};
  for (const auto& [label_value, value] : values) {
    prometheus::ClientMetric& metric = family.metric.emplace_back();
    if (!label_value.empty()) metric.label.push_back({label, label_value});
    metric.gauge.value = value;
  }
  return family;
}

prometheus::MetricFamily Gauge(const std::string& name, const std::string& help, int64_t value) {
  return Gauge(name, help, {{"", static_cast<double>(value)}});
}

absl::StatusOr<EngineLoad> LoadWithin(Engine& engine, std::chrono::seconds limit) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<EngineLoad>>>();
  auto load = promise->get_future();
  engine.GetLoad(
      [promise](const absl::StatusOr<EngineLoad>& result) { promise->set_value(result); });
  if (load.wait_for(limit) == std::future_status::ready) return load.get();
  return absl::DeadlineExceededError("the engine does not answer");
}

void AddTenants(const std::vector<TenantLoad>& tenants,
                std::vector<prometheus::MetricFamily>& families) {
  std::vector<std::pair<std::string, double>> shares, requests, tokens;
  for (const TenantLoad& tenant : tenants) {
    shares.emplace_back(tenant.name, tenant.share);
    requests.emplace_back(tenant.name, tenant.running_requests + tenant.waiting_requests);
    tokens.emplace_back(tenant.name, tenant.pending_tokens);
  }
  families.push_back(Gauge("mneme_tenant_share", "Share of the time of the last seconds' steps.",
                           shares, "tenant"));
  families.push_back(
      Gauge("mneme_tenant_requests", "Requests running or waiting.", requests, "tenant"));
  families.push_back(Gauge("mneme_tenant_pending_tokens",
                           "Input tokens received and not yet computed.", tokens, "tenant"));
}

void AddLoad(const EngineLoad& load, std::vector<prometheus::MetricFamily>& families) {
  families.push_back(Gauge("mneme_sessions", "Sessions held.", load.sessions));
  families.push_back(
      Gauge("mneme_parked_sessions", "Sessions whose state is not on the device, by where it is.",
            {{"host", static_cast<double>(load.parked_sessions - load.disk_sessions)},
             {"disk", static_cast<double>(load.disk_sessions)}},
            "tier"));
  families.push_back(Gauge("mneme_log_pending_batches",
                           "Batches of the session log that the disk has not taken yet.",
                           load.log_pending_batches));
  families.push_back(Gauge("mneme_log_writable",
                           "1: the session log can be written; 0: the disk is full, fails or "
                           "hangs, and requests that log are refused.",
                           load.log_writable ? 1 : 0));
  families.push_back(Gauge("mneme_running_requests",
                           "Requests that have begun and are the first of their session.",
                           load.running_requests));
  families.push_back(Gauge("mneme_waiting_requests",
                           "Requests behind another one of their session, or without memory.",
                           load.waiting_requests));
  families.push_back(Gauge("mneme_queued_requests",
                           "Requests that came while the engine computes its present step.",
                           load.queued_requests));
  families.push_back(Gauge("mneme_pending_tokens", "Input tokens received and not yet computed.",
                           load.pending_tokens));
  families.push_back(Gauge("mneme_waiting_chunks",
                           "Chunks that sessions have read to their end and not learnt yet.",
                           load.waiting_chunks));
  families.push_back(
      Gauge("mneme_step_use",
            "Of late: rows of a step over --max_step_tokens, and time of a step with "
            "running streams over what it was planned for.",
            {{"tokens", load.step_token_use}, {"time", load.step_time_use}}, "budget"));
  families.push_back(Gauge("mneme_idle_sessions",
                           "Sessions that hold device memory without a request in flight.",
                           load.idle_sessions));
  families.push_back(Gauge("mneme_device_bytes", "Device memory for sessions.",
                           {{"used", static_cast<double>(load.device_bytes_used)},
                            {"reserved", static_cast<double>(load.device_bytes_reserved)},
                            {"limit", static_cast<double>(load.device_bytes_limit)},
                            {"idle", static_cast<double>(load.idle_bytes)}}));
  families.push_back(Gauge("mneme_host_cache_bytes",
                           "Host memory for the states of parked sessions.",
                           {{"used", static_cast<double>(load.host_cache_bytes_used)},
                            {"limit", static_cast<double>(load.host_cache_bytes_limit)}}));
  families.push_back(Gauge("mneme_disk_cache_bytes", "Of the disk, for checkpoints of sessions.",
                           {{"used", static_cast<double>(load.disk_cache_bytes_used)},
                            {"limit", static_cast<double>(load.disk_cache_bytes_limit)}}));
  AddTenants(load.tenants, families);
  families.push_back(Gauge("mneme_host_bytes", "Host memory for token logs and request records.",
                           load.host_bytes));
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
}

void AddProcess(std::vector<prometheus::MetricFamily>& families) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  prometheus::MetricFamily cpu{"process_cpu_seconds_total",
                               "Processor time, user and system.",
                               prometheus::MetricType::Counter,
                               {}};
  cpu.metric.emplace_back().counter.value = Seconds(usage.ru_utime) + Seconds(usage.ru_stime);
  families.push_back(std::move(cpu));

  int64_t pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident_pages;
  families.push_back(Gauge("process_resident_memory_bytes", "Resident memory.",
                           resident_pages * sysconf(_SC_PAGESIZE)));
}

}  // namespace

Metrics::Metrics(const Clock& clock, const Logger* logger)
    : clock_(clock),
      logger_(logger),
      registry_(std::make_shared<prometheus::Registry>()),
      calls_(BuildCounter()
                 .Name("mneme_requests_total")
                 .Help("Calls that have ended, by kind and status.")
                 .Register(*registry_)),
      call_seconds_(BuildHistogram()
                        .Name("mneme_request_seconds")
                        .Help("Time from a call's arrival to its end, by kind.")
                        .Register(*registry_)),
      tokens_in_(AddCounter(*registry_, "mneme_tokens_in_total", "Input tokens computed.")),
      tokens_out_(AddCounter(*registry_, "mneme_tokens_out_total", "Tokens generated.")),
      chunks_closed_(AddCounter(*registry_, "mneme_chunks_closed_total",
                                "Chunks that sessions have read to their end.")),
      updates_applied_(AddCounter(*registry_, "mneme_updates_applied_total",
                                  "Updates of a layer's fast weights, one for each chunk and "
                                  "layer that learns.")),
      updates_clipped_(AddCounter(*registry_, "mneme_updates_clipped_total",
                                  "Updates that were scaled down to clip_norm.")),
      updates_skipped_(AddCounter(*registry_, "mneme_updates_skipped_total",
                                  "Updates not applied: not finite, or the fast weights would "
                                  "have passed max_relative_norm.")),
      step_seconds_(
          AddHistogram(*registry_, "mneme_step_seconds", "Time of one step.", kShortTimes)),
      step_rows_(
          AddHistogram(*registry_, "mneme_step_rows", "Tokens computed by one step.", kRows)),
      first_token_seconds_(AddHistogram(*registry_, "mneme_time_to_first_token_seconds",
                                        "Time from a Generate's arrival to its first token.",
                                        kLongTimes)),
      next_token_seconds_(AddHistogram(*registry_, "mneme_time_between_tokens_seconds",
                                       "Time from one token of a Generate to the next.",
                                       kShortTimes)),
      moved_bytes_(BuildCounter()
                       .Name("mneme_state_moved_bytes_total")
                       .Help("Bytes of sessions' states that left the device (park) or came back "
                             "(unpark).")
                       .Register(*registry_)),
      move_seconds_(BuildHistogram()
                        .Name("mneme_state_move_seconds")
                        .Help("Time that a session's state took to leave the device or come back.")
                        .Register(*registry_)),
      unloaded_(BuildCounter()
                    .Name("mneme_sessions_unloaded_total")
                    .Help("Sessions that have left memory for the disk, by where their state was.")
                    .Register(*registry_)),
      checkpoints_(BuildCounter()
                       .Name("mneme_checkpoints_total")
                       .Help("Checkpoints that were written (written), could not be written "
                             "(failed), or could not be restored from (refused).")
                       .Register(*registry_)),
      checkpoint_bytes_(AddCounter(*registry_, "mneme_checkpoint_bytes_total",
                                   "Bytes of states that were written to checkpoints.")),
      checkpoint_seconds_(AddHistogram(*registry_, "mneme_checkpoint_seconds",
                                       "Time from a checkpoint's beginning until it is durable.",
                                       kLongTimes)),
      restored_tokens_(BuildCounter()
                           .Name("mneme_restored_tokens_total")
                           .Help("Tokens of sessions whose state was restored, by where it came "
                                 "from: checkpoint, or replay of the log.")
                           .Register(*registry_)) {
  BuildGauge()
      .Name("mneme_build_info")
      .Help("1, labelled with the server's version.")
      .Register(*registry_)
      .Add({{"version", kVersion}})
      .Set(1);
}

void Metrics::OnCallEnd(const std::string& kind, const std::string& code, absl::Duration time) {
  calls_.Add({{"kind", kind}, {"code", code}}).Increment();
  call_seconds_.Add({{"kind", kind}}, kLongTimes).Observe(absl::ToDoubleSeconds(time));
}

void Metrics::OnStep(int64_t rows, absl::Duration time) {
  step_rows_.Observe(static_cast<double>(rows));
  step_seconds_.Observe(absl::ToDoubleSeconds(time));
}

void Metrics::OnTokensIn(int64_t tokens) {
  tokens_in_.Increment(static_cast<double>(tokens));
  rate_in_.Add(clock_.Now(), tokens);
}

void Metrics::OnTokensOut(int64_t tokens) {
  tokens_out_.Increment(static_cast<double>(tokens));
  rate_out_.Add(clock_.Now(), tokens);
}

void Metrics::OnChunksClosed(int64_t chunks) {
  chunks_closed_.Increment(static_cast<double>(chunks));
}

void Metrics::OnUpdates(const UpdateCounts& counts) {
  updates_applied_.Increment(static_cast<double>(counts.updates - counts.skipped));
  updates_clipped_.Increment(static_cast<double>(counts.clipped));
  updates_skipped_.Increment(static_cast<double>(counts.skipped));
}

void Metrics::OnFirstToken(absl::Duration since_arrival) {
  first_token_seconds_.Observe(absl::ToDoubleSeconds(since_arrival));
}

void Metrics::OnNextToken(absl::Duration since_last_token) {
  next_token_seconds_.Observe(absl::ToDoubleSeconds(since_last_token));
}

void Metrics::OnParked(int64_t bytes, absl::Duration time) { CountMove("park", bytes, time); }

void Metrics::OnUnparked(int64_t bytes, absl::Duration time) { CountMove("unpark", bytes, time); }

void Metrics::OnUnloaded(int64_t device_bytes) {
  unloaded_.Add({{"from", device_bytes > 0 ? "device" : "host"}}).Increment();
}

void Metrics::CountMove(const std::string& kind, int64_t bytes, absl::Duration time) {
  moved_bytes_.Add({{"kind", kind}}).Increment(static_cast<double>(bytes));
  move_seconds_.Add({{"kind", kind}}, kShortTimes).Observe(absl::ToDoubleSeconds(time));
}

void Metrics::OnCheckpoint(int64_t bytes, absl::Duration time) {
  checkpoints_.Add({{"result", "written"}}).Increment();
  checkpoint_bytes_.Increment(static_cast<double>(bytes));
  checkpoint_seconds_.Observe(absl::ToDoubleSeconds(time));
}

void Metrics::OnCheckpointFailed(const absl::Status& why) {
  checkpoints_.Add({{"result", "failed"}}).Increment();
  if (logger_) logger_->Error("a checkpoint could not be written", {{"status", why.ToString()}});
}

void Metrics::OnCheckpointRefused(const absl::Status& why) {
  checkpoints_.Add({{"result", "refused"}}).Increment();
  if (logger_ == nullptr) return;
  logger_->Warn("a checkpoint cannot be restored from; an older one or the log is used",
                {{"status", why.ToString()}});
}

void Metrics::OnRestoring(int64_t checkpoint_tokens, int64_t tokens) {
  restored_tokens_.Add({{"from", "checkpoint"}}).Increment(static_cast<double>(checkpoint_tokens));
  restored_tokens_.Add({{"from", "replay"}})
      .Increment(static_cast<double>(tokens - checkpoint_tokens));
}

std::vector<prometheus::MetricFamily> LoadCollector::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  AddProcess(families);
  const absl::StatusOr<EngineLoad> load = LoadWithin(engine_, std::chrono::seconds(1));
  if (load.ok()) AddLoad(*load, families);
  return families;
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& host, int port,
    std::vector<std::shared_ptr<prometheus::Collectable>> sources) {
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer);
  server->sources_ = std::move(sources);
  const std::string address = JoinHostPort(host, port);
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", "2"});
  } catch (const std::exception& failure) {
    return absl::UnavailableError(
        absl::StrCat("metrics cannot listen on ", address, ": ", failure.what()));
  }
  for (const auto& source : server->sources_) server->exposer_->RegisterCollectable(source);
  server->port_ = server->exposer_->GetListeningPorts().at(0);
  return server;
}

}  // namespace mneme
