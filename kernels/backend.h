#ifndef MNEME_KERNELS_BACKEND_H_
#define MNEME_KERNELS_BACKEND_H_

// The one interface between Mneme and the hardware. A Backend owns a device and its memory; a
// Stream is an ordered queue of copies and operations on it. Operations work on *rows*: one row per
// token of the step, whose neighbours may belong to other sessions.
//
// Device memory may be out of the host's reach: the engine never dereferences a device pointer.
// Operations are asynchronous and return nothing; the first failure latches, later operations of
// the stream do nothing, and Synchronize reports it from then on.
//
// A step is declared whole by BeginStep: everything that differs from one step to the next stands
// there, and the operations name only shapes, weights and scratch memory. So a device can record
// the operations of a step once and run the record again for later steps (Stream::Repeat).
//
// Notation: n rows of the step, d hidden size, f intermediate size, C chunk size, V vocabulary.
// Matrices are row-major; a linear layer is y = x Wᵀ.

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/dtype.h"
#include "kernels/sampling.h"

namespace mneme {

// A tensor [rows, cols] in host memory, contiguous, of any alignment. Not owned.
struct HostTensor {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// A view [rows, cols] of device memory; consecutive rows are `stride` elements apart. Not owned.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  // The view [count, cols] of the rows from `first` on.
  Matrix Rows(int64_t first, int64_t count) const {
    return {static_cast<char*>(data) + first * stride * SizeOf(dtype), dtype, count, cols, stride};
  }
  // The view [rows, count] of the columns from `first` on.
  Matrix Columns(int64_t first, int64_t count) const {
    return {static_cast<char*>(data) + first * SizeOf(dtype), dtype, rows, count, stride};
  }
};

// Memory of the device, or of the host for its copies; freed with its owner. Move-only; must not
// outlive its Backend.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(void* data, int64_t size_bytes, std::function<void(void*)> free)
      : data_(data, std::move(free)), size_bytes_(size_bytes) {}

  void* data() const { return data_.get(); }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  std::unique_ptr<void, std::function<void(void*)>> data_{nullptr, [](void*) {}};
  int64_t size_bytes_ = 0;
};

// A weight matrix [out, in] in whatever layout the backend multiplies fastest. Made by
// Backend::Pack, used only with that backend, which it must not outlive. Immutable: any thread.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual int64_t size_bytes() const = 0;
};

// Where one layer's keys and values lie. The cache is cut into pages of `page_tokens` positions; a
// page holds, for this layer, K [page_tokens, heads, head_dim] and then V of the same shape.
struct KvLayer {
  void* data = nullptr;  // this layer's part of page 0
  DType dtype = DType::kF32;
  int64_t page_stride_bytes = 0;  // from a page's part to the next page's
  int64_t page_tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int group = 0;  // index into SequenceRows::page_tables
};

// The pages that hold a sequence's keys and values, for the layers of one group (layers with the
// same sliding window free pages at the same time).
struct PageTable {
  absl::Span<const int32_t> pages;
  int64_t first_position = 0;  // of slot 0 of pages[0]; a multiple of page_tokens
};

// Consecutive rows of the step that belong to one sequence.
struct SequenceRows {
  int64_t first_row = 0;
  int64_t row_count = 0;
  int64_t first_position = 0;               // absolute position of the first row's token
  absl::Span<const PageTable> page_tables;  // one for each KV group; they cover all rows here
};

// Consecutive rows of one sequence within one chunk: they see the same fast weights.
struct ChunkSegment {
  int64_t first_row = 0;
  int64_t row_count = 0;
  // Device, one for each TTT layer: its ΔW, of Backend::DeltaBytes; null: ΔW = 0. Empty: all are 0.
  absl::Span<const void* const> deltas;
  // Device: the open chunk's block, where KeepRows puts these rows; null: they are not kept.
  void* kept = nullptr;
  int64_t chunk_offset = 0;  // of the first row within its chunk
};

// What one step computes: the sequences' rows stand one after another and are the first rows.
// Rows beyond them are padding: computed on token 0, seen by nobody and stored nowhere.
struct RowBatch {
  absl::Span<const int32_t> token_ids;  // [number of rows without padding], each in [0, V)
  absl::Span<const SequenceRows> sequences;
  int64_t padded_rows = 0;  // n; at least token_ids.size()
  // Fast weights: a sequence may cross chunk boundaries in a step; its k-th segment is of wave k.
  // Each row without padding is in exactly one segment. Empty without TTT.
  absl::Span<const absl::Span<const ChunkSegment>> waves;
  // What Sample draws, one for each row of its logits; fewer if the last rows are padding.
  absl::Span<const SampleRow> samples;
};

struct RopeSpec {
  absl::Span<const double> inverse_frequencies;  // [head_dim / 2], radians per position
  double attention_factor = 1.0;                 // multiplies cosine and sine (yarn)
};

