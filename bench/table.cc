#include "bench/table.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/random_tokens.h"
#include "bench/stream_set.h"

namespace mneme {
namespace {

double Percentile(std::vector<double> values, double share) {
  MNEME_CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const auto last = static_cast<double>(values.size() - 1);
  return values[static_cast<size_t>(std::lround(last * share))];
}

class TableRunner {
 public:
  TableRunner(const BenchOptions& options, const BenchModel& model, Backend& backend)
      : options_(options),
        model_(model),
        backend_(backend),
        plain_config_(WithoutTtt(model.config)),
        counter_(model.config, model.weights, SizeOf(backend.kv_dtype()),
                 DeltaReadBytes(options, model.config)) {}

  absl::StatusOr<TableRow> Run(const Workload& workload, bool learning, const Ceilings& ceilings) {
    TableRow row = {.workload = workload, .learning = learning};
    MNEME_RETURN_IF_ERROR(workload.kind == Workload::Kind::kDecode ? Decode(row) : Prefill(row));
    row.floor_ms = row.work.FloorMs(ceilings);
    return row;
  }

 private:
  static ModelConfig WithoutTtt(ModelConfig config) {
    config.ttt.reset();
    return config;
  }

  absl::StatusOr<std::unique_ptr<StreamSet>> MakeStreams(const TableRow& row) {
    return StreamSet::Create(row.learning ? model_.config : plain_config_, model_.weights, backend_,
                             row.workload.streams, options_.step_tokens,
                             SessionTokens(row.workload, options_.decode_tokens));
  }

  // Session `stream` reads random tokens of its own up to position `tokens`.
  absl::Status Read(StreamSet& streams, int64_t stream, int64_t tokens, TableRow& row) {
    const std::vector<int32_t> ids = RandomTokens(tokens, model_.config.vocab_size,
                                                  options_.seed + static_cast<uint64_t>(stream));
    MNEME_ASSIGN_OR_RETURN(const StreamSet::Step read, streams.Read(stream, ids));
    row.chunks_closed += read.chunks_closed;
    row.updates_skipped += read.updates_skipped;
    return absl::OkStatus();
  }

  absl::Status Decode(TableRow& row) {
    const Workload& w = row.workload;
    MNEME_ASSIGN_OR_RETURN(const auto streams, MakeStreams(row));
    for (int64_t s = 0; s < w.streams; ++s) {
      MNEME_RETURN_IF_ERROR(Read(*streams, s, w.tokens, row));
    }
    std::vector<double> times;
    for (int64_t i = 0; i < kDecodeWarmUp + options_.decode_tokens; ++i) {
      MNEME_ASSIGN_OR_RETURN(const StreamSet::Step step, streams->Decode(/*first=*/1));
      if (i >= kDecodeWarmUp) times.push_back(step.duration.wall_ms);
    }
    row.ms = Percentile(times, 0.5);
    row.p99_ms = Percentile(times, 0.99);
    row.tokens_per_second = 1e3 * static_cast<double>(w.streams) / row.ms;
    row.work = counter_.DecodeStep(w.streams, w.tokens + kDecodeWarmUp + options_.decode_tokens / 2,
                                   row.learning);
    return absl::OkStatus();
  }

  absl::Status Prefill(TableRow& row) {
    const int64_t tokens = row.workload.tokens;
    MNEME_ASSIGN_OR_RETURN(const auto streams, MakeStreams(row));
    std::vector<double> times;
    for (int i = 0; i <= options_.repeat; ++i) {  // the first warms up
      streams->Restart();
      row.chunks_closed = row.updates_skipped = 0;
      const Stopwatch stopwatch;
      MNEME_RETURN_IF_ERROR(Read(*streams, 0, tokens, row));
      if (i > 0) times.push_back(stopwatch.Elapsed().wall_ms);
    }
    MNEME_RETURN_IF_ERROR(streams->Decode(/*first=*/1).status());  // its logits are finite
    row.ms = Percentile(times, 0.5);
    row.p99_ms = Percentile(times, 1);
    row.tokens_per_second = 1e3 * static_cast<double>(tokens) / row.ms;
    row.work = counter_.Prefill(tokens, options_.step_tokens, row.learning);
    return absl::OkStatus();
  }

  const BenchOptions& options_;
  const BenchModel& model_;
  Backend& backend_;
  const ModelConfig plain_config_;
  const WorkCounter counter_;
};

}  // namespace

absl::StatusOr<BenchTable> RunTable(const BenchOptions& options,
                                    const std::function<void(const std::string&)>& progress) {
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBenchBackend(options));
  BenchTable table;
  table.backend = backend->description();
  progress("measuring the device's ceilings");
  MNEME_ASSIGN_OR_RETURN(table.ceilings, MeasureCeilings(*backend, options.cuda ? 8 : 1));
  progress("loading the model");
  MNEME_ASSIGN_OR_RETURN(const BenchModel model, LoadBenchModel(options, *backend));
  table.model = model.name;
  table.chunk = model.config.ttt ? model.config.ttt->chunk : 0;
  table.step_tokens = options.step_tokens;
  TableRunner runner(options, model, *backend);
  for (const Workload& workload : options.workloads) {
    for (const bool learning : {false, true}) {
      if (learning && !model.config.ttt) continue;
      progress(NameOf(workload) + (learning ? ", learning" : ", not learning"));
      MNEME_ASSIGN_OR_RETURN(TableRow row, runner.Run(workload, learning, table.ceilings));
      table.rows.push_back(row);
    }
  }
  return table;
}

}  // namespace mneme
