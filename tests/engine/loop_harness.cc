#include "tests/engine/loop_harness.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "base/check.h"
#include "engine/loading/safetensors_checkpoint.h"
#include "engine/model/warm_up.h"
#include "gtest/gtest.h"

namespace mneme {
namespace {

template <typename T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) ADD_FAILURE() << value.status();
  MNEME_CHECK(value.ok());
  return std::move(value).value();
}

template <typename T>
std::vector<T> CopyTensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor* tensor = file.Find(name);
  MNEME_CHECK(tensor != nullptr);
  std::vector<T> values(tensor->bytes.size() / sizeof(T));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

}  // namespace

void Call::Read() {
  while (auto event = channel->PopEvent()) {
    if (auto* p = std::get_if<AppendProgress>(&*event)) progress.push_back(*p);
    if (auto* t = std::get_if<GeneratedToken>(&*event)) tokens.push_back(*t);
    if (auto* f = std::get_if<Finished>(&*event)) finished = *f;
    if (auto* e = std::get_if<RequestEnd>(&*event)) {
      end = e->status;
      ++ends;
    }
  }
}

std::vector<float> Call::AppendLogProbs() const {
  std::vector<float> all;
  for (const AppendProgress& p : progress) {
    all.insert(all.end(), p.logprobs.begin(), p.logprobs.end());
  }
  return all;
}

std::vector<int32_t> Call::TokenIds() const {
  std::vector<int32_t> ids;
  for (const GeneratedToken& token : tokens) ids.push_back(token.id);
  return ids;
}

std::string Call::Text() const {
  std::string text;
  for (const GeneratedToken& token : tokens) text += token.text;
  return text;
}

ServedModel LoadServedModel(const std::filesystem::path& model_dir, bool with_tokenizer,
                            Backend& backend) {
  ServedModel model;
  model.config = ValueOrDie(LoadModelConfig(model_dir));
  model.defaults = ValueOrDie(LoadGenerationDefaults(model_dir));
  const Checkpoint checkpoint = ValueOrDie(Checkpoint::Open(model_dir));
  model.weights = ValueOrDie(LoadWeights(model.config, checkpoint, backend));
  if (with_tokenizer) model.tokenizer = ValueOrDie(Tokenizer::Load(model_dir));
  return model;
}

LoopHarness::LoopHarness(const std::filesystem::path& model_dir, const HarnessOptions& options)
    : options_(options.engine) {
  backend_ = ValueOrDie(CreateTestBackend(options.backend, options.cpu_threads));
  if (options.wrap_backend) backend_ = options.wrap_backend(std::move(backend_));
  model_ = LoadServedModel(model_dir, options.with_tokenizer, *backend_);
  model_.fingerprint = TestFingerprint(model_dir);
  auto model =
      ValueOrDie(Model::Create(model_.config, model_.weights, *backend_, options_.max_step_tokens));
  const CacheOptions cache = {.limit_bytes = options_.cache_bytes,
                              .session_tokens = options_.session_tokens,
                              .max_step_tokens = options_.max_step_tokens};
  if (options.warm_up) {
    EXPECT_TRUE(WarmUpPrefill(model_.config, *backend_, *model, cache).ok());
  }
  auto pools = ValueOrDie(CachePools::Create(model_.config, *backend_, cache));
  if (options.warm_up) {
    EXPECT_TRUE(WarmUpDecode(*backend_, *model, *pools, options_.max_step_tokens).ok());
  }
  JobContext context = {.config = model_.config,
                        .defaults = model_.defaults,
                        .options = options_,
                        .tokenizer = model_.tokenizer.get(),
                        .clock = clock_,
                        .stats = options.stats != nullptr ? *options.stats : stats_,
                        .model_fingerprint = model_.fingerprint};
  auto tiers =
      ValueOrDie(SessionTiers::Create(*pools, *backend_,
                                      {.host_cache_bytes = options_.host_cache_bytes,
                                       .tenant_host_cache_bytes = options_.tenant_host_cache_bytes,
                                       .use_files = options.open_store != nullptr},
                                      clock_, context.stats, [this] { moved_.Notify(); }));
  std::optional<SessionStore::Opened> stored;
  if (options.open_store) stored = options.open_store();
  loop_ = std::make_unique<EngineLoop>(std::move(pools), std::move(model), std::move(tiers),
                                       context, std::move(stored), [this] { Wake(); });
}

