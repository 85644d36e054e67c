#include "engine/model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

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

Model::Rows::Rows(absl::Span<const SequenceStep> steps) {
  for (const SequenceStep& step : steps) {
    if (step.tokens.empty()) continue;
    sequences.push_back({.first_row = count(),
                         .row_count = step.row_count(),
                         .first_position = step.first_position,
                         .page_tables = step.cache->page_tables()});
    token_ids.insert(token_ids.end(), step.tokens.begin(), step.tokens.end());
  }
}

Model::Model(const ModelConfig& config, const ModelWeights& weights, const CachePools& pools)
    : config_(config),
      weights_(weights),
      pools_(pools),
      rope_(MakeRopeTables(config.rope, config.head_dim, config.max_position_embeddings)),
      qkv_shape_{config.num_heads, config.num_kv_heads, config.head_dim},
      ttt_index_(static_cast<size_t>(config.num_layers), -1) {
  if (!config.ttt) return;
  int index = 0;
  for (int layer : config.ttt->layers) ttt_index_[static_cast<size_t>(layer)] = index++;
}

absl::StatusOr<std::unique_ptr<Model>> Model::Create(const ModelConfig& config,
                                                     const ModelWeights& weights,
                                                     const CachePools& pools, Backend& backend,
                                                     int64_t max_step_tokens) {
  std::unique_ptr<Model> model(new Model(config, weights, pools));
  MNEME_ASSIGN_OR_RETURN(model->stream_, backend.CreateStream());
  MNEME_RETURN_IF_ERROR(model->AllocateScratch(backend, max_step_tokens));
  return model;
}

absl::Status Model::AllocateScratch(Backend& backend, int64_t max_step_tokens) {
  const DType activation = backend.activation_dtype();
  const int64_t n = max_step_tokens, d = config_.hidden_size, f = config_.intermediate_size;
  const int64_t q_cols = config_.num_heads * config_.head_dim;
  const int64_t qkv_cols = q_cols + 2 * config_.num_kv_heads * config_.head_dim;
  const bool needs_embed = config_.ttt && config_.ttt->target == TttTarget::kInputEmbed;
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
    return carver.used_bytes();
  };
  MNEME_ASSIGN_OR_RETURN(s_.memory, backend.Allocate(carve(nullptr)));
  carve(s_.memory.data());
  return absl::OkStatus();
}

absl::StatusOr<ModelStepStats> Model::Run(absl::Span<SequenceStep> sequences) {
  kept_.clear();
  const Rows rows(sequences);
  std::optional<FastWeightStep> fast_weights;
  if (config_.ttt) fast_weights.emplace(config_, sequences);
  if (rows.count() > 0) {
    stream_->BeginStep(rows.batch());
    RunLayers(rows, fast_weights ? &*fast_weights : nullptr);
  }
  RunEnds(sequences);
  int64_t first_row = 0;
  for (SequenceStep& sequence : sequences) {
    RunLogProbs(sequence, first_row);
    first_row += sequence.row_count();
  }
  MNEME_RETURN_IF_ERROR(stream_->Synchronize());
  ModelStepStats stats = {.rows = rows.count()};
  if (fast_weights) {
    stats.chunks_closed = fast_weights->chunks_closed();
    stats.updates = fast_weights->counts();
    stats.update_time = fast_weights->update_time();
  }
  return stats;
}

void Model::RunLayers(const Rows& rows, FastWeightStep* fast_weights) {
  const int64_t n = rows.count();
  stream_->Embed(weights_.embedding, s_.x.Rows(0, n));
  if (s_.embed.rows > 0) stream_->CopyRows(s_.x.Rows(0, n), s_.embed.Rows(0, n));
  stream_->ComputeRope({rope_.inverse_frequencies, rope_.attention_factor}, s_.rope.Rows(0, n));
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    RunAttention(layer, n);
    RunMlp(layer, n, fast_weights);
  }
}

void Model::RunAttention(int layer, int64_t n) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const Matrix x = s_.x.Rows(0, n), h = s_.h.Rows(0, n);
  const Matrix qkv = s_.qkv.Rows(0, n), attn = s_.attn.Rows(0, n);
  const KvLayer kv = pools_.LayerKv(layer);
  const QkNorm norm = {w.q_norm.data(), w.k_norm.data(), config_.rms_norm_eps};
  stream_->RmsNorm(x, w.input_norm.data(), config_.rms_norm_eps, h);
  stream_->Linear(h, *w.qkv, w.qkv_bias.data(), /*accumulate=*/false, qkv);
  stream_->RotateAndStore(qkv, qkv_shape_, norm, s_.rope.Rows(0, n), kv);
  stream_->Attention(qkv, qkv_shape_, kv, config_.windows[static_cast<size_t>(layer)],
                     AttentionScale(config_), attn);
  stream_->Linear(attn, *w.o, w.o_bias.data(), /*accumulate=*/true, x);
}

