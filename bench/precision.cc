#include "bench/precision.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "bench/bench_backend.h"
#include "bench/bench_model.h"
#include "bench/random_tokens.h"
#include "bench/stream_set.h"
#include "engine/tokenizer/tokenizer.h"

namespace mneme {
namespace {

constexpr std::array<std::pair<DeltaType, DeltaType>, 6> kPairs = {{
    {DeltaType::kFloat32, DeltaType::kFloat32},
    {DeltaType::kFloat32, DeltaType::kBFloat16},
    {DeltaType::kFloat32, DeltaType::kFp8E4M3},
    {DeltaType::kBFloat16, DeltaType::kBFloat16},
    {DeltaType::kBFloat16, DeltaType::kFp8E4M3},
    {DeltaType::kFloat32, DeltaType::kFloat32},  // again: how far two runs alike are apart
}};

absl::StatusOr<std::vector<int32_t>> Tokens(const BenchOptions& options,
                                            const ModelConfig& config) {
  const int64_t count = options.prefill_tokens;
  if (options.text_file.empty()) return RandomTokens(count, config.vocab_size, options.seed);
  std::ifstream file(options.text_file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) return absl::NotFoundError("cannot read " + options.text_file.string());
  MNEME_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(options.model_dir));
  MNEME_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                         tokenizer->Encode(text, /*parse_special=*/false));
  if (static_cast<int64_t>(tokens.size()) > count) tokens.resize(static_cast<size_t>(count));
  return tokens;
}

struct Reading {
  std::string backend;
  std::vector<float> logprobs;  // without the first token's, which has none
  int64_t chunks_closed = 0;
  int64_t delta_bytes = 0;
};

absl::StatusOr<Reading> Read(const BenchOptions& options, const std::vector<int32_t>& tokens,
                             bool learning) {
  MNEME_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBenchBackend(options));
  MNEME_ASSIGN_OR_RETURN(const BenchModel model, LoadBenchModel(options, *backend));
  ModelConfig config = model.config;
  Reading reading = {.backend = backend->description()};
  reading.delta_bytes = static_cast<int64_t>(config.ttt->layers.size()) *
                        backend->DeltaBytes(config.hidden_size, config.intermediate_size);
  if (!learning) config.ttt.reset();
  MNEME_ASSIGN_OR_RETURN(
      const auto streams,
      StreamSet::Create(config, model.weights, *backend, /*streams=*/1, options.step_tokens,
                        static_cast<int64_t>(tokens.size())));
  MNEME_ASSIGN_OR_RETURN(const StreamSet::Step read, streams->Read(0, tokens, &reading.logprobs));
  reading.chunks_closed = read.chunks_closed;
  reading.logprobs.erase(reading.logprobs.begin());
  return reading;
}

double Mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value};
  return sum / static_cast<double>(values.size());
}

double RmsError(const std::vector<float>& a, const std::vector<float>& b, size_t from) {
  double sum = 0;
  for (size_t i = from; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return std::sqrt(sum / static_cast<double>(a.size() - from));
}

PrecisionRow Compare(const Reading& reading, const Reading& reference) {
  PrecisionRow row = {.delta_bytes = reading.delta_bytes};
  row.mean_logprob = Mean(reading.logprobs);
  row.mean_difference = row.mean_logprob - Mean(reference.logprobs);
  row.rms_error = RmsError(reading.logprobs, reference.logprobs, 0);
  row.last_quarter_rms_error =
      RmsError(reading.logprobs, reference.logprobs, reading.logprobs.size() * 3 / 4);
  for (size_t i = 0; i < reading.logprobs.size(); ++i) {
    const double error = std::abs(double{reading.logprobs[i]} - double{reference.logprobs[i]});
    row.largest_error = std::max(row.largest_error, error);
  }
  return row;
}

}  // namespace

absl::StatusOr<PrecisionReport> MeasurePrecision(
    const BenchOptions& options, const std::function<void(const std::string&)>& progress) {
  if (!options.cuda) {
    return absl::InvalidArgumentError(
        "--precision compares what fast weights are kept in on CUDA: add --backend cuda");
  }
  BenchOptions run = options;
  PrecisionReport report;
  MNEME_ASSIGN_OR_RETURN(const ModelConfig config, BenchModelConfig(options));
  if (!config.ttt) return absl::InvalidArgumentError("the model does not learn (ttt_mode)");
  MNEME_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, Tokens(options, config));
  if (tokens.size() < 2) return absl::InvalidArgumentError("the text has less than two tokens");
  if (static_cast<int64_t>(tokens.size()) > config.MaxSessionTokens()) {
    return absl::InvalidArgumentError(absl::StrCat(tokens.size(),
                                                   " tokens are more than the "
                                                   "model's context of ",
                                                   config.MaxSessionTokens()));
  }
  report.tokens = static_cast<int64_t>(tokens.size());
  report.chunk = config.ttt->chunk;
  progress("without learning");
  MNEME_ASSIGN_OR_RETURN(const Reading frozen, Read(run, tokens, /*learning=*/false));
  report.frozen_mean_logprob = Mean(frozen.logprobs);
  Reading reference;
  for (const auto& [accumulate, read] : kPairs) {
    progress(absl::StrCat("accumulated in ", NameOf(accumulate), ", read in ", NameOf(read)));
    run.cuda->delta_accumulate = accumulate;
    run.cuda->delta_read = read;
    MNEME_ASSIGN_OR_RETURN(Reading reading, Read(run, tokens, /*learning=*/true));
    if (report.rows.empty()) {
      report.backend = reading.backend;
      report.updates = reading.chunks_closed;
      reference = reading;
    }
    PrecisionRow row = Compare(reading, reference);
    row.accumulate = accumulate;
    row.read = read;
    report.rows.push_back(row);
  }
  return report;
}

}  // namespace mneme
