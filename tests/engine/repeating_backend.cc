#include "tests/engine/repeating_backend.h"

#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/engine/forwarding_backend.h"

namespace mneme {
namespace {

std::ostream& operator<<(std::ostream& out, const Matrix& m) {
  return out << m.data << '[' << m.rows << ',' << m.cols << ',' << m.stride << ']';
}

class RepeatingStream final : public ForwardingStream {
 public:
  RepeatingStream(std::unique_ptr<Stream> inner, RepeatCounts* counts)
      : ForwardingStream(std::move(inner)), counts_(*counts) {}

  void BeginStep(const RowBatch& batch) override {
    padded_rows_ = batch.padded_rows;
    decodes_ = batch.waves.size() <= 1 && batch.sequences.size() == batch.token_ids.size();
    ForwardingStream::BeginStep(batch);
  }
  // Listens to the operations before they are passed on: a device may not ask for them again.
  void Repeat(uint64_t key, const std::function<void()>& operations) override {
    EXPECT_TRUE(decodes_);
    calls_.str("");
    calls_ << padded_rows_ << " rows\n";
    listening_ = true;
    operations();
    listening_ = false;
    const auto [known, is_new] = recorded_.emplace(key, calls_.str());
    ++(is_new ? counts_.recorded : counts_.repeated);
    EXPECT_EQ(known->second, calls_.str());
    repeating_ = true;
    ForwardingStream::Repeat(key, operations);
    repeating_ = false;
  }

  void CopyFromHost(void* device, const void* host, int64_t bytes) override {
    EXPECT_FALSE(listening_ || repeating_);
    ForwardingStream::CopyFromHost(device, host, bytes);
  }
  void CopyToHost(void* host, const void* device, int64_t bytes) override {
    EXPECT_FALSE(listening_ || repeating_);
    ForwardingStream::CopyToHost(host, device, bytes);
  }
  void CopyRows(Matrix from, Matrix to) override {
    if (Note("CopyRows", from, to)) return;
    ForwardingStream::CopyRows(from, to);
  }
  void GatherRows(Matrix in, absl::Span<const int32_t> rows, Matrix out) override {
    EXPECT_FALSE(listening_ || repeating_) << "the list of rows is an argument that differs";
    ForwardingStream::GatherRows(in, rows, out);
  }
  void Embed(Matrix table, Matrix out) override {
    if (Note("Embed", table, out)) return;
    ForwardingStream::Embed(table, out);
  }
  void ComputeRope(const RopeSpec& rope, Matrix out) override {
    if (Note("ComputeRope", rope.inverse_frequencies.data(), out)) return;
    ForwardingStream::ComputeRope(rope, out);
  }
  void RotateAndAttend(Matrix qkv, const QkvShape& shape, const QkNorm& norm, Matrix rope,
                       const KvLayer& kv, int64_t window, float scale, Matrix out) override {
    if (Note("RotateAndAttend", qkv, norm.q_weight, rope, kv.data, kv.group, window, scale, out)) {
      return;
    }
    ForwardingStream::RotateAndAttend(qkv, shape, norm, rope, kv, window, scale, out);
  }
  void RmsNorm(Matrix in, const void* weight, float epsilon, Matrix out) override {
    if (Note("RmsNorm", in, weight, epsilon, out)) return;
    ForwardingStream::RmsNorm(in, weight, epsilon, out);
  }
  void Linear(Matrix x, const PackedMatrix& weight, const void* bias, bool accumulate,
              Matrix out) override {
    if (Note("Linear", x, &weight, bias, accumulate, out)) return;
    ForwardingStream::Linear(x, weight, bias, accumulate, out);
  }
  void NormLinear(Matrix x, const RowNorm& norm, const PackedMatrix& weight, const void* bias,
                  Matrix h, Matrix out) override {
    if (Note("NormLinear", x, norm.weight, norm.wanted, &weight, bias, h, out)) return;
    ForwardingStream::NormLinear(x, norm, weight, bias, h, out);
  }
  void LinearSwiGlu(Matrix x, const RowNorm& norm, const PackedMatrix& weight, Matrix h,
                    Matrix gate_up, Matrix z) override {
    if (Note("LinearSwiGlu", x, norm.weight, norm.wanted, &weight, h, gate_up, z)) return;
    ForwardingStream::LinearSwiGlu(x, norm, weight, h, gate_up, z);
  }
  void DownProjectAndKeep(int64_t wave, int64_t layer, const ChunkRows& rows,
                          const PackedMatrix& w_down, Matrix y) override {
    if (Note("DownProjectAndKeep", wave, layer, rows.target, rows.target_offset_bytes, rows.z,
             rows.z_offset_bytes, &w_down, y)) {
      return;
    }
    ForwardingStream::DownProjectAndKeep(wave, layer, rows, w_down, y);
  }
  void UpdateFastWeights(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                         ChunkUpdateResult* results) override {
    EXPECT_FALSE(listening_ || repeating_);
    ForwardingStream::UpdateFastWeights(layer, updates, results);
  }
  void Sample(Matrix logits, void* out) override {
    if (Note("Sample", logits, out)) return;
    ForwardingStream::Sample(logits, out);
  }

 private:
  // Whether the call is only listened to.
  template <typename... Arguments>
  bool Note(const char* name, const Arguments&... arguments) {
    if (!listening_) return false;
    calls_ << name;
    ((calls_ << ' ' << arguments), ...);
    calls_ << '\n';
    return true;
  }

  RepeatCounts& counts_;
  int64_t padded_rows_ = 0;
  bool decodes_ = false, listening_ = false, repeating_ = false;
  std::ostringstream calls_;
  std::map<uint64_t, std::string> recorded_;
};

class RepeatingBackend final : public ForwardingBackend {
 public:
  RepeatingBackend(std::unique_ptr<Backend> inner, RepeatCounts* counts)
      : ForwardingBackend(std::move(inner)), counts_(counts) {}

  int64_t RepeatableRows(int64_t rows) const override {
    return ForwardingBackend::RepeatableRows((rows + 3) / 4 * 4);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    MNEME_ASSIGN_OR_RETURN(auto stream, ForwardingBackend::CreateStream());
    return std::make_unique<RepeatingStream>(std::move(stream), counts_);
  }

 private:
  RepeatCounts* const counts_;
};

}  // namespace

std::unique_ptr<Backend> MakeRepeatingBackend(std::unique_ptr<Backend> inner,
                                              RepeatCounts* counts) {
  return std::make_unique<RepeatingBackend>(std::move(inner), counts);
}

}  // namespace mneme
