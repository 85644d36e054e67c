#include "bench/serving.h"

#include <omp.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/engine_clients.h"
#include "bench/matmul_alone.h"
#include "bench/random_tokens.h"
#include "bench/stopwatch.h"
#include "bench/work.h"

namespace mneme {
namespace {

double QuantileOf(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// An engine with sessions that have read something.
class Bench {
 public:
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const ServingOptions& options,
                                                       absl::Duration target);

  absl::Status CreateSession(const std::string& id);
  std::shared_ptr<EngineClient> Generate(const std::string& id, int64_t input, int64_t tokens);
  std::shared_ptr<EngineClient> Ingest(const std::string& id);
  TokenTimes& times() { return times_; }

  // Times between tokens of one session alone, after a warm-up.
  absl::StatusOr<std::vector<double>> GenerateAlone(int64_t tokens);

 private:
  Bench() = default;

  InputPiece Random(int64_t tokens) { return {.ids = RandomTokens(tokens, vocab_size_, ++seed_)}; }

  const Clock clock_;
  TokenTimes times_;
  int64_t vocab_size_ = 0, context_ = 0;
  uint64_t seed_ = 0;
  std::unique_ptr<Engine> engine_;
};

absl::StatusOr<std::unique_ptr<Bench>> Bench::Create(const ServingOptions& options,
                                                     absl::Duration target) {
  const BenchOptions model_options = {.model_dir = options.model_dir, .threads = options.threads};
  std::unique_ptr<Bench> bench(new Bench);
  MNEME_ASSIGN_OR_RETURN(auto backend, MakeBenchBackend(model_options));
  MNEME_ASSIGN_OR_RETURN(BenchModel model, LoadBenchModel(model_options, *backend));
  bench->vocab_size_ = model.config.vocab_size;
  bench->context_ = options.context;
  ServedModel served = {.config = model.config, .weights = std::move(model.weights)};
  EngineOptions engine;
  engine.target_inter_token = target;
  MNEME_ASSIGN_OR_RETURN(
      bench->engine_,
      Engine::Create(engine, std::move(backend), std::move(served), bench->clock_, bench->times_));
  return bench;
}

absl::Status Bench::CreateSession(const std::string& id) {
  std::promise<absl::Status> created;
  // Random tokens are no text: without a limit what they teach would diverge in the end.
  engine_->CreateSession({"bench", id}, {.controls = {.clip_norm = 0.1F}},
                         [&](const auto& info) { created.set_value(info.status()); });
  return created.get_future().get();
}

std::shared_ptr<EngineClient> Bench::Generate(const std::string& id, int64_t input,
                                              int64_t tokens) {
  GenerateRequest request;
  request.header.session = {"bench", id};
  if (input > 0) request.input = Random(input);
  request.sampling.temperature = 0;
  request.max_tokens = tokens;
  request.ignore_eos = true;
  return EngineClient::Generate(*engine_, std::move(request));
}

std::shared_ptr<EngineClient> Bench::Ingest(const std::string& id) {
  AppendRequest request;
  request.header.session = {"bench", id};
  return EngineClient::Ingest(*engine_, std::move(request), Random(4096));
}

absl::StatusOr<std::vector<double>> Bench::GenerateAlone(int64_t tokens) {
  MNEME_RETURN_IF_ERROR(CreateSession("alone"));
  MNEME_RETURN_IF_ERROR(Generate("alone", context_, 32)->Await());
  times_.TakeMs();
  MNEME_RETURN_IF_ERROR(Generate("alone", 0, tokens)->Await());
  return times_.TakeMs();
}

// The sessions read their input and wait; then all generate at once.
absl::Status MeasureTogether(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto bench, Bench::Create(options, options.together_target));
  MNEME_ASSIGN_OR_RETURN(const auto alone, bench->GenerateAlone(options.decode_tokens));
  report.alone_tokens_per_second = 1e3 / QuantileOf(alone, 0.5);
  for (const int64_t input : {options.context, int64_t{0}}) {
    std::vector<std::shared_ptr<EngineClient>> clients;
    bench->times().TakeMs();
    const Stopwatch stopwatch;
    for (int64_t i = 0; i < options.sessions; ++i) {
      const std::string id = absl::StrFormat("s%d", i);
      if (input > 0) MNEME_RETURN_IF_ERROR(bench->CreateSession(id));
      clients.push_back(bench->Generate(id, input, input > 0 ? 8 : options.decode_tokens));
    }
    for (const auto& client : clients) MNEME_RETURN_IF_ERROR(client->Await());
    const auto tokens = static_cast<double>(options.sessions * options.decode_tokens);
    report.together_tokens_per_second = 1e3 * tokens / stopwatch.Elapsed().wall_ms;
  }
  return absl::OkStatus();
}

absl::Status MeasureBeside(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto bench, Bench::Create(options, options.target));
  MNEME_ASSIGN_OR_RETURN(const auto alone, bench->GenerateAlone(8 * options.decode_tokens));
  report.alone_p50_ms = QuantileOf(alone, 0.5);
  report.alone_p99_ms = QuantileOf(alone, 0.99);
  std::vector<std::shared_ptr<EngineClient>> documents;
  for (int64_t i = 0; i < options.documents; ++i) {
    const std::string id = absl::StrFormat("d%d", i);
    MNEME_RETURN_IF_ERROR(bench->CreateSession(id));
    documents.push_back(bench->Ingest(id));
  }
  MNEME_RETURN_IF_ERROR(bench->Generate("alone", 0, 64)->Await());  // documents are under way
  bench->times().TakeMs();
  const int64_t read_before = bench->times().tokens_in();
  const Stopwatch stopwatch;
  MNEME_RETURN_IF_ERROR(bench->Generate("alone", 0, 8 * options.decode_tokens)->Await());
  const auto read = static_cast<double>(bench->times().tokens_in() - read_before);
  report.document_tokens_per_second = 1e3 * read / stopwatch.Elapsed().wall_ms;
  const std::vector<double> beside = bench->times().TakeMs();
  report.beside_p50_ms = QuantileOf(beside, 0.5);
  report.beside_p99_ms = QuantileOf(beside, 0.99);
  for (const auto& document : documents) {
    document->Stop();
    MNEME_RETURN_IF_ERROR(document->Await());
  }
  return absl::OkStatus();
}

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