// One layer's attention. Row views into a fused projection [n, (query_heads + 2 heads) head_dim].
struct QkvShape {
  int64_t query_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// RMSNorm on each head of q and k before RoPE (Qwen3); null weights: none (Llama).
struct QkNorm {
  const void* q_weight = nullptr;  // device, float32 [head_dim]
  const void* k_weight = nullptr;  // device, float32 [head_dim]
  float epsilon = 0;
};

// RMSNorm on the rows that a product takes; null weight: none.
struct RowNorm {
  const void* weight = nullptr;  // device, float32 [cols]
  float epsilon = 0;
  bool wanted = false;  // the normalised rows are wanted themselves, in the product's `h`
};

// The rows that a TTT layer learns from, and where KeepRows puts them within an open chunk's block:
// row r of a segment goes to the byte offset + (chunk_offset + r) · row size.
struct ChunkRows {
  Matrix target;  // t [n, any]
  int64_t target_offset_bytes = 0;
  Matrix z;  // [n, any]
  int64_t z_offset_bytes = 0;
};

// The parts of a TTT layer that make an update from a chunk's rows.
struct FastWeightLayer {
  Matrix conv;                               // float32 [d, 5], depthwise, centred
  const PackedMatrix* projection = nullptr;  // W_projᵀ, so that Linear gives c W_proj; null: none
  float learning_rate = 0;                   // η
  double down_norm = 0;                      // ‖W_down‖_F
};

// One session's closed chunk in one layer, with its learning controls (DESIGN §1; freeze is the
// caller's: it makes no update). U = η vᵀ z, then in this order lr_scale, skip if not finite,
// clip_norm, candidate (1 − decay) ΔW + U, skip if ‖candidate‖ / ‖W_down‖ > max_relative_norm.
struct ChunkUpdate {
  Matrix target;               // t [C, d]
  Matrix z;                    // [C, f]
  void* delta = nullptr;       // device, of Backend::DeltaBytes(d, f), updated in place
  bool delta_is_zero = false;  // delta holds nothing yet: read as 0; written in any case
  float lr_scale = 1;
  float clip_norm = 0;  // 0: off
  float decay = 0;
  float max_relative_norm = 0;  // 0: off
};

// What became of a ChunkUpdate.
struct ChunkUpdateResult {
  double update_norm = 0;  // ‖lr_scale · U‖_F before clipping; not finite if U is not
  double delta_norm = 0;   // ‖ΔW‖_F afterwards
  bool clipped = false;
  bool skipped = false;  // ΔW stayed as it was: U not finite, or the candidate too large
};

// An ordered queue on the device. One thread at a time.
class Stream {
 public:
  virtual ~Stream() = default;

  // Waits until everything queued is done. INTERNAL if the device failed at any time; such a
  // stream never recovers.
  virtual absl::Status Synchronize() = 0;

  // --- Copies. Host memory must stay untouched until the next Synchronize. Those of much host
  // memory that is not of AllocateHost may block, and be slower. ---
  virtual void CopyFromHost(void* device, const void* host, int64_t bytes) = 0;
  virtual void CopyToHost(void* host, const void* device, int64_t bytes) = 0;
  virtual void CopyOnDevice(void* to, const void* from, int64_t bytes) = 0;
  // Copies rows between views of equal shape and dtype that do not overlap.
  virtual void CopyRows(Matrix from, Matrix to) = 0;
  // out[i] = in[rows[i]]. Same dtype and cols.
  virtual void GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) = 0;

  // --- A step. ---
  // Declares the rows that the operations below work on; what `batch` points to must live until
  // the next Synchronize.
  virtual void BeginStep(const RowBatch& batch) = 0;
  // Runs `operations`, or what they were when a step of the same `key` ran before: of equal key
  // they are the same calls with the same arguments, none of them a copy from or to the host or
  // an update, in steps of one wave and equally many rows, one for each sequence.
  virtual void Repeat(uint64_t key, const std::function<void()>& operations) = 0;
  // out[i] = table[token_ids[i]]: table [V, d] of any dtype, out [n, d] in the activation dtype.
  virtual void Embed(Matrix table, Matrix out) = 0;
  // Cosines and then sines of each row's position: out float32 [n, head_dim].
  virtual void ComputeRope(const RopeSpec& rope, Matrix out) = 0;
  // Normalises q and k heads of `qkv` [n, (Hq + 2 Hkv) head_dim] in place, rotates them (halves of
  // a head are paired, as in Hugging Face) and writes k and v to the rows' places in the cache.
  virtual void RotateAndStore(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                              const KvLayer& kv) = 0;
  // Causal attention of each row over its sequence's cache, itself included: softmax(q kᵀ scale) v.
  // `window` > 0 limits it to the last `window` positions. out [n, Hq head_dim].
  virtual void Attention(Matrix qkv, const QkvShape& shape, const KvLayer& kv, int64_t window,
                         float scale, Matrix out) = 0;

