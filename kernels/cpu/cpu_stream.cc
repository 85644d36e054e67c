#include "kernels/cpu/cpu_stream.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/row_loops.h"

namespace mneme {
namespace {

float* Row(Matrix m, int64_t row) { return static_cast<float*>(m.data) + row * m.stride; }

char* RowBytes(Matrix m, int64_t row) {
  return static_cast<char*>(m.data) + row * m.stride * SizeOf(m.dtype);
}

size_t BytesOfRow(Matrix m) { return static_cast<size_t>(m.cols * SizeOf(m.dtype)); }

const CpuPackedMatrix& Packed(const PackedMatrix& matrix) {
  return static_cast<const CpuPackedMatrix&>(matrix);
}

}  // namespace

CpuStream::CpuStream(const dnnl::engine& engine, int threads)
    : threads_(threads),
      matmul_(engine, threads),
      attention_(threads),
      fast_weights_(&matmul_, threads),
      samplers_(static_cast<size_t>(threads)) {}

void CpuStream::Do(const std::function<void()>& operation) {
  if (!status_.ok()) return;
  // oneDNN takes as many threads as the calling thread's setting says.
  if (omp_get_max_threads() != threads_) omp_set_num_threads(threads_);
  try {
    operation();
  } catch (const std::exception& error) {  // dnnl::error or std::bad_alloc
    status_ = absl::InternalError(
        absl::StrCat("the CPU backend failed (", error.what(), "); its stream is unusable"));
  }
}

void CpuStream::ForRows(int64_t rows, int64_t cols, const std::function<void(int64_t)>& body) {
  Do([&] { ParallelFor(rows, ThreadsFor(rows * cols, threads_), body); });
}

void CpuStream::CopyFromHost(void* device, const void* host, int64_t bytes) {
  CopyOnDevice(device, host, bytes);
}

void CpuStream::CopyToHost(void* host, const void* device, int64_t bytes) {
  CopyOnDevice(host, device, bytes);
}

void CpuStream::CopyOnDevice(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) Do([=] { std::memcpy(to, from, static_cast<size_t>(bytes)); });
}

void CpuStream::CopyRows(Matrix from, Matrix to) {
  ForRows(to.rows, to.cols, [=](int64_t row) {
    std::memcpy(RowBytes(to, row), RowBytes(from, row), BytesOfRow(to));
  });
}

void CpuStream::GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) {
  ForRows(static_cast<int64_t>(rows.size()), out.cols, [=](int64_t row) {
    std::memcpy(RowBytes(out, row), RowBytes(in, rows[static_cast<size_t>(row)]), BytesOfRow(out));
  });
}

void CpuStream::BeginStep(const RowBatch& batch) {
  Do([&] {
    batch_ = batch;
    places_.clear();
    for (const SequenceRows& sequence : batch.sequences) {
      for (int64_t i = 0; i < sequence.row_count; ++i) {
        places_.push_back({&sequence, sequence.first_position + i});
      }
    }
  });
}

void CpuStream::Embed(Matrix table, Matrix out) {
  const int64_t count = static_cast<int64_t>(batch_.token_ids.size());
  ForRows(out.rows, out.cols, [=, this](int64_t row) {
    const int32_t token = row < count ? batch_.token_ids[static_cast<size_t>(row)] : 0;
    ConvertToFloat(RowBytes(table, token), table.dtype, table.cols, Row(out, row));
  });
}

void CpuStream::ComputeRope(const RopeSpec& rope, Matrix out) {
  constexpr int64_t kWork = 16;  // a sine costs as much as so many ordinary elements
  const int64_t count = static_cast<int64_t>(places_.size());
  ForRows(out.rows, out.cols * kWork, [=, &rope, this](int64_t row) {
    const int64_t position = row < count ? places_[static_cast<size_t>(row)].position : 0;
    ComputeRopeRow(rope, position, Row(out, row));
  });
}

void CpuStream::RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                               const KvLayer& kv) {
  const auto* q_weight = static_cast<const float*>(norm.q_weight);
  const auto* k_weight = static_cast<const float*>(norm.k_weight);
  const int64_t kv_floats = shape.kv_heads * shape.head_dim;
  // Padding is left as it is.
  ForRows(static_cast<int64_t>(places_.size()), qkv.cols, [=, &kv, this](int64_t row) {
    float* head = Row(qkv, row);
    for (int64_t i = 0; i < shape.query_heads + shape.kv_heads; ++i, head += shape.head_dim) {
      NormaliseAndRotateHead(i < shape.query_heads ? q_weight : k_weight, norm.epsilon,
                             Row(rope, row), shape.head_dim, head);
    }
    const RowPlace& place = places_[static_cast<size_t>(row)];
    const PageTable& table = place.sequence->page_tables[static_cast<size_t>(kv.group)];
    float* key = KeyAddress(kv, table, place.position, 0);
    PlaceRow(head - kv_floats, kv_floats, false, key);
    PlaceRow(head, kv_floats, false, key + ValueOffset(kv));
  });
}