absl::Status MeasureBound(const ServingOptions& options, ServingReport& report) {
  const BenchOptions model_options = {.model_dir = options.model_dir, .threads = options.threads};
  MNEME_ASSIGN_OR_RETURN(const auto backend, MakeBenchBackend(model_options));
  MNEME_ASSIGN_OR_RETURN(const BenchModel model, LoadBenchModel(model_options, *backend));
  const WorkCounter counter(model.config, model.weights, SizeOf(backend->kv_dtype()),
                            DeltaReadBytes(model_options, model.config));
  const Work step =
      counter.DecodeStep(options.sessions, options.context + options.decode_tokens / 2,
                         /*learning=*/true);
  report.bytes = step.bytes;
  report.flops = step.flops;
  const int threads = options.threads > 0 ? options.threads : omp_get_num_procs();
  report.bytes_per_second = ReadBandwidth(static_cast<int64_t>(step.bytes), threads);
  MNEME_ASSIGN_OR_RETURN(report.flops_per_second, ProductRate(model, *backend, options.sessions));
  return absl::OkStatus();
}

}  // namespace

double ServingReport::BoundTokensPerSecond() const {
  const double seconds = std::max(bytes / bytes_per_second, flops / flops_per_second);
  return static_cast<double>(sessions) / seconds;
}

double ServingReport::BesideLimitMs() const { return std::max(3 * alone_p50_ms, 10.0); }

absl::StatusOr<ServingReport> MeasureServing(const ServingOptions& options) {
  ServingReport report = {.sessions = options.sessions, .documents = options.documents};
  MNEME_RETURN_IF_ERROR(MeasureBound(options, report));
  MNEME_RETURN_IF_ERROR(MeasureTogether(options, report));
  MNEME_RETURN_IF_ERROR(MeasureBeside(options, report));
  return report;
}

std::string ServingText(const ServingReport& r) {
  const double bound = r.BoundTokensPerSecond();
  return absl::StrFormat(
      "%d sessions generate together\n"
      "  alone               %8.0f tokens/s\n"
      "  together            %8.0f tokens/s   %.2f times one alone\n"
      "  reading %6.1f MB   %8.2f ms         at %.1f GB/s\n"
      "  %6.2f Gflop         %8.2f ms         at %.1f Gflop/s\n"
      "  bound               %8.0f tokens/s   reached: %.1f %%\n"
      "a stream, and %d documents\n"
      "  alone               %8.2f ms p50 %8.2f ms p99\n"
      "  beside documents    %8.2f ms p50 %8.2f ms p99   limit %.2f ms: %.1f %% of it\n"
      "  documents           %8.0f tokens/s\n",
      r.sessions, r.alone_tokens_per_second, r.together_tokens_per_second,
      r.together_tokens_per_second / r.alone_tokens_per_second, r.bytes / 1e6,
      1e3 * r.bytes / r.bytes_per_second, r.bytes_per_second / 1e9, r.flops / 1e9,
      1e3 * r.flops / r.flops_per_second, r.flops_per_second / 1e9, bound,
      100 * r.together_tokens_per_second / bound, r.documents, r.alone_p50_ms, r.alone_p99_ms,
      r.beside_p50_ms, r.beside_p99_ms, r.BesideLimitMs(),
      100 * r.beside_p99_ms / r.BesideLimitMs(), r.document_tokens_per_second);
}

}  // namespace mneme
