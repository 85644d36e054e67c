// Products with weights, operations on rows, and draws.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/bench/bench_case.h"

namespace mneme {
namespace {

// The rows of decode steps, one for each sequence.
constexpr int64_t kDecodeRows[] = {1, 8, 64};

// Steps of many rows are of one sequence.
std::shared_ptr<BenchStep> StepOf(int64_t rows) {
  return rows <= kReferenceRows ? std::make_shared<BenchStep>(rows, 1, 0)
                                : std::make_shared<BenchStep>(1, rows, 0);
}

struct LinearShape {
  std::string name;
  int64_t out, in;
  DType out_dtype;
};

BenchCase LinearCase(const LinearShape& linear, int64_t rows, const BenchDevice& device) {
  const double weights = static_cast<double>(linear.out * linear.in);
  const double in_bytes = static_cast<double>(rows * linear.in * device.activation_bytes());
  const double out_bytes = static_cast<double>(rows * linear.out * SizeOf(linear.out_dtype));
  BenchCase c{.kernel = absl::StrCat("Linear ", linear.name),
              .shape = absl::StrCat(rows, " x ", linear.out, " x ", linear.in)};
  c.flops = 2 * weights * static_cast<double>(rows);
  c.bytes = weights * static_cast<double>(device.weight_bytes()) + in_bytes + out_bytes;
  c.set_bytes = c.bytes;
  c.repeats = rows <= kReferenceRows;
  c.prepare = [=](BenchDevice& on, int sets, bool reference) {
    const int64_t n = reference ? std::min(rows, kReferenceRows) : rows;
    const auto weight = on.Weights(linear.out, linear.in, 1, sets);
    std::vector<Matrix> x, y;
    for (int i = 0; i < sets; ++i) {
      x.push_back(on.Activations(n, linear.in, 2));
      const Matrix out{on.Allocate(n * linear.out * SizeOf(linear.out_dtype)), linear.out_dtype, n,
                       linear.out, linear.out};
      y.push_back(out);
    }
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = StepOf(n),
        .run =
            [=](int set) {
              const size_t i = static_cast<size_t>(set);
              device_ptr->stream().Linear(x[i], *weight[i], nullptr, false, y[i]);
            },
        .result = [=] { return device_ptr->Read(y[0].Rows(0, std::min(n, kReferenceRows))); }};
  };
  return c;
}

// An operation from a matrix [rows, in_cols] to one [rows, out_cols].
template <typename Operation>
BenchCase RowCase(const std::string& kernel, int64_t rows, int64_t in_cols, int64_t out_cols,
                  const BenchDevice& device, Operation operation) {
  BenchCase c{.kernel = kernel, .shape = absl::StrCat(rows, " x ", in_cols)};
  c.bytes = static_cast<double>(rows * (in_cols + out_cols) * device.activation_bytes());
  c.set_bytes = c.bytes;
  c.repeats = rows <= kReferenceRows;
  c.prepare = [=](BenchDevice& on, int sets, bool reference) {
    const int64_t n = reference ? std::min(rows, kReferenceRows) : rows;
    std::vector<Matrix> in, out;
    for (int i = 0; i < sets; ++i) {
      in.push_back(on.Activations(n, in_cols, 3));
      out.push_back(on.Activations(n, out_cols, 4));
    }
    const Matrix weight = on.Random(1, in_cols, DType::kF32, 5);
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = StepOf(n),
        .run =
            [=](int set) {
              const size_t i = static_cast<size_t>(set);
              operation(device_ptr->stream(), in[i], weight.data, out[i]);
            },
        .result = [=] { return device_ptr->Read(out[0].Rows(0, std::min(n, kReferenceRows))); }};
  };
  return c;
}

BenchCase SampleCase(const std::string& name, const SamplingParams& params,
                     const BenchShape& shape) {
  constexpr int64_t kRows = 64;
  BenchCase c{.kernel = absl::StrCat("Sample ", name),
              .shape = absl::StrCat(kRows, " x ", shape.vocab)};
  c.bytes = static_cast<double>(kRows * shape.vocab * 4);
  c.set_bytes = c.bytes;
  c.repeats = true;
  c.draws = true;
  const int64_t vocab = shape.vocab;
  c.prepare = [=](BenchDevice& on, int sets, bool) {
    std::vector<Matrix> logits;
    for (int i = 0; i < sets; ++i) logits.push_back(on.Logits(kRows, vocab, 6));
    void* out = on.Allocate(kRows * static_cast<int64_t>(sizeof(SampledRow)));
    auto step = std::make_shared<BenchStep>(kRows, 1, 0);
    step->SetSamples(params);
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = step,
        .run = [=](int set) { device_ptr->stream().Sample(logits[static_cast<size_t>(set)], out); },
        .result =
            [=] {
              std::vector<SampledRow> rows(kRows);
              device_ptr->stream().CopyToHost(rows.data(), out, kRows * sizeof(SampledRow));
              device_ptr->Synchronize();
              std::vector<float> ids;
              for (const SampledRow& row : rows) ids.push_back(static_cast<float>(row.id));
              return ids;
            }};
  };
  return c;
}

}  // namespace

std::vector<BenchCase> LinearCases(const BenchShape& shape, const BenchDevice& device) {
  const DType activations = device.activation_bytes() == 4 ? DType::kF32 : DType::kBF16;
  const std::vector<LinearShape> linears = {
      {"qkv", shape.qkv_features(), shape.hidden, activations},
      {"o", shape.hidden, shape.query_heads * shape.head_dim, activations},
      {"gate_up", 2 * shape.intermediate, shape.hidden, activations},
      {"down", shape.hidden, shape.intermediate, activations},
      {"lm_head", shape.vocab, shape.hidden, DType::kF32}};
  std::vector<BenchCase> cases;
  for (const LinearShape& linear : linears) {
    for (const int64_t rows : kDecodeRows) cases.push_back(LinearCase(linear, rows, device));
    cases.push_back(LinearCase(linear, shape.prefill_rows, device));
  }
  return cases;
}

std::vector<BenchCase> RowCases(const BenchShape& shape, const BenchDevice& device) {
  std::vector<BenchCase> cases;
  for (const int64_t rows : {int64_t{1}, int64_t{64}, shape.prefill_rows}) {
    cases.push_back(RowCase("RmsNorm", rows, shape.hidden, shape.hidden, device,
                            [](Stream& stream, Matrix in, const void* weight, Matrix out) {
                              stream.RmsNorm(in, weight, 1e-6F, out);
                            }));
    cases.push_back(RowCase(
        "SwiGlu", rows, 2 * shape.intermediate, shape.intermediate, device,
        [](Stream& stream, Matrix in, const void*, Matrix out) { stream.SwiGlu(in, out); }));
  }
  return cases;
}

// The temperature is 1, so that logits that a draw has changed are still the same distribution.
std::vector<BenchCase> SampleCases(const BenchShape& shape) {
  SamplingParams greedy, top_p;
  greedy.temperature = 0;
  top_p.top_p = 0.9F;
  top_p.seed = 7;
  return {SampleCase("greedy", greedy, shape), SampleCase("top_p", top_p, shape)};
}

}  // namespace mneme