RequestHeader LoopHarness::Header(const std::string& id, const std::string& request_id) {
  return {.session = {"test", id}, .request_id = request_id};
}

void LoopHarness::Create(const std::string& id, const LearningControls& controls) {
  ValueOrDie(loop_->CreateSession({"test", id}, {.controls = controls}));
}

void LoopHarness::SetControls(const std::string& id, const LearningControls& controls) {
  ValueOrDie(loop_->UpdateSession({"test", id}, {.controls = ControlsUpdate::All(controls)}));
}

SessionInfo LoopHarness::Info(const std::string& id) {
  return ValueOrDie(loop_->GetSession({"test", id}));
}

std::unique_ptr<Call> LoopHarness::StartAppendStream(const std::string& id, AppendRequest request) {
  auto call = std::make_unique<Call>();
  call->channel = std::make_shared<RequestChannel>(nullptr);
  request.header.session = {"test", id};
  loop_->Append(std::move(request), call->channel);
  return call;
}

std::unique_ptr<Call> LoopHarness::StartAppend(const std::string& id, std::vector<int32_t> tokens,
                                               bool logprobs, const std::string& request_id) {
  auto call =
      StartAppendStream(id, {.header = Header(id, request_id), .return_logprobs = logprobs});
  call->channel->PushInput({.ids = std::move(tokens)});
  call->channel->CloseInput();
  return call;
}

std::unique_ptr<Call> LoopHarness::StartGenerate(const std::string& id, GenerateRequest request) {
  auto call = std::make_unique<Call>();
  call->channel = std::make_shared<RequestChannel>(nullptr);
  request.header.session = {"test", id};
  loop_->Generate(std::move(request), call->channel);
  return call;
}

bool LoopHarness::Step() {
  bool progress = loop_->RunOnce();
  while (!progress && loop_->moves_in_flight() > 0) {
    moved_.Take(absl::InfiniteDuration());
    progress = loop_->RunOnce();
  }
  const EngineLoad load = loop_->load();
  EXPECT_GE(load.device_bytes_reserved, load.device_bytes_used);
  EXPECT_LE(load.device_bytes_reserved, load.device_bytes_limit);
  if (loop_->requests_in_flight() == 0) {
    EXPECT_EQ(load.device_bytes_reserved, load.device_bytes_used);
  }
  return progress;
}

void LoopHarness::StepUntilTokens(Call* call, size_t count) {
  while (call->tokens.size() < count && (Step() || WaitForDisk())) call->Read();
}

bool LoopHarness::WaitForDisk() {
  if (!loop_->log().busy()) return false;
  std::unique_lock lock(mutex_);
  woken_.wait(lock, [this] { return wake_; });
  wake_ = false;
  return true;
}

void LoopHarness::Wake() {
  const std::lock_guard lock(mutex_);
  wake_ = true;
  woken_.notify_all();
}

void LoopHarness::RunAll(const std::vector<Call*>& calls) {
  do {
    for (Call* call : calls) call->Read();
  } while (Step() || WaitForDisk());
  for (Call* call : calls) call->Read();
}

std::unique_ptr<Call> LoopHarness::Append(const std::string& id, std::vector<int32_t> tokens,
                                          bool logprobs, const std::string& request_id) {
  auto call = StartAppend(id, std::move(tokens), logprobs, request_id);
  RunAll({call.get()});
  return call;
}

std::unique_ptr<Call> LoopHarness::Generate(const std::string& id, GenerateRequest request) {
  auto call = StartGenerate(id, std::move(request));
  RunAll({call.get()});
  return call;
}

std::vector<float> LoopHarness::Delta(const std::string& id, int64_t ttt_layer) {
  const SessionCache& cache = ValueOrDie(loop_->FindSession({"test", id}))->cache();
  if (!cache.deltas_written()) return {};
  const int64_t d = model_.config.hidden_size, f = model_.config.intermediate_size;
  std::vector<float> values(static_cast<size_t>(d * f));
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  const DeviceBuffer buffer = ValueOrDie(backend_->Allocate(bytes));
  const std::unique_ptr<Stream> stream = ValueOrDie(backend_->CreateStream());
  stream->ReadDelta(cache.deltas()[static_cast<size_t>(ttt_layer)],
                    {buffer.data(), DType::kF32, d, f, f});
  stream->CopyToHost(values.data(), buffer.data(), bytes);
  MNEME_CHECK(stream->Synchronize().ok());
  return values;
}

