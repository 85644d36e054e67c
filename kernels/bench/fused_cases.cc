// Products with a norm in front or a gate behind, beside the same as separate operations.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/bench/bench_case.h"

namespace mneme {
namespace {

constexpr float kEpsilon = 1e-6F;

// Scratch memory of a set, and what it is applied to.
struct FusedSet {
  Matrix x, h, gate_up, z, out;
  RowNorm norm;
  const PackedMatrix* weight;
  const PackedMatrix* down;
};

using Operations = void (*)(Stream&, const FusedSet&);

void NormLinear(Stream& stream, const FusedSet& s) {
  stream.NormLinear(s.x, s.norm, *s.weight, nullptr, s.h, s.out);
}
void NormLinearApart(Stream& stream, const FusedSet& s) {
  stream.RmsNorm(s.x, s.norm.weight, s.norm.epsilon, s.h);
  stream.Linear(s.h, *s.weight, nullptr, false, s.out);
}
void LinearSwiGlu(Stream& stream, const FusedSet& s) {
  stream.LinearSwiGlu(s.x, s.norm, *s.weight, s.h, s.gate_up, s.z);
}
void LinearSwiGluWanting(Stream& stream, const FusedSet& s) {
  stream.LinearSwiGlu(s.x, {s.norm.weight, s.norm.epsilon, /*wanted=*/true}, *s.weight, s.h,
                      s.gate_up, s.z);
}
void LinearSwiGluApart(Stream& stream, const FusedSet& s) {
  stream.RmsNorm(s.x, s.norm.weight, s.norm.epsilon, s.h);
  stream.Linear(s.h, *s.weight, nullptr, false, s.gate_up);
  stream.SwiGlu(s.gate_up, s.z);
}
void Mlp(Stream& stream, const FusedSet& s) {
  LinearSwiGlu(stream, s);
  stream.Linear(s.z, *s.down, nullptr, false, s.out);
}
void MlpApart(Stream& stream, const FusedSet& s) {
  LinearSwiGluApart(stream, s);
  stream.Linear(s.z, *s.down, nullptr, false, s.out);
}

struct FusedShape {
  const char* name;
  Operations operations;
  int64_t in, f, out;  // f: of a gate, 0: none; out: columns behind it, 0: none
};

BenchCase FusedCase(const FusedShape& shape, int64_t rows, const BenchDevice& device) {
  const int64_t weight_rows = shape.f > 0 ? 2 * shape.f : shape.out;
  const int64_t down_rows = shape.f > 0 ? shape.out : 0;
  const auto weights = static_cast<double>(weight_rows * shape.in + down_rows * shape.f);
  BenchCase c{.kernel = shape.name,
              .shape = absl::StrCat(rows, " x ", weight_rows, " x ", shape.in)};
  c.flops = 2 * weights * static_cast<double>(rows);
  c.bytes = weights * static_cast<double>(device.weight_bytes()) +
            static_cast<double>(rows * (shape.in + (down_rows > 0 ? down_rows : weight_rows)) *
                                device.activation_bytes());
  c.set_bytes = c.bytes;
  c.repeats = rows <= kReferenceRows;
  c.prepare = [=](BenchDevice& on, int sets, bool) {
    const auto weight = on.Weights(weight_rows, shape.in, 41, sets);
    const auto down = down_rows > 0 ? on.Weights(down_rows, shape.f, 42, sets)
                                    : std::vector<const PackedMatrix*>(weight.size());
    const Matrix norm = on.Random(1, shape.in, DType::kF32, 43);
    const int64_t columns = std::max<int64_t>(shape.out, 1), f = std::max<int64_t>(shape.f, 1);
    std::vector<FusedSet> all;
    for (size_t i = 0; i < weight.size(); ++i) {
      all.push_back({.x = on.Activations(rows, shape.in, 44),
                     .h = on.Activations(rows, shape.in, 45),
                     .gate_up = on.Activations(rows, 2 * f, 46),
                     .z = on.Activations(rows, f, 47),
                     .out = on.Activations(rows, columns, 48),
                     .norm = {norm.data, kEpsilon},
                     .weight = weight[i],
                     .down = down[i]});
    }
    const Matrix result = shape.out > 0 ? all[0].out : all[0].z;
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = std::make_shared<BenchStep>(rows, 1, 0),
        .run =
            [=](int set) { shape.operations(device_ptr->stream(), all[static_cast<size_t>(set)]); },
        .result = [=] { return device_ptr->Read(result); }};
  };
  return c;
}

}  // namespace

std::vector<BenchCase> FusedCases(const BenchShape& shape, const BenchDevice& device) {
  const int64_t d = shape.hidden, f = shape.intermediate, qkv = shape.qkv_features();
  const std::vector<FusedShape> shapes = {{"NormLinear qkv", NormLinear, d, 0, qkv},
                                          {"NormLinear apart", NormLinearApart, d, 0, qkv},
                                          {"LinearSwiGlu", LinearSwiGlu, d, f, 0},
                                          {"LinearSwiGlu and h", LinearSwiGluWanting, d, f, 0},
                                          {"LinearSwiGlu apart", LinearSwiGluApart, d, f, 0},
                                          {"Mlp", Mlp, d, f, d},
                                          {"Mlp apart", MlpApart, d, f, d}};
  std::vector<BenchCase> cases;
  for (const FusedShape& fused : shapes) {
    for (const int64_t rows : {1, 4, 8, 64}) cases.push_back(FusedCase(fused, rows, device));
  }
  return cases;
}

}  // namespace mneme
