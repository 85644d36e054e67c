#include "kernels/cuda/step_packer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/sampling.h"

namespace mneme::cuda {
namespace {

// An array that this file placed, to be filled.
template <typename T>
T* Fill(const T* placed) {
  return const_cast<T*>(placed);
}

int32_t Narrow(int64_t value) { return static_cast<int32_t>(value); }

bool HasDelta(const ChunkSegment& segment) {
  return std::any_of(segment.deltas.begin(), segment.deltas.end(),
                     [](const void* delta) { return delta != nullptr; });
}

int64_t SequenceRowCount(const RowBatch& batch) {
  int64_t rows = 0;
  for (const SequenceRows& sequence : batch.sequences) rows += sequence.row_count;
  return rows;
}

absl::Span<const TokenCount> Counts(const SampleRow& sample) {
  return sample.params->penalizes() ? sample.counts : absl::Span<const TokenCount>();
}

}  // namespace

StepPacker::StepPacker(const RowBatch& batch, int64_t page_tokens, int64_t num_ttt_layers,
                       bool repeatable)
    : batch_(batch),
      page_tokens_(page_tokens),
      num_ttt_layers_(num_ttt_layers),
      repeatable_(repeatable),
      rows_(static_cast<int64_t>(batch.token_ids.size())),
      padded_rows_(batch.padded_rows),
      sequence_rows_(SequenceRowCount(batch)),
      num_sequences_(static_cast<int64_t>(batch.sequences.size()) + padded_rows_ - sequence_rows_) {
  MNEME_CHECK(padded_rows_ >= rows_ && rows_ >= sequence_rows_);
  MNEME_CHECK(!repeatable || batch.waves.size() <= 1);
  Place(nullptr, nullptr);
}

StepViews StepPacker::Pack(char* host, char* device) {
  Place(host, device);
  FillRows();
  for (size_t i = 0; i < host_.groups.size(); ++i) FillGroup(host_.groups[i], i);
  for (size_t i = 0; i < host_.waves.size(); ++i) FillWave(host_.waves[i], i);
  FillSamples();
  std::copy(device_.groups.begin(), device_.groups.end(), Fill(placed_groups_));
  std::copy(device_.waves.begin(), device_.waves.end(), Fill(placed_waves_));
  std::memcpy(host, &device_.step, sizeof(StepView));
  return std::move(host_);
}

template <typename T>
void StepPacker::PlaceArray(int64_t count, const T** host, const T** device) {
  const int64_t begin = (bytes_ + 15) / 16 * 16;
  *host = reinterpret_cast<const T*>(host_base_ + static_cast<uintptr_t>(begin));
  *device = reinterpret_cast<const T*>(device_base_ + static_cast<uintptr_t>(begin));
  bytes_ = begin + count * static_cast<int64_t>(sizeof(T));
}

void StepPacker::Place(char* host, char* device) {
  host_base_ = reinterpret_cast<uintptr_t>(host);
  device_base_ = reinterpret_cast<uintptr_t>(device);
  bytes_ = sizeof(StepView);
  host_ = {};
  device_ = {};

  StepView& h = host_.step;
  StepView& d = device_.step;
  h.rows = d.rows = Narrow(rows_);
  h.padded_rows = d.padded_rows = Narrow(padded_rows_);
  h.num_sequences = d.num_sequences = Narrow(num_sequences_);
  PlaceArray(padded_rows_, &h.token_ids, &d.token_ids);
  PlaceArray(padded_rows_, &h.positions, &d.positions);
  PlaceArray(padded_rows_, &h.row_sequence, &d.row_sequence);
  PlaceArray(num_sequences_ + 1, &h.first_row, &d.first_row);

  const size_t num_groups = batch_.sequences.empty() ? 0 : batch_.sequences[0].page_tables.size();
  host_.groups.resize(num_groups);
  device_.groups.resize(num_groups);
  for (size_t i = 0; i < num_groups; ++i) {
    KvGroupView& hg = host_.groups[i];
    KvGroupView& dg = device_.groups[i];
    int64_t pages = 0;
    for (const SequenceRows& sequence : batch_.sequences) pages += UsedPages(sequence, i);
    PlaceArray(padded_rows_, &hg.slots, &dg.slots);
    PlaceArray(num_sequences_ + 1, &hg.page_indptr, &dg.page_indptr);
    PlaceArray(pages, &hg.pages, &dg.pages);
    PlaceArray(num_sequences_, &hg.last_page_len, &dg.last_page_len);
    PlaceArray(num_sequences_, &hg.first_position, &dg.first_position);
  }

  host_.waves.resize(batch_.waves.size());
  device_.waves.resize(batch_.waves.size());
  for (size_t i = 0; i < batch_.waves.size(); ++i) {
    WaveView& hw = host_.waves[i];
    WaveView& dw = device_.waves[i];
    int64_t groups = 0;
    ForDeltaGroups(i, [&](const ChunkSegment*, int64_t, int64_t) { ++groups; });
    const int64_t layers = NumLayers(batch_.waves[i]);
    hw.num_groups = dw.num_groups = Narrow(groups);
    hw.num_layers = dw.num_layers = Narrow(layers);
    PlaceArray(groups, &hw.groups, &dw.groups);
    PlaceArray(layers * groups, &hw.deltas, &dw.deltas);
    PlaceArray(padded_rows_, &hw.kept, &dw.kept);
    PlaceArray(padded_rows_, &hw.kept_offset, &dw.kept_offset);
  }
  PlaceSamples();
  PlaceArray(static_cast<int64_t>(num_groups), &placed_groups_, &d.groups);
  PlaceArray(static_cast<int64_t>(batch_.waves.size()), &placed_waves_, &d.waves);
  h.groups = host_.groups.data();
  h.waves = host_.waves.data();
}

void StepPacker::PlaceSamples() {
  SampleView& h = host_.step.samples;
  SampleView& d = device_.step.samples;
  const auto n = static_cast<int64_t>(batch_.samples.size());
  int64_t counts = 0, biases = 0, forbidden = 0;
  for (const SampleRow& sample : batch_.samples) {
    counts += static_cast<int64_t>(Counts(sample).size());
    biases += static_cast<int64_t>(sample.params->logit_bias.size());
    forbidden += static_cast<int64_t>(sample.forbidden.size());
  }
  h.num_samples = d.num_samples = Narrow(n);
  PlaceArray(n, &h.temperature, &d.temperature);
  PlaceArray(n, &h.top_p, &d.top_p);
  PlaceArray(n, &h.min_p, &d.min_p);
  PlaceArray(n, &h.repetition_penalty, &d.repetition_penalty);
  PlaceArray(n, &h.presence_penalty, &d.presence_penalty);
  PlaceArray(n, &h.frequency_penalty, &d.frequency_penalty);
  PlaceArray(n, &h.top_k, &d.top_k);
  PlaceArray(n, &h.top_logprobs, &d.top_logprobs);
  PlaceArray(n, &h.uniform, &d.uniform);
  PlaceArray(n + 1, &h.count_indptr, &d.count_indptr);
  PlaceArray(counts, &h.count_ids, &d.count_ids);
  PlaceArray(counts, &h.counts, &d.counts);
  PlaceArray(n + 1, &h.bias_indptr, &d.bias_indptr);
  PlaceArray(biases, &h.bias_ids, &d.bias_ids);
  PlaceArray(biases, &h.biases, &d.biases);
  PlaceArray(n + 1, &h.forbidden_indptr, &d.forbidden_indptr);
  PlaceArray(forbidden, &h.forbidden_ids, &d.forbidden_ids);
}

void StepPacker::FillRows() {
  const StepView& step = host_.step;
  std::copy(batch_.token_ids.begin(), batch_.token_ids.end(), Fill(step.token_ids));
  std::fill(Fill(step.token_ids) + rows_, Fill(step.token_ids) + padded_rows_, 0);
  int64_t row = 0;
  for (size_t s = 0; s < batch_.sequences.size(); ++s) {
    const SequenceRows& sequence = batch_.sequences[s];
    MNEME_CHECK(sequence.first_row == row);
    Fill(step.first_row)[s] = Narrow(row);
    for (int64_t i = 0; i < sequence.row_count; ++i, ++row) {
      Fill(step.positions)[row] = Narrow(sequence.first_position + i);
      Fill(step.row_sequence)[row] = Narrow(static_cast<int64_t>(s));
    }
  }
  const auto real = static_cast<int64_t>(batch_.sequences.size());
  for (int64_t s = real; s <= num_sequences_; ++s) Fill(step.first_row)[s] = Narrow(row);
  for (; row < padded_rows_; ++row) {
    Fill(step.positions)[row] = 0;
    Fill(step.row_sequence)[row] = Narrow(real + row - sequence_rows_);
  }
}

int64_t StepPacker::UsedPages(const SequenceRows& sequence, size_t group) const {
  if (page_tokens_ == 0) return 0;
  const PageTable& table = sequence.page_tables[group];
  const int64_t end = sequence.first_position + sequence.row_count - table.first_position;
  const int64_t pages = (end + page_tokens_ - 1) / page_tokens_;
  return std::clamp<int64_t>(pages, 0, static_cast<int64_t>(table.pages.size()));
}

void StepPacker::FillGroup(const KvGroupView& group, size_t index) {
  std::fill(Fill(group.slots), Fill(group.slots) + padded_rows_, -1);
  int64_t page = 0;
  for (size_t s = 0; s < batch_.sequences.size(); ++s) {
    const SequenceRows& sequence = batch_.sequences[s];
    const PageTable& table = sequence.page_tables[index];
    const int64_t used = UsedPages(sequence, index);
    const int64_t first = sequence.first_position - table.first_position;
    Fill(group.page_indptr)[s] = Narrow(page);
    Fill(group.first_position)[s] = Narrow(table.first_position);
    Fill(group.last_page_len)[s] = 0;
    if (used == 0) continue;
    const int64_t slots_used = std::min(first + sequence.row_count, used * page_tokens_);
    Fill(group.last_page_len)[s] = Narrow(slots_used - (used - 1) * page_tokens_);
    std::copy_n(table.pages.begin(), used, Fill(group.pages) + page);
    page += used;
    for (int64_t i = 0; i < sequence.row_count && first + i < slots_used; ++i) {
      const int64_t place = first + i;
      const int64_t number = table.pages[static_cast<size_t>(place / page_tokens_)];
      Fill(group.slots)[sequence.first_row + i] =
          Narrow(number * page_tokens_ + place % page_tokens_);
    }
  }
  const auto real = static_cast<int64_t>(batch_.sequences.size());
  for (int64_t s = real; s <= num_sequences_; ++s) Fill(group.page_indptr)[s] = Narrow(page);
  for (int64_t s = real; s < num_sequences_; ++s) {
    Fill(group.last_page_len)[s] = 0;
    Fill(group.first_position)[s] = 0;
  }
}

int64_t StepPacker::NumLayers(absl::Span<const ChunkSegment> wave) const {
  int64_t layers = num_ttt_layers_;
  for (const ChunkSegment& segment : wave) {
    layers = std::max(layers, static_cast<int64_t>(segment.deltas.size()));
  }
  return layers;
}

template <typename Visit>
void StepPacker::ForDeltaGroups(size_t wave, const Visit& visit) const {
  if (repeatable_) {
    // Segments are rows here, in any order: group k is row k.
    for (const ChunkSegment& segment : batch_.waves[wave]) visit(&segment, segment.first_row, 1);
    for (int64_t row = rows_; row < padded_rows_; ++row) visit(nullptr, row, 0);
    return;
  }
  for (const ChunkSegment& segment : batch_.waves[wave]) {
    if (segment.row_count > kMergeRows || !HasDelta(segment)) continue;
    for (int64_t i = 0; i < segment.row_count; i += kDeltaGroupRows) {
      visit(&segment, segment.first_row + i,
            std::min<int64_t>(kDeltaGroupRows, segment.row_count - i));
    }
  }
}

void StepPacker::FillSegmentGroups(const WaveView& wave, size_t index) {
  int64_t next = 0;
  ForDeltaGroups(index, [&](const ChunkSegment* segment, int64_t first_row, int64_t row_count) {
    const int64_t k = next++;
    Fill(wave.groups)[k] = {Narrow(first_row), Narrow(row_count)};
    for (int64_t layer = 0; layer < wave.num_layers; ++layer) {
      const auto i = static_cast<size_t>(layer);
      const bool has = segment != nullptr && i < segment->deltas.size();
      Fill(wave.deltas)[layer * wave.num_groups + k] = has ? segment->deltas[i] : nullptr;
    }
  });
}

void StepPacker::FillWave(const WaveView& wave, size_t index) {
  FillSegmentGroups(wave, index);
  std::fill(Fill(wave.kept), Fill(wave.kept) + padded_rows_, nullptr);
  std::fill(Fill(wave.kept_offset), Fill(wave.kept_offset) + padded_rows_, 0);
  for (const ChunkSegment& segment : batch_.waves[index]) {
    for (int64_t i = 0; i < segment.row_count; ++i) {
      Fill(wave.kept)[segment.first_row + i] = segment.kept;
      Fill(wave.kept_offset)[segment.first_row + i] = Narrow(segment.chunk_offset + i);
    }
  }
}

void StepPacker::FillSamples() {
  const SampleView& view = host_.step.samples;
  int32_t counts = 0, biases = 0, forbidden = 0;
  for (size_t i = 0; i < batch_.samples.size(); ++i) {
    const SampleRow& sample = batch_.samples[i];
    const SamplingParams& params = *sample.params;
    Fill(view.temperature)[i] = params.temperature;
    Fill(view.top_p)[i] = params.top_p;
    Fill(view.min_p)[i] = params.min_p;
    Fill(view.repetition_penalty)[i] = params.repetition_penalty;
    Fill(view.presence_penalty)[i] = params.presence_penalty;
    Fill(view.frequency_penalty)[i] = params.frequency_penalty;
    Fill(view.top_k)[i] = params.top_k;
    Fill(view.top_logprobs)[i] = sample.top_logprobs.value_or(-1);
    Fill(view.uniform)[i] = UniformAt(params.seed, sample.position);
    Fill(view.count_indptr)[i] = counts;
    Fill(view.bias_indptr)[i] = biases;
    Fill(view.forbidden_indptr)[i] = forbidden;
    for (const TokenCount& count : Counts(sample)) {
      Fill(view.count_ids)[counts] = count.id;
      Fill(view.counts)[counts++] = count.count;
    }
    for (const auto& [id, bias] : params.logit_bias) {
      Fill(view.bias_ids)[biases] = id;
      Fill(view.biases)[biases++] = bias;
    }
    for (const int32_t id : sample.forbidden) Fill(view.forbidden_ids)[forbidden++] = id;
  }
  Fill(view.count_indptr)[batch_.samples.size()] = counts;
  Fill(view.bias_indptr)[batch_.samples.size()] = biases;
  Fill(view.forbidden_indptr)[batch_.samples.size()] = forbidden;
}

}  // namespace mneme::cuda