Golden::Golden(const std::string& name)
    : dir_(ModelDir(name)),
      expected_(ValueOrDie(SafetensorsFile::Open(dir_ / "expected.safetensors"))),
      tokens_(Ints("tokens")),
      greedy_(Ints("greedy")) {}

std::vector<int32_t> Golden::Ints(const std::string& name) const {
  return CopyTensor<int32_t>(expected_, name);
}

std::vector<float> Golden::Floats(const std::string& name) const {
  return CopyTensor<float>(expected_, name);
}

std::vector<float> Golden::LogProbs(const std::string& logits) const {
  const std::vector<float> rows = Floats(logits);
  const size_t vocab = rows.size() / tokens_.size();
  std::vector<float> logprobs = {std::numeric_limits<float>::quiet_NaN()};
  for (size_t p = 1; p < tokens_.size(); ++p) {
    const float* row = rows.data() + (p - 1) * vocab;
    const double highest = *std::max_element(row, row + vocab);
    double sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - highest);
    const double target = row[static_cast<size_t>(tokens_[p])];
    logprobs.push_back(static_cast<float>(target - highest - std::log(sum)));
  }
  return logprobs;
}

std::filesystem::path ModelDir(const std::string& name) {
  return name == kDemoModel ? "models/mneme-demo" : "tests/golden/" + name;
}

const std::vector<std::string>& GoldenNames() {
  static const std::vector<std::string> names = {"llama-input-target", "qwen3-bf16-sharded",
                                                 "qwen3-hidden-target", "qwen3-window-yarn"};
  return names;
}

testing::AssertionResult EndedWith(const Call& call, absl::StatusCode code, ErrorReason reason) {
  if (call.ends != 1) return testing::AssertionFailure() << call.ends << " ends instead of one";
  if (call.end->code() != code) return testing::AssertionFailure() << "ended with " << *call.end;
  const ErrorReason actual = GetErrorInfo(*call.end).reason;
  if (actual == reason) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "reason " << static_cast<int>(actual) << " instead of "
                                     << static_cast<int>(reason) << ": " << *call.end;
}

testing::AssertionResult EndedOk(const Call& call) {
  return EndedWith(call, absl::StatusCode::kOk);
}

void ExpectSameTokens(const Call& actual, const Call& expected, double tolerance) {
  ASSERT_TRUE(EndedOk(actual));
  ASSERT_TRUE(EndedOk(expected));
  ASSERT_EQ(actual.tokens.size(), expected.tokens.size());
  for (size_t i = 0; i < expected.tokens.size(); ++i) {
    const GeneratedToken& token = expected.tokens[i];
    const float gap = token.top_logprobs[0].logprob - token.top_logprobs[1].logprob;
    if (actual.tokens[i].id != token.id && gap < tolerance) return;
    ASSERT_EQ(actual.tokens[i].id, token.id) << "token " << i << ", gap " << gap;
    ASSERT_NEAR(*actual.tokens[i].logprob, *token.logprob, tolerance) << "token " << i;
  }
}

std::vector<int32_t> RandomTokens(size_t count, uint32_t seed, int32_t vocab_size) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % static_cast<uint32_t>(vocab_size));
  }
  return tokens;
}

GenerateRequest GreedyRequest(int64_t max_tokens, std::vector<int32_t> input) {
  GenerateRequest request;
  request.input.ids = std::move(input);
  request.sampling.temperature = 0;
  request.max_tokens = max_tokens;
  request.ignore_eos = true;
  return request;
}

double MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= largest)) largest = std::isnan(difference) ? HUGE_VAL : difference;
  }
  return largest;
}

double RootMeanSquareDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double squares = 0;
  int count = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    squares += std::pow(static_cast<double>(a[i]) - b[i], 2);
    ++count;
  }
  return std::sqrt(squares / count);
}

double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

}  // namespace mneme
