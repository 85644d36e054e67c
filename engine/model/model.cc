#include "engine/model/model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace mneme {
namespace {

// Cuts a buffer into matrices, each aligned for vector loads.
class Carver {
 public:
  // With a null base it only counts.
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}

  Matrix Take(int64_t rows, int64_t cols, DType dtype) {
    constexpr int64_t kAlignment = 256;
    char* data = base_ == nullptr ? nullptr : base_ + used_bytes_;
    const int64_t bytes = rows * cols * SizeOf(dtype);
    used_bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return {data, dtype, rows, cols, cols};
  }
  int64_t used_bytes() const { return used_bytes_; }

 private:
  char* base_;
  int64_t used_bytes_ = 0;
};

float AttentionScale(const ModelConfig& config) {
  return 1.0F / std::sqrt(static_cast<float>(config.head_dim));
}

}  // namespace

Model::Rows::Rows(absl::Span<SequenceStep> steps) {
  std::vector<SequenceStep*> drawing_ends;
  std::vector<int32_t> drawing_rows;
  for (SequenceStep& step : steps) {
    wants_logprobs = wants_logprobs || step.logprobs_from.has_value();
    if (step.tokens.empty()) {
      if (step.sample) from_hidden.push_back(&step);
      continue;
    }
    sequences.push_back({.first_row = count(),
                         .row_count = step.row_count(),
                         .first_position = step.first_position,
                         .page_tables = step.cache->page_tables()});
    token_ids.insert(token_ids.end(), step.tokens.begin(), step.tokens.end());
    (step.sample ? drawing_ends : ends).push_back(&step);
    (step.sample ? drawing_rows : end_rows).push_back(static_cast<int32_t>(count() - 1));
  }
  ends.insert(ends.end(), drawing_ends.begin(), drawing_ends.end());
  end_rows.insert(end_rows.end(), drawing_rows.begin(), drawing_rows.end());
  drawing = std::move(drawing_ends);
  drawing.insert(drawing.end(), from_hidden.begin(), from_hidden.end());
  for (const SequenceStep* step : drawing) samples.push_back(*step->sample);
}

bool Model::Rows::all_decode() const {
  return count() > 0 && sequences.size() == token_ids.size() &&
         drawing.size() == sequences.size() && from_hidden.empty();
}

Model::Model(const ModelConfig& config, const ModelWeights& weights, Backend& backend)
    : config_(config),
      weights_(weights),
      backend_(backend),
      rope_(MakeRopeTables(config.rope, config.head_dim, config.max_position_embeddings)),
      qkv_shape_{config.num_heads, config.num_kv_heads, config.head_dim},
      ttt_index_(static_cast<size_t>(config.num_layers), -1) {
  if (!config.ttt) return;
  int index = 0;
  for (int layer : config.ttt->layers) ttt_index_[static_cast<size_t>(layer)] = index++;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Create(const ModelConfig& config,
                                                     const ModelWeights& weights, Backend& backend,
                                                     int64_t max_step_tokens) {
  std::unique_ptr<Model> model(new Model(config, weights, backend));
  MNEME_ASSIGN_OR_RETURN(model->stream_, backend.CreateStream());
  MNEME_RETURN_IF_ERROR(model->AllocateScratch(max_step_tokens));
  return model;
}

absl::Status Model::AllocateScratch(int64_t max_step_tokens) {
  const DType activation = backend_.activation_dtype();
  const int64_t n = max_step_tokens, d = config_.hidden_size, f = config_.intermediate_size;
  const int64_t q_cols = config_.num_heads * config_.head_dim;
  const int64_t qkv_cols = q_cols + 2 * config_.num_kv_heads * config_.head_dim;
  const bool needs_embed = config_.ttt && config_.ttt->target == TttTarget::kInputEmbed;
  constexpr int64_t kSampledFloats = sizeof(SampledRow) / sizeof(float);
  const auto carve = [&](void* base) {
    Carver carver(base);
    s_.x = carver.Take(n, d, activation);
    s_.embed = carver.Take(needs_embed ? n : 0, d, activation);
    s_.h = carver.Take(n, d, activation);
    s_.qkv = carver.Take(n, qkv_cols, activation);
    s_.attn = carver.Take(n, q_cols, activation);
    s_.gate_up = carver.Take(n, 2 * f, activation);
    s_.z = carver.Take(n, f, activation);
    s_.rope = carver.Take(n, config_.head_dim, DType::kF32);
    s_.ends = carver.Take(std::max(n, kLogitRows), d, activation);
    s_.logits = carver.Take(kLogitRows, config_.vocab_size, DType::kF32);
    s_.probs = carver.Take(1, kLogitRows, DType::kF32);
    s_.sampled = carver.Take(kLogitRows, kSampledFloats, DType::kF32);
    return carver.used_bytes();
  };
  MNEME_ASSIGN_OR_RETURN(s_.memory, backend_.Allocate(carve(nullptr)));
  carve(s_.memory.data());
  hidden_.resize(static_cast<size_t>(n * hidden_bytes()));
  sampled_.resize(static_cast<size_t>(kLogitRows));
  return absl::OkStatus();
}

absl::StatusOr<ModelStepStats> Model::Run(const CachePools& pools,
                                          absl::Span<SequenceStep> sequences) {
  kept_.clear();
  Rows rows(sequences);
  MNEME_CHECK(rows.count() <= s_.x.rows && static_cast<int64_t>(rows.samples.size()) <= kLogitRows);
  std::optional<FastWeightStep> fast_weights;
  if (config_.ttt) fast_weights.emplace(config_, pools, sequences);
  FastWeightStep* const ttt = fast_weights ? &*fast_weights : nullptr;
  const int64_t repeated_rows = RepeatedRows(rows);
  const Pass pass = {pools, std::max(repeated_rows, rows.count()), ttt};
  RowBatch batch = {.token_ids = rows.token_ids, .sequences = rows.sequences};
  batch.padded_rows = pass.n;
  if (ttt != nullptr) batch.waves = ttt->waves();
  batch.samples = rows.samples;
  stream_->BeginStep(batch);
  for (const SequenceStep& step : sequences) CopyBlocks(step.delta_copies);
  if (ttt != nullptr) ApplyWaiting(*ttt);
  for (const SequenceStep& step : sequences) CopyBlocks(step.row_copies);
  if (repeated_rows > 0) {
    RunRepeated(pass);
  } else {
    RunOnce(pass, rows);
  }
  FetchEnds(rows);
  int64_t first_row = 0;
  for (SequenceStep& sequence : sequences) {
    RunLogProbs(sequence, first_row);
    first_row += sequence.row_count();
  }
  MNEME_RETURN_IF_ERROR(stream_->Synchronize());
  TakeEnds(rows);
  ModelStepStats stats = {.rows = rows.count()};
  if (ttt != nullptr) {
    stats.chunks_closed = ttt->chunks_closed();
    stats.updates = ttt->counts();
  }
  return stats;
}

int64_t Model::RepeatedRows(const Rows& rows) const {
  if (!rows.all_decode() || rows.wants_logprobs) return 0;
  const int64_t padded = backend_.RepeatableRows(rows.count());
  return padded <= std::min(s_.x.rows, kLogitRows) ? padded : 0;
}

void Model::CopyBlocks(const std::vector<BlockCopy>& copies) {
  for (const BlockCopy& copy : copies) stream_->CopyOnDevice(copy.to, copy.from, copy.bytes);
}

void Model::ApplyWaiting(FastWeightStep& fast_weights) {
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    const int ttt = ttt_index_[static_cast<size_t>(layer)];
    if (ttt < 0) continue;
    fast_weights.ApplyWaiting(*stream_, weights_.layers[static_cast<size_t>(layer)], ttt);
  }
}