void Model::RunMlp(int layer, int64_t n, FastWeightStep* fast_weights) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const Matrix x = s_.x.Rows(0, n), h = s_.h.Rows(0, n);
  const Matrix gate_up = s_.gate_up.Rows(0, n), z = s_.z.Rows(0, n);
  stream_->RmsNorm(x, w.post_norm.data(), config_.rms_norm_eps, h);
  stream_->Linear(h, *w.gate_up, /*bias=*/nullptr, /*accumulate=*/false, gate_up);
  stream_->SwiGlu(gate_up, z);
  const int ttt = ttt_index_[static_cast<size_t>(layer)];
  if (ttt < 0) {
    stream_->Linear(z, *w.down, /*bias=*/nullptr, /*accumulate=*/true, x);
    return;
  }
  const Matrix target = s_.embed.rows > 0 ? s_.embed.Rows(0, n) : h;
  fast_weights->RunLayer(*stream_, w, ttt, target, z, x);
}

void Model::RunEnds(absl::Span<SequenceStep> sequences) {
  // Rows of the step that nobody samples from come first, so that the logits are of one range.
  std::vector<SequenceStep*> with_tokens, wanting, from_hidden;
  std::vector<int32_t> rows, wanted_rows;
  int64_t row = 0;
  for (SequenceStep& sequence : sequences) {
    row += sequence.row_count();
    if (sequence.tokens.empty()) {
      if (sequence.want_logits) from_hidden.push_back(&sequence);
      continue;
    }
    (sequence.want_logits ? wanting : with_tokens).push_back(&sequence);
    (sequence.want_logits ? wanted_rows : rows).push_back(static_cast<int32_t>(row - 1));
  }
  const auto first_wanted = static_cast<int64_t>(rows.size());
  rows.insert(rows.end(), wanted_rows.begin(), wanted_rows.end());
  with_tokens.insert(with_tokens.end(), wanting.begin(), wanting.end());
  const Matrix ends = s_.ends.Rows(0, static_cast<int64_t>(rows.size()));
  if (!rows.empty()) {
    stream_->GatherRows(s_.x, Keep(std::move(rows)), ends);
    stream_->RmsNorm(ends, weights_.final_norm.data(), config_.rms_norm_eps, ends);
  }
  const int64_t row_bytes = config_.hidden_size * static_cast<int64_t>(sizeof(float));
  for (size_t i = 0; i < with_tokens.size(); ++i) {
    with_tokens[i]->hidden.resize(static_cast<size_t>(config_.hidden_size));
    stream_->CopyToHost(with_tokens[i]->hidden.data(), ends.Rows(static_cast<int64_t>(i), 1).data,
                        row_bytes);
  }
  for (size_t i = 0; i < from_hidden.size(); ++i) {
    stream_->CopyFromHost(s_.ends.Rows(ends.rows + static_cast<int64_t>(i), 1).data,
                          from_hidden[i]->last_hidden.data(), row_bytes);
  }
  wanting.insert(wanting.end(), from_hidden.begin(), from_hidden.end());
  RunLogits(wanting, first_wanted);
}

void Model::RunLogits(absl::Span<SequenceStep* const> wanting, int64_t first_end) {
  for (size_t begin = 0; begin < wanting.size(); begin += kLogitRows) {
    const auto slice = wanting.subspan(begin, kLogitRows);
    const auto rows = static_cast<int64_t>(slice.size());
    const Matrix logits = s_.logits.Rows(0, rows);
    stream_->Linear(s_.ends.Rows(first_end + static_cast<int64_t>(begin), rows), *weights_.lm_head,
                    /*bias=*/nullptr, /*accumulate=*/false, logits);
    for (int64_t i = 0; i < rows; ++i) {
      std::vector<float>& out = slice[static_cast<size_t>(i)]->logits;
      out.resize(static_cast<size_t>(config_.vocab_size));
      stream_->CopyToHost(out.data(), logits.Rows(i, 1).data,
                          config_.vocab_size * static_cast<int64_t>(sizeof(float)));
    }
  }
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
  stream_->RmsNorm(ends, weights_.final_norm.data(), config_.rms_norm_eps, ends);
  if (first_is_past) {
    stream_->CopyFromHost(ends.data, sequence.last_hidden.data(),
                          config_.hidden_size * static_cast<int64_t>(sizeof(float)));
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
