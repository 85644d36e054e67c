#include "bench/benchmark.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/matmul_alone.h"
#include "bench/random_tokens.h"
#include "bench/stream_set.h"

namespace mneme {
namespace {

// A session with or without learning, and what was measured of it.
struct Lane {
  bool learning = false;
  std::unique_ptr<StreamSet> session;   // one stream
  std::vector<Sample> prefill, decode;  // one for each repeat
};

class Benchmark {
 public:
  static absl::StatusOr<std::unique_ptr<Benchmark>> Create(const BenchOptions& options);

  absl::Status RunAll();
  BenchReport Report() const;

 private:
  explicit Benchmark(const BenchOptions& options) : options_(options) {}
  absl::Status AddLane(bool learning);

  // One repeat: every lane reads `prefill_tokens`, goes on to `decode_begin` and decodes.
  absl::Status RunRepeat(int64_t prefill_tokens, int64_t decode_begin, int64_t decode_tokens);
  absl::Status Prefill(int64_t tokens);
  absl::Status Decode(int64_t tokens);
  // The lanes from position `from` to `to`, unmeasured.
  absl::Status Read(int64_t from, int64_t to);
  absl::Status Step(Lane& lane, int64_t rows, bool decode, Sample& sample);
  // The lanes in the order of turn `turn`: none is always the first.
  std::vector<Lane*> InTurn(int64_t turn);
  absl::Span<const int32_t> Tokens(int64_t from, int64_t count) const {
    return absl::MakeSpan(tokens_).subspan(static_cast<size_t>(from), static_cast<size_t>(count));
  }

  const BenchOptions options_;
  std::unique_ptr<Backend> backend_;
  BenchModel model_;
  ModelConfig plain_config_;  // without In-Place TTT
  std::vector<int32_t> tokens_;
  std::unique_ptr<MatmulAlone> matmul_;
  std::vector<Lane> lanes_;  // learning off; on, if the model learns
};

absl::StatusOr<std::unique_ptr<Benchmark>> Benchmark::Create(const BenchOptions& options) {
  std::unique_ptr<Benchmark> b(new Benchmark(options));
  MNEME_ASSIGN_OR_RETURN(b->backend_, MakeBenchBackend(options));
  MNEME_ASSIGN_OR_RETURN(b->model_, LoadBenchModel(options, *b->backend_));
  const ModelConfig& config = b->model_.config;
  b->plain_config_ = config;
  b->plain_config_.ttt.reset();
  b->tokens_ = RandomTokens(options.decode_begin() + 1, config.vocab_size, options.seed);
  MNEME_ASSIGN_OR_RETURN(b->matmul_, MatmulAlone::Create(config, b->model_.weights, *b->backend_,
                                                         options.step_tokens));
  MNEME_RETURN_IF_ERROR(b->AddLane(false));
  if (config.ttt) MNEME_RETURN_IF_ERROR(b->AddLane(true));
  return b;
}

absl::Status Benchmark::AddLane(bool learning) {
  Lane lane{.learning = learning};
  MNEME_ASSIGN_OR_RETURN(lane.session,
                         StreamSet::Create(learning ? model_.config : plain_config_, model_.weights,
                                           *backend_, /*streams=*/1, options_.step_tokens,
                                           options_.decode_begin() + options_.decode_tokens));
  lanes_.push_back(std::move(lane));
  return absl::OkStatus();
}

absl::Status Benchmark::RunAll() {
  // What is generated and touched only once is no part of the measurement.
  const int64_t warm_up = std::min(options_.prefill_tokens, options_.step_tokens);
  MNEME_RETURN_IF_ERROR(RunRepeat(warm_up, warm_up, 1));
  for (Lane& lane : lanes_) {
    lane.prefill.clear();
    lane.decode.clear();
  }
  for (int i = 0; i < options_.repeat; ++i) {
    MNEME_RETURN_IF_ERROR(
        RunRepeat(options_.prefill_tokens, options_.decode_begin(), options_.decode_tokens));
  }
  return absl::OkStatus();
}

absl::Status Benchmark::RunRepeat(int64_t prefill_tokens, int64_t decode_begin,
                                  int64_t decode_tokens) {
  for (Lane& lane : lanes_) {
    lane.session->Restart();
    lane.prefill.emplace_back();
    lane.decode.emplace_back();
  }
  MNEME_RETURN_IF_ERROR(Prefill(prefill_tokens));
  MNEME_RETURN_IF_ERROR(Read(prefill_tokens, decode_begin));
  return Decode(decode_tokens);
}

absl::Status Benchmark::Prefill(int64_t tokens) {
  for (int64_t done = 0, turn = 0; done < tokens; done += options_.step_tokens, ++turn) {
    const int64_t rows = std::min(options_.step_tokens, tokens - done);
    for (Lane* lane : InTurn(turn)) {
      MNEME_RETURN_IF_ERROR(Step(*lane, rows, /*decode=*/false, lane->prefill.back()));
    }
  }
  return absl::OkStatus();
}

absl::Status Benchmark::Read(int64_t from, int64_t to) {
  for (; from < to; from += options_.step_tokens) {
    const auto tokens = Tokens(from, std::min(options_.step_tokens, to - from));
    for (Lane& lane : lanes_) MNEME_RETURN_IF_ERROR(lane.session->Read(0, tokens).status());
  }
  return absl::OkStatus();
}

absl::Status Benchmark::Decode(int64_t tokens) {
  for (int64_t i = 0; i < tokens; ++i) {
    for (Lane* lane : InTurn(i)) {
      MNEME_RETURN_IF_ERROR(Step(*lane, 1, /*decode=*/true, lane->decode.back()));
    }
  }
  return absl::OkStatus();
}

absl::Status Benchmark::Step(Lane& lane, int64_t rows, bool decode, Sample& sample) {
  const int64_t position = lane.session->position(0);
  MNEME_ASSIGN_OR_RETURN(const StreamSet::Step step,
                         decode ? lane.session->Decode(tokens_.back())
                                : lane.session->Read(0, Tokens(position, rows)));
  MNEME_ASSIGN_OR_RETURN(const MatmulAlone::Step products,
                         matmul_->Run(rows, position, /*logits=*/decode, lane.learning));
  sample.engine += step.duration;
  sample.chunks_closed += step.chunks_closed;
  sample.matmul += products.duration;
  sample.gigaflops += products.gigaflops;
  return absl::OkStatus();
}

std::vector<Lane*> Benchmark::InTurn(int64_t turn) {
  std::vector<Lane*> order;
  for (Lane& lane : lanes_) order.push_back(&lane);
  if (turn % 2 == 1) std::reverse(order.begin(), order.end());
  return order;
}

BenchReport Benchmark::Report() const {
  const bool learns = lanes_.size() == 2;
  BenchReport report;
  report.model = model_.name;
  report.backend = backend_->description();
  report.chunk = learns ? model_.config.ttt->chunk : 0;
  report.options = options_;
  const std::vector<Sample> none;
  report.prefill =
      SummarizePhase(options_.prefill_tokens, lanes_[0].prefill, learns ? lanes_[1].prefill : none);
  report.decode =
      SummarizePhase(options_.decode_tokens, lanes_[0].decode, learns ? lanes_[1].decode : none);
  return report;
}

}  // namespace

absl::StatusOr<BenchReport> RunBenchmark(const BenchOptions& options) {
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Benchmark> benchmark, Benchmark::Create(options));
  MNEME_RETURN_IF_ERROR(benchmark->RunAll());
  return benchmark->Report();
}

}  // namespace mneme
