#include "bench/serving.h"

#include <omp.h>

#include <algorithm>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/matmul_alone.h"
#include "bench/serving_engine.h"
#include "bench/statistics.h"
#include "bench/stopwatch.h"
#include "bench/work.h"

namespace mneme {

// The sessions read their input and wait; then all generate at once.
absl::Status MeasureTogether(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto engine,
                         ServingEngine::Create(options, options.together_target));
  MNEME_ASSIGN_OR_RETURN(const auto alone, engine->GenerateAlone("alone", options.decode_tokens));
  report.alone_tokens_per_second = 1e3 / Quantile(alone, 0.5);
  for (const int64_t input : {options.context, int64_t{0}}) {
    std::vector<std::shared_ptr<EngineClient>> clients;
    engine->times().TakeMs();
    const Stopwatch stopwatch;
    for (int64_t i = 0; i < options.sessions; ++i) {
      const std::string id = absl::StrFormat("s%d", i);
      if (input > 0) MNEME_RETURN_IF_ERROR(engine->CreateSession(id));
      clients.push_back(engine->Generate(id, input, input > 0 ? 8 : options.decode_tokens));
    }
    for (const auto& client : clients) MNEME_RETURN_IF_ERROR(client->Await());
    const auto tokens = static_cast<double>(options.sessions * options.decode_tokens);
    report.together_tokens_per_second = 1e3 * tokens / stopwatch.Elapsed().wall_ms;
    report.together_step_ms = Quantile(engine->times().TakeMs(), 0.5);
  }
  return absl::OkStatus();
}

absl::Status MeasureBeside(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto engine, ServingEngine::Create(options, options.target));
  MNEME_ASSIGN_OR_RETURN(const auto alone,
                         engine->GenerateAlone("alone", 8 * options.decode_tokens));
  report.alone_p50_ms = Quantile(alone, 0.5);
  report.alone_p99_ms = Quantile(alone, 0.99);
  std::vector<std::unique_ptr<DocumentReader>> documents;
  for (int64_t i = 0; i < options.documents; ++i) {
    documents.push_back(std::make_unique<DocumentReader>(*engine, absl::StrFormat("d%d", i),
                                                         options.document_tokens));
  }
  MNEME_RETURN_IF_ERROR(engine->Generate("alone", 0, 64)->Await());  // documents are under way
  engine->times().TakeMs();
  const int64_t read_before = engine->times().tokens_in();
  const Stopwatch stopwatch;
  MNEME_RETURN_IF_ERROR(engine->Generate("alone", 0, 8 * options.decode_tokens)->Await());
  const auto read = static_cast<double>(engine->times().tokens_in() - read_before);
  report.document_tokens_per_second = 1e3 * read / stopwatch.Elapsed().wall_ms;
  const std::vector<double> beside = engine->times().TakeMs();
  report.beside_p50_ms = Quantile(beside, 0.5);
  report.beside_p99_ms = Quantile(beside, 0.99);
  report.limit_ms = options.model.cuda ? absl::ToDoubleMilliseconds(options.target)
                                       : std::max(3 * report.alone_p50_ms, 10.0);
  return absl::OkStatus();
}

namespace {

// The rate of the model's products alone, with as many rows as there are sessions.
absl::StatusOr<double> ProductRate(const BenchModel& model, Backend& backend, int64_t rows) {
  constexpr int kRepeats = 41;
  MNEME_ASSIGN_OR_RETURN(const auto products,
                         MatmulAlone::Create(model.config, model.weights, backend, rows));
  double best = 0;  // a bound is what can be reached
  for (int i = 0; i < kRepeats; ++i) {
    MNEME_ASSIGN_OR_RETURN(const MatmulAlone::Step step,
                           products->Run(rows, 0, /*logits=*/false, /*learning=*/false));
    best = std::max(best, 1e12 * step.gigaflops / step.duration.wall_ms);
  }
  return best;
}

absl::StatusOr<StepBound> MeasureBound(const ServingOptions& options) {
  const BenchOptions& model_options = options.model;
  MNEME_ASSIGN_OR_RETURN(const auto backend, MakeBenchBackend(model_options));
  MNEME_ASSIGN_OR_RETURN(const BenchModel model, LoadBenchModel(model_options, *backend));
  const WorkCounter counter(model.config, model.weights, SizeOf(backend->kv_dtype()),
                            DeltaReadBytes(model_options, model.config));
  const Work step =
      counter.DecodeStep(options.sessions, options.context + options.decode_tokens / 2,
                         /*learning=*/true);
  StepBound bound = {.bytes = step.bytes, .flops = step.flops};
  const int threads = model_options.threads > 0 ? model_options.threads : omp_get_num_procs();
  bound.bytes_per_second = ReadBandwidth(static_cast<int64_t>(step.bytes), threads);
  MNEME_ASSIGN_OR_RETURN(bound.flops_per_second, ProductRate(model, *backend, options.sessions));
  return bound;
}

}  // namespace

double StepBound::seconds() const {
  return std::max(bytes / bytes_per_second, flops / flops_per_second);
}

absl::Status MeasureServing(const ServingOptions& options, ServingReport& report) {
  report = {.sessions = options.sessions, .documents = options.documents};
  if (!options.model.cuda) {
    // In a thread of its own, whose helpers go with it.
    auto bound = std::async(std::launch::async, [&options] { return MeasureBound(options); });
    MNEME_ASSIGN_OR_RETURN(report.bound, bound.get());
  }
  MNEME_RETURN_IF_ERROR(MeasureTogether(options, report));
  MNEME_RETURN_IF_ERROR(MeasureBeside(options, report));
  MNEME_RETURN_IF_ERROR(MeasureUpdates(options, report));
  return options.moves > 0 ? MeasureMoves(options, report) : absl::OkStatus();
}

}  // namespace mneme
