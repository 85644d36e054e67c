#include "bench/serving.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/engine_clients.h"
#include "bench/matmul_alone.h"
#include "bench/random_tokens.h"
#include "bench/stopwatch.h"
#include "bench/work.h"
#include "engine/cache_pools.h"

namespace mneme {
namespace {

double QuantileOf(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// More than the device has room for, where states are to move.
constexpr int64_t kMovingSessions = 6;

// An engine with sessions that have read something.
class Bench {
 public:
  // `parks`: the device has memory for a stream and one session more, the host for others.
  static absl::StatusOr<std::unique_ptr<Bench>> Create(const ServingOptions& options,
                                                       absl::Duration target, bool parks = false);

  absl::Status CreateSession(const std::string& id);
  std::shared_ptr<EngineClient> Generate(const std::string& id, int64_t input, int64_t tokens);
  std::shared_ptr<EngineClient> Ingest(const std::string& id, int64_t tokens);
  absl::Status DeleteSession(const std::string& id);
  TokenTimes& times() { return times_; }

  // Times between tokens of one session alone, after a warm-up.
  absl::StatusOr<std::vector<double>> GenerateAlone(int64_t tokens);

 private:
  Bench() = default;

  InputPiece Random(int64_t tokens) { return {.ids = RandomTokens(tokens, vocab_size_, ++seed_)}; }

  const Clock clock_;
  TokenTimes times_;
  int64_t vocab_size_ = 0, context_ = 0;
  std::atomic<uint64_t> seed_ = 0;
  std::unique_ptr<Engine> engine_;
};

absl::StatusOr<std::unique_ptr<Bench>> Bench::Create(const ServingOptions& options,
                                                     absl::Duration target, bool parks) {
  const BenchOptions& model_options = options.model;
  std::unique_ptr<Bench> bench(new Bench);
  MNEME_ASSIGN_OR_RETURN(auto backend, MakeBenchBackend(model_options));
  MNEME_ASSIGN_OR_RETURN(BenchModel model, LoadBenchModel(model_options, *backend));
  bench->vocab_size_ = model.config.vocab_size;
  bench->context_ = options.context;
  EngineOptions engine;
  if (parks) {
    const int64_t stream_tokens = options.context + 9 * options.decode_tokens + 64;
    const auto bytes = [&](int64_t tokens) {
      return CachePools::SessionBytes(model.config, *backend, tokens, model_options.step_tokens);
    };
    engine.session_tokens = stream_tokens;
    engine.cache_bytes = bytes(stream_tokens) + bytes(options.context + 1) * 21 / 20;
    engine.host_cache_bytes = kMovingSessions * bytes(options.context);
  }
  ServedModel served = {.config = model.config, .weights = std::move(model.weights)};
  engine.target_inter_token = target;
  engine.max_step_tokens = model_options.step_tokens;
  if (model_options.cuda) engine.device_memory_fraction = 0.9;  // it is the benchmark's alone
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

std::shared_ptr<EngineClient> Bench::Ingest(const std::string& id, int64_t tokens) {
  constexpr int64_t kPieceTokens = 512;
  AppendRequest request;
  request.header.session = {"bench", id};
  std::vector<InputPiece> pieces;
  for (int64_t at = 0; at < tokens; at += kPieceTokens) {
    pieces.push_back(Random(std::min(kPieceTokens, tokens - at)));
  }
  return EngineClient::Ingest(*engine_, std::move(request), std::move(pieces));
}

absl::Status Bench::DeleteSession(const std::string& id) {
  std::promise<absl::Status> deleted;
  engine_->DeleteSession({"bench", id},
                         [&](const auto& info) { deleted.set_value(info.status()); });
  return deleted.get_future().get();
}

// Reads documents into sessions, one after another, from its construction to its destruction.
class DocumentReader {
 public:
  DocumentReader(Bench& bench, std::string id, int64_t tokens)
      : bench_(bench), id_(std::move(id)), tokens_(tokens), thread_([this] { Run(); }) {}
  ~DocumentReader() {
    stopping_ = true;
    thread_.join();
  }

 private:
  void Run() {
    while (!stopping_ && bench_.CreateSession(id_).ok()) {
      const auto document = bench_.Ingest(id_, tokens_);
      const std::future<absl::Status> end = document->end();
      while (!stopping_ &&
             end.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
      }
      document->Cancel();
      end.wait();
      if (!bench_.DeleteSession(id_).ok()) return;
    }
  }

  Bench& bench_;
  const std::string id_;
  const int64_t tokens_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

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
    report.together_step_ms = QuantileOf(bench->times().TakeMs(), 0.5);
  }
  return absl::OkStatus();
}

absl::Status MeasureBeside(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto bench, Bench::Create(options, options.target));
  MNEME_ASSIGN_OR_RETURN(const auto alone, bench->GenerateAlone(8 * options.decode_tokens));
  report.alone_p50_ms = QuantileOf(alone, 0.5);
  report.alone_p99_ms = QuantileOf(alone, 0.99);
  std::vector<std::unique_ptr<DocumentReader>> documents;
  for (int64_t i = 0; i < options.documents; ++i) {
    documents.push_back(std::make_unique<DocumentReader>(*bench, absl::StrFormat("d%d", i),
                                                         options.document_tokens));
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
  report.limit_ms = options.model.cuda ? absl::ToDoubleMilliseconds(options.target)
                                       : std::max(3 * report.alone_p50_ms, 10.0);
  return absl::OkStatus();
}

// Sessions, of which the device has room for a few beside the stream, generate in turn.
absl::Status MeasureMoves(const ServingOptions& options, ServingReport& report) {
  MNEME_ASSIGN_OR_RETURN(const auto bench,
                         Bench::Create(options, options.together_target, /*parks=*/true));
  MNEME_ASSIGN_OR_RETURN(const auto alone, bench->GenerateAlone(options.decode_tokens));
  report.before_moves_p50_ms = QuantileOf(alone, 0.5);
  const auto name = [](int64_t i) { return absl::StrFormat("s%d", i % kMovingSessions); };
  for (int64_t i = 0; i < kMovingSessions; ++i) {
    MNEME_RETURN_IF_ERROR(bench->CreateSession(name(i)));
    MNEME_RETURN_IF_ERROR(bench->Generate(name(i), options.context, 1)->Await());
  }
  const auto stream = bench->Generate("alone", 0, 8 * options.decode_tokens);
  bench->times().TakeMs();
  for (int64_t i = 0; i < options.moves; ++i) {
    MNEME_RETURN_IF_ERROR(bench->Generate(name(i), 0, 1)->Await());
  }
  report.during_moves_p50_ms = QuantileOf(bench->times().TakeMs(), 0.5);
  report.parked = bench->times().parked();
  report.unparked = bench->times().unparked();
  return stream->Await();
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

absl::StatusOr<ServingReport> MeasureServing(const ServingOptions& options) {
  ServingReport report = {.sessions = options.sessions, .documents = options.documents};
  if (!options.model.cuda) {
    MNEME_ASSIGN_OR_RETURN(report.bound, MeasureBound(options));
  }
  MNEME_RETURN_IF_ERROR(MeasureTogether(options, report));
  MNEME_RETURN_IF_ERROR(MeasureBeside(options, report));
  if (options.moves > 0) MNEME_RETURN_IF_ERROR(MeasureMoves(options, report));
  return report;
}

namespace {

std::string BoundText(const ServingReport& r) {
  if (!r.bound) return "";
  const StepBound& b = *r.bound;
  const double bound = static_cast<double>(r.sessions) / b.seconds();
  return absl::StrFormat(
      "  reading %6.1f MB   %8.2f ms         at %.1f GB/s\n"
      "  %6.2f Gflop         %8.2f ms         at %.1f Gflop/s\n"
      "  bound               %8.0f tokens/s   reached: %.1f %%\n",
      b.bytes / 1e6, 1e3 * b.bytes / b.bytes_per_second, b.bytes_per_second / 1e9, b.flops / 1e9,
      1e3 * b.flops / b.flops_per_second, b.flops_per_second / 1e9, bound,
      100 * r.together_tokens_per_second / bound);
}

std::string MovesText(const char* name, const Moves& moves) {
  if (moves.count == 0) return "";
  const auto count = static_cast<double>(moves.count);
  const double ms = absl::ToDoubleMilliseconds(moves.time);
  return absl::StrFormat("  %-9s %4d times  %8.2f MB %8.2f ms each, %.1f GB/s\n", name, moves.count,
                         static_cast<double>(moves.bytes) / 1e6 / count, ms / count,
                         static_cast<double>(moves.bytes) / 1e6 / ms);
}

std::string MovesText(const ServingReport& r) {
  if (r.parked.count == 0) return "";
  return absl::StrCat("states between device and host\n", MovesText("parked", r.parked),
                      MovesText("back", r.unparked),
                      absl::StrFormat("  a stream  %8.2f ms p50 before %8.2f ms p50 meanwhile\n",
                                      r.before_moves_p50_ms, r.during_moves_p50_ms));
}

std::string StreamsText(const ServingReport& r) {
  return absl::StrFormat(
      "%d sessions generate together\n"
      "  alone               %8.0f tokens/s\n"
      "  together            %8.0f tokens/s   %.2f times one alone, %.2f ms a step\n"
      "%s"
      "a stream, and %d documents\n"
      "  alone               %8.2f ms p50 %8.2f ms p99\n"
      "  beside documents    %8.2f ms p50 %8.2f ms p99   limit %.2f ms: %.1f %% of it\n"
      "  documents           %8.0f tokens/s\n",
      r.sessions, r.alone_tokens_per_second, r.together_tokens_per_second,
      r.together_tokens_per_second / r.alone_tokens_per_second, r.together_step_ms, BoundText(r),
      r.documents, r.alone_p50_ms, r.alone_p99_ms, r.beside_p50_ms, r.beside_p99_ms, r.limit_ms,
      100 * r.beside_p99_ms / r.limit_ms, r.document_tokens_per_second);
}

}  // namespace

std::string ServingText(const ServingReport& report) {
  return StreamsText(report) + MovesText(report);
}

}  // namespace mneme