void CpuStream::Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window,
                          float scale, Matrix out) {
  Do([&] { attention_.Run(batch_.sequences, qkv, shape, kv, window, scale, out); });
}

void CpuStream::RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) {
  ForRows(in.rows, in.cols, [=](int64_t row) {
    RmsNormRow(Row(in, row), static_cast<const float*>(weight), epsilon, in.cols, Row(out, row));
  });
}

void CpuStream::Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
                       Matrix out) {
  Do([&] { matmul_.Linear(x, Packed(weight), bias, accumulate, out); });
}

void CpuStream::SwiGlu(Matrix gate_up, Matrix z) {
  ForRows(z.rows, 2 * z.cols, [=](int64_t row) {
    SwiGluRow(Row(gate_up, row), Row(gate_up, row) + z.cols, z.cols, Row(z, row));
  });
}

void CpuStream::RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                                const KvLayer& kv, int64_t window, float scale, Matrix out) {
  RotateAndStore(qkv, shape, norm, rope, kv);
  Attention(qkv, shape, kv, window, scale, out);
}

void CpuStream::NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight,
                           const void* bias, Matrix h, Matrix out) {
  RmsNorm(x, norm.weight, norm.epsilon, h);
  Linear(h, weight, bias, /*accumulate=*/false, out);
}

void CpuStream::LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                             Matrix gate_up, Matrix z) {
  if (norm.weight != nullptr) {
    RmsNorm(x, norm.weight, norm.epsilon, h);
    x = h;
  }
  Linear(x, weight, /*bias=*/nullptr, /*accumulate=*/false, gate_up);
  SwiGlu(gate_up, z);
}

void CpuStream::DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                                   const PackedMatrix& w_down, Matrix y) {
  DownProject(wave, layer, rows.z, w_down, y);
  KeepRows(wave, rows);
}

absl::Span<const ChunkSegment> CpuStream::Wave(int64_t wave) const {
  return batch_.waves[static_cast<size_t>(wave)];
}

void CpuStream::DownProject(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                            Matrix y) {
  Do([&] { fast_weights_.DownProject(Wave(wave), layer, z, Packed(w_down), y); });
}

void CpuStream::KeepRows(int64_t wave, const ChunkRows& rows) {
  if (!status_.ok()) return;
  for (const ChunkSegment& segment : Wave(wave)) {
    if (segment.kept == nullptr) continue;
    Keep(segment, rows.target, rows.target_offset_bytes);
    Keep(segment, rows.z, rows.z_offset_bytes);
  }
}

void CpuStream::Keep(const ChunkSegment& segment, Matrix rows, int64_t offset_bytes) {
  const Matrix to = {static_cast<char*>(segment.kept) + offset_bytes, rows.dtype,
                     segment.chunk_offset + segment.row_count, rows.cols, rows.cols};
  CopyRows(rows.Rows(segment.first_row, segment.row_count),
           to.Rows(segment.chunk_offset, segment.row_count));
}

void CpuStream::UpdateFastWeights(const FastWeightLayer& layer,
                                  absl::Span<const ChunkUpdate> updates,
                                  ChunkUpdateResult* results) {
  Do([&] {
    for (size_t i = 0; i < updates.size(); ++i) {
      results[i] = fast_weights_.Update(layer, updates[i]);
    }
  });
}

void CpuStream::ReadDelta(const void* delta, Matrix out) {
  const Matrix values{const_cast<void*>(delta), DType::kF32, out.rows, out.cols, out.cols};
  CopyRows(values, out);
}

void CpuStream::TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) {
  ForRows(logits.rows, logits.cols, [=](int64_t row) {
    const float* values = Row(logits, row);
    const int32_t target = targets[static_cast<size_t>(row)];
    static_cast<float*>(out)[row] =
        static_cast<float>(static_cast<double>(values[target]) - LogSumExpRow(values, logits.cols));
  });
}

void CpuStream::Sample(Matrix logits, void* out) {
  Do([&] {
    const size_t vocab_size = static_cast<size_t>(logits.cols);
    const int64_t count = static_cast<int64_t>(batch_.samples.size());
    const int threads = static_cast<int>(
        std::min<int64_t>(ThreadsFor(count * logits.cols, threads_), std::max<int64_t>(count, 1)));
    for (int i = 0; i < threads; ++i) samplers_[static_cast<size_t>(i)].Reserve(vocab_size);
    ParallelForDynamic(count, threads, [&](int64_t row, int thread) {
      const absl::Span<const float> values(Row(logits, row), vocab_size);
      const SampleRow& sample = batch_.samples[static_cast<size_t>(row)];
      static_cast<SampledRow*>(out)[row] =
          samplers_[static_cast<size_t>(thread)].Sample(values, sample);
    });
  });
}

}  // namespace mneme
