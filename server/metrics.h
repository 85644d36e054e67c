#ifndef MNEME_SERVER_METRICS_H_
#define MNEME_SERVER_METRICS_H_

// What the server counts, and the HTTP endpoint where Prometheus reads it.

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/clock.h"
#include "engine/engine.h"
#include "engine/stats.h"
#include "server/logging.h"
#include "server/rate_meter.h"

namespace mneme {

// Counters and histograms. Thread-safe.
class Metrics final : public StatsSink {
 public:
  // Both must outlive this. What a session's checkpoints have come to is logged too, unless
  // `logger` is null.
  explicit Metrics(const Clock& clock, const Logger* logger = nullptr);

  // A call of `kind` ("append", "create_session", …) ended after `time` with the status of this
  // name ("OK", "NOT_FOUND", …).
  void OnCallEnd(const std::string& kind, const std::string& code, absl::Duration time);

  void OnStep(int64_t rows, absl::Duration time) override;
  void OnTokensIn(int64_t tokens) override;
  void OnTokensOut(int64_t tokens) override;
  void OnChunksClosed(int64_t chunks) override;
  void OnUpdates(const UpdateCounts& counts) override;
  void OnFirstToken(absl::Duration since_arrival) override;
  void OnNextToken(absl::Duration since_last_token) override;
  void OnParked(int64_t bytes, absl::Duration time) override;
  void OnUnparked(int64_t bytes, absl::Duration time) override;
  void OnUnloaded(int64_t device_bytes) override;
  void OnCheckpoint(int64_t bytes, absl::Duration time) override;
  void OnCheckpointFailed(const absl::Status& why) override;
  void OnCheckpointRefused(const absl::Status& why) override;
  void OnRestoring(int64_t checkpoint_tokens, int64_t tokens) override;

  // Over the last ten seconds.
  double tokens_in_per_second() const { return rate_in_.PerSecond(clock_.Now()); }
  double tokens_out_per_second() const { return rate_out_.PerSecond(clock_.Now()); }

  std::shared_ptr<prometheus::Collectable> collectable() const { return registry_; }

 private:
  void CountMove(const std::string& kind, int64_t bytes, absl::Duration time);

  const Clock& clock_;
  const Logger* const logger_;
  RateMeter rate_in_;
  RateMeter rate_out_;
  const std::shared_ptr<prometheus::Registry> registry_;

  // Owned by registry_.
  prometheus::Family<prometheus::Counter>& calls_;
  prometheus::Family<prometheus::Histogram>& call_seconds_;
  prometheus::Counter& tokens_in_;
  prometheus::Counter& tokens_out_;
  prometheus::Counter& chunks_closed_;
  prometheus::Counter& updates_applied_;
  prometheus::Counter& updates_clipped_;
  prometheus::Counter& updates_skipped_;
  prometheus::Histogram& step_seconds_;
  prometheus::Histogram& step_rows_;
  prometheus::Histogram& first_token_seconds_;
  prometheus::Histogram& next_token_seconds_;
  prometheus::Family<prometheus::Counter>& moved_bytes_;
  prometheus::Family<prometheus::Histogram>& move_seconds_;
  prometheus::Family<prometheus::Counter>& unloaded_;
  prometheus::Family<prometheus::Counter>& checkpoints_;
  prometheus::Counter& checkpoint_bytes_;
  prometheus::Histogram& checkpoint_seconds_;
  prometheus::Family<prometheus::Counter>& restored_tokens_;
};

// What an engine holds at the moment of the scrape, and what the process takes. Without the
// engine's part if the engine does not answer within a second.
class LoadCollector final : public prometheus::Collectable {
 public:
  // `engine` must outlive this.
  explicit LoadCollector(Engine& engine) : engine_(engine) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  Engine& engine_;
};

// Serves http://HOST:PORT/metrics until it is destroyed.
class MetricsServer {
 public:
  // UNAVAILABLE if the address cannot be listened on. Port 0: any free one.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& host, int port,
      std::vector<std::shared_ptr<prometheus::Collectable>> sources);

  int port() const { return port_; }

 private:
  MetricsServer() = default;

  std::vector<std::shared_ptr<prometheus::Collectable>> sources_;  // the exposer keeps no reference
  std::unique_ptr<prometheus::Exposer> exposer_;
  int port_ = 0;
};

}  // namespace mneme

#endif  // MNEME_SERVER_METRICS_H_