void Model::RunRepeated(const Pass& pass) {
  // The model's shape, its weights and its scratch memory never change: the number of rows alone
  // tells such steps apart.
  stream_->Repeat(static_cast<uint64_t>(pass.n), [&] {
    RunLayers(pass);
    const Matrix logits = s_.logits.Rows(0, pass.n);
    stream_->NormLinear(s_.x.Rows(0, pass.n),
                        {weights_.final_norm.data(), config_.rms_norm_eps, /*wanted=*/true},
                        *weights_.lm_head, /*bias=*/nullptr, s_.ends.Rows(0, pass.n), logits);
    stream_->Sample(logits, s_.sampled.data);
  });
}

void Model::RunOnce(const Pass& pass, Rows& rows) {
  if (pass.n > 0) RunLayers(pass);
  const auto count = static_cast<int64_t>(rows.ends.size());
  if (count > 0) {
    const Matrix ends = s_.ends.Rows(0, count);
    stream_->GatherRows(s_.x, rows.end_rows, ends);
    FinalNorm(ends, ends);
  }
  for (size_t i = 0; i < rows.from_hidden.size(); ++i) {
    stream_->CopyFromHost(s_.ends.Rows(count + static_cast<int64_t>(i), 1).data,
                          rows.from_hidden[i]->last_hidden.data(), hidden_bytes());
  }
  const auto draws = static_cast<int64_t>(rows.drawing.size());
  const auto from_rows = draws - static_cast<int64_t>(rows.from_hidden.size());
  if (draws > 0) Draw(s_.ends.Rows(count - from_rows, draws));
}

void Model::RunLayers(const Pass& pass) {
  const int64_t n = pass.n;
  stream_->Embed(weights_.embedding, s_.x.Rows(0, n));
  if (s_.embed.rows > 0) stream_->CopyRows(s_.x.Rows(0, n), s_.embed.Rows(0, n));
  stream_->ComputeRope({rope_.inverse_frequencies, rope_.attention_factor}, s_.rope.Rows(0, n));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    RunAttention(pass, layer);
    RunMlp(pass, layer);
  }
}