  // --- Layers; any number of rows. ---
  // out = x / rms(x) ⊙ weight; weight float32 [cols] on the device. `out` may be `in`.
  virtual void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) = 0;
  // out = x Wᵀ + bias, added to `out` if `accumulate`; bias float32 [out_features] or null. Rounded
  // to the dtype of `out` once, or twice with a bias, which may be added to the rounded rest.
  // `out` may be float32 whatever the activation dtype (logits).
  virtual void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
                      Matrix out) = 0;
  // z = silu(gate) ⊙ up, of gate_up [n, 2 f]: gate in the first f columns. z [n, f].
  virtual void SwiGlu(Matrix gate_up, Matrix z) = 0;

  // --- Several of these at once, which a device may fuse. Rounded as they are one after another,
  // or less often. Inputs stay as they are; `h` [n, d] and `gate_up` [n, 2 f] are scratch memory of
  // the activation dtype, unspecified afterwards but for an `h` that is wanted. No two overlap. ---
  // RotateAndStore, then Attention; `qkv` is unspecified afterwards.
  virtual void RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                               const KvLayer& kv, int64_t window, float scale, Matrix out) = 0;
  // out = RmsNorm(x) Wᵀ + bias; x [n, d], out [n, out_features] as in Linear, bias float32
  // [out_features] or null.
  virtual void NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight,
                          const void* bias, Matrix h, Matrix out) = 0;
  // z = silu(y W_gateᵀ) ⊙ (y W_upᵀ) with y = RmsNorm(x), or x itself without a norm. `weight`
  // [2 f, d]: W_gate above W_up; x [n, d], z [n, f]. `h` is not used without a norm.
  virtual void LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                            Matrix gate_up, Matrix z) = 0;
  // DownProject of rows.z, then KeepRows.
  virtual void DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                                  const PackedMatrix& w_down, Matrix y) = 0;

  // --- Fast weights. ---
  // y[r] += z[r] (W_down + ΔW)ᵀ for the rows of wave `wave`, ΔW being that of the `layer`-th TTT
  // layer; other waves' rows are left alone. z [n, f], y [n, d].
  virtual void DownProject(int64_t wave, int64_t layer, Matrix z, const PackedMatrix& w_down,
                           Matrix y) = 0;
  // Puts the rows of wave `wave` that are kept (ChunkSegment) into their open chunks' blocks.
  virtual void KeepRows(int64_t wave, const ChunkRows& rows) = 0;
  // Applies the updates, of different sessions. results [updates.size()] is host memory, filled by
  // the next Synchronize.
  virtual void UpdateFastWeights(const FastWeightLayer& layer,
                                 absl::Span<const ChunkUpdate> updates,
                                 ChunkUpdateResult* results) = 0;
  // The values of a ΔW, as they accumulate: out float32 [d, f].
  virtual void ReadDelta(const void* delta, Matrix out) = 0;

  // --- Ends. ---
  // out[i] = ln softmax(logits[i])[targets[i]]: logits float32 [n, V], out device float32 [n].
  virtual void TargetLogProbs(Matrix logits, absl::Span<const int32_t> targets, void* out) = 0;
  // Draws the step's samples (RowBatch::samples) from the first rows of `logits`, float32 [m, V],
  // whose values it may change. out: device, m SampledRow.
  virtual void Sample(Matrix logits, void* out) = 0;
};

// The largest that a backend's kernels compute.
struct BackendLimits {
  int64_t head_dim = std::numeric_limits<int64_t>::max();
  int64_t vocab_size = std::numeric_limits<int64_t>::max();
};

// A device. Thread-safe, but for the streams.
class Backend {
 public:
  virtual ~Backend() = default;

  // Such as "cpu (oneDNN 2.7, AVX3_SPR, 2 threads, float32)".
  virtual std::string description() const = 0;
  // What Matrix activations have (Linear inputs and outputs, norms, z).
  virtual DType activation_dtype() const = 0;
  virtual DType kv_dtype() const = 0;
  // What a model must keep to.
  virtual BackendLimits limits() const { return {}; }
  // Bytes of one ΔW [d, f] in the form that the backend keeps: what updates accumulate in, and the
  // copy that DownProject reads where that is another.
  virtual int64_t DeltaBytes(int64_t d, int64_t f) const = 0;
  // Whether allocated memory takes up the device only where it has been written, so that pools may
  // together be larger than it.
  virtual bool commits_on_touch() const = 0;
  // Memory that may be allocated now, in bytes: what is free, but for what the backend itself may
  // still come to need.
  virtual int64_t FreeBytes() const = 0;
  // At how many rows, `rows` or more, a step of `rows` sequences with one row each is run so that
  // Repeat finds it again; 0: such a step is not worth repeating.
  virtual int64_t RepeatableRows(int64_t rows) const = 0;

  // Memory of unspecified content, aligned to 64 bytes at least. RESOURCE_EXHAUSTED, with the
  // figures, if the device has not that much.
  virtual absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) = 0;
  // Host memory, likewise, from and to which copies run at the bus's full rate and never block the
  // caller. It stays in physical memory, which makes it slow to allocate: for long use.
  // RESOURCE_EXHAUSTED, with the figures, if the host has not that much.
  virtual absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) = 0;
  // The vertical concatenation of `parts` (equal cols) as one weight matrix: fused q, k, v or
  // gate, up. The host memory may be released afterwards.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
      absl::Span<const HostTensor> parts) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_BACKEND_H_