void Model::RunAttention(const Pass& pass, int layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const Matrix x = s_.x.Rows(0, pass.n), h = s_.h.Rows(0, pass.n);
  const Matrix qkv = s_.qkv.Rows(0, pass.n), attn = s_.attn.Rows(0, pass.n);
  const KvLayer kv = pass.pools.LayerKv(layer);
  const QkNorm norm = {w.q_norm.data(), w.k_norm.data(), config_.rms_norm_eps};
  stream_->NormLinear(x, {w.input_norm.data(), config_.rms_norm_eps}, *w.qkv, w.qkv_bias.data(), h,
                      qkv);
  stream_->RotateAndAttend(qkv, qkv_shape_, norm, s_.rope.Rows(0, pass.n), kv,
                           config_.windows[static_cast<size_t>(layer)], AttentionScale(config_),
                           attn);
  stream_->Linear(attn, *w.o, w.o_bias.data(), /*accumulate=*/true, x);
}

void Model::RunMlp(const Pass& pass, int layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const Matrix x = s_.x.Rows(0, pass.n), h = s_.h.Rows(0, pass.n);
  const Matrix gate_up = s_.gate_up.Rows(0, pass.n), z = s_.z.Rows(0, pass.n);
  const int ttt = ttt_index_[static_cast<size_t>(layer)];
  const bool learns_from_h = ttt >= 0 && Target(pass.n).data == h.data;
  stream_->LinearSwiGlu(x, {w.post_norm.data(), config_.rms_norm_eps, learns_from_h}, *w.gate_up, h,
                        gate_up, z);
  if (ttt < 0) {
    stream_->Linear(z, *w.down, /*bias=*/nullptr, /*accumulate=*/true, x);
  } else {
    pass.fast_weights->RunLayer(*stream_, w, ttt, Target(pass.n), z, x);
  }
}

void Model::FinalNorm(Matrix x, Matrix ends) {
  stream_->RmsNorm(x, weights_.final_norm.data(), config_.rms_norm_eps, ends);
}

void Model::Draw(Matrix ends) {
  const Matrix logits = s_.logits.Rows(0, ends.rows);
  stream_->Linear(ends, *weights_.lm_head, /*bias=*/nullptr, /*accumulate=*/false, logits);
  stream_->Sample(logits, s_.sampled.data);
}

void Model::FetchEnds(const Rows& rows) {
  if (!rows.ends.empty()) {
    stream_->CopyToHost(hidden_.data(), s_.ends.data,
                        static_cast<int64_t>(rows.ends.size()) * hidden_bytes());
  }
  if (!rows.drawing.empty()) {
    stream_->CopyToHost(sampled_.data(), s_.sampled.data,
                        static_cast<int64_t>(rows.drawing.size() * sizeof(SampledRow)));
  }
}

void Model::TakeEnds(const Rows& rows) const {
  auto hidden = hidden_.begin();
  for (SequenceStep* step : rows.ends) {
    step->hidden.assign(hidden, hidden + hidden_bytes());
    hidden += hidden_bytes();
  }
  for (size_t i = 0; i < rows.drawing.size(); ++i) rows.drawing[i]->sampled = sampled_[i];
}

void Model::RunLogProbs(SequenceStep& sequence, int64_t first_row) {
  if (!sequence.logprobs_from.has_value()) return;
  int64_t from = *sequence.logprobs_from;
  const int64_t count = std::max<int64_t>(sequence.end_position() - from, 0);
  sequence.logprobs.assign(static_cast<size_t>(count), std::numeric_limits<float>::quiet_NaN());
  if (from == 0) ++from;  // nothing stands before the first token
  for (; from < sequence.end_position(); from += kLogitRows) {
    RunLogProbSlice(sequence, first_row, from,
                    std::min(from + kLogitRows, sequence.end_position()));
  }
}

void Model::RunLogProbSlice(SequenceStep& sequence, int64_t first_row, int64_t from, int64_t to) {
  // Token q is predicted by the row of token q − 1, which for the step's first is of a past step.
  const bool first_is_past = from == sequence.first_position;
  std::vector<int32_t> rows, targets;
  for (int64_t position = from; position < to; ++position) {
    const int64_t index = position - sequence.first_position;
    rows.push_back(static_cast<int32_t>(first_row + std::max<int64_t>(index - 1, 0)));
    targets.push_back(sequence.tokens[static_cast<size_t>(index)]);
  }
  const Matrix ends = s_.ends.Rows(0, to - from);
  stream_->GatherRows(s_.x, Keep(std::move(rows)), ends);
  FinalNorm(ends, ends);
  if (first_is_past) {
    stream_->CopyFromHost(ends.data, sequence.last_hidden.data(), hidden_bytes());
  }
  const Matrix logits = s_.logits.Rows(0, to - from);
  stream_->Linear(ends, *weights_.lm_head, /*bias=*/nullptr, /*accumulate=*/false, logits);
  stream_->TargetLogProbs(logits, Keep(std::move(targets)), s_.probs.data);
  stream_->CopyToHost(sequence.logprobs.data() + (from - *sequence.logprobs_from), s_.probs.data,
                      (to - from) * static_cast<int64_t>(sizeof(float)));
}

const std::vector<int32_t>& Model::Keep(std::vector<int32_t> list) {
  return kept_.emplace_back(std::move(list));
}

}  // namespace mneme
