// Attention over the paged cache, and what rotates and stores keys.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/bench/bench_case.h"

namespace mneme {
namespace {

// A layer's pages of `pages` pages in random memory.
KvLayer RandomPages(BenchDevice& device, const BenchShape& shape, int64_t pages) {
  const DType dtype = device.backend().kv_dtype();
  const int64_t elements = 2 * BenchStep::kPageTokens * shape.kv_heads * shape.head_dim;
  const Matrix pool = device.Random(pages, elements, dtype, 11);
  return {pool.data,      dtype, elements * SizeOf(dtype), BenchStep::kPageTokens, shape.kv_heads,
          shape.head_dim, 0};
}

struct AttentionRows {
  int64_t sequences, rows, past;
};

double KeysSeen(const AttentionRows& a) {
  const double rows = static_cast<double>(a.rows);
  return static_cast<double>(a.sequences) *
         (rows * static_cast<double>(a.past) + rows * (rows + 1) / 2);
}

BenchCase AttentionCase(const BenchShape& shape, const AttentionRows& a, BenchDevice& device) {
  const bool decodes = a.rows == 1;
  BenchCase c{.kernel = decodes ? "Attention decode" : "Attention prefill",
              .shape = absl::StrCat(a.sequences, " x ", decodes ? "" : absl::StrCat(a.rows, " of "),
                                    a.past + a.rows)};
  c.flops = 4 * KeysSeen(a) * static_cast<double>(shape.query_heads * shape.head_dim);
  const int64_t kv_elements = a.sequences * (a.past + a.rows) * 2 * shape.kv_heads * shape.head_dim;
  const int64_t row_elements = 2 * a.sequences * a.rows * shape.query_heads * shape.head_dim;
  c.bytes = static_cast<double>(kv_elements * SizeOf(device.backend().kv_dtype()) +
                                row_elements * device.activation_bytes());
  c.set_bytes = c.bytes;
  c.repeats = decodes;
  c.prepare = [=](BenchDevice& on, int sets, bool reference) {
    const int64_t sequences = reference ? std::min(a.sequences, kReferenceSequences) : a.sequences;
    const int64_t rows = reference ? std::min(a.rows, 4 * kReferenceRows) : a.rows;
    auto step = std::make_shared<BenchStep>(sequences, rows, a.past);
    std::vector<KvLayer> layers;
    for (int i = 0; i < sets; ++i) {
      layers.push_back(RandomPages(on, shape, sequences * step->pages()));
    }
    const int64_t n = sequences * rows;
    const Matrix qkv = on.Activations(n, shape.qkv_features(), 12);
    const Matrix out = on.Activations(n, shape.query_heads * shape.head_dim, 13);
    const float scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = step,
        .run =
            [=](int set) {
              device_ptr->stream().Attention(qkv, shape.qkv(), layers[static_cast<size_t>(set)], 0,
                                             scale, out);
            },
        .result = [=] { return device_ptr->Read(out.Rows(0, std::min(n, 4 * kReferenceRows))); }};
  };
  return c;
}

BenchCase RotateCase(const BenchShape& shape, int64_t rows, BenchDevice& device) {
  BenchCase c{.kernel = "RotateAndStore", .shape = absl::StrCat(rows, " x ", shape.qkv_features())};
  const int64_t rotated = (shape.query_heads + shape.kv_heads) * shape.head_dim;
  const int64_t stored = 2 * shape.kv_heads * shape.head_dim;
  c.bytes = static_cast<double>(
      rows * (shape.qkv_features() + rotated) * device.activation_bytes() +
      rows * stored * SizeOf(device.backend().kv_dtype()) + rows * shape.head_dim * 4);
  c.set_bytes = c.bytes;
  c.repeats = rows <= kReferenceRows;
  c.prepare = [=](BenchDevice& on, int sets, bool reference) {
    const int64_t n = reference ? std::min(rows, kReferenceRows) : rows;
    // Both steps begin at position 0, so that rows of a reference have the same positions.
    auto step = rows <= kReferenceRows ? std::make_shared<BenchStep>(n, 1, 0)
                                       : std::make_shared<BenchStep>(1, n, 0);
    const KvLayer layer = RandomPages(on, shape, (n + 1) * step->pages());
    const Matrix weight = on.Random(1, shape.head_dim, DType::kF32, 14);
    const Matrix rope = on.Random(n, shape.head_dim, DType::kF32, 15);
    std::vector<Matrix> qkv;
    for (int i = 0; i < sets; ++i) qkv.push_back(on.Activations(n, shape.qkv_features(), 16));
    BenchDevice* device_ptr = &on;
    return PreparedCase{
        .step = step,
        .run =
            [=](int set) {
              device_ptr->stream().RotateAndStore(qkv[static_cast<size_t>(set)], shape.qkv(),
                                                  {weight.data, weight.data, 1e-6F}, rope, layer);
            },
        .result = [=] { return device_ptr->Read(qkv[0].Rows(0, std::min(n, kReferenceRows))); }};
  };
  return c;
}

}  // namespace

std::vector<BenchCase> AttentionCases(const BenchShape& shape, BenchDevice& device) {
  const int64_t context = shape.prefill_rows;
  std::vector<BenchCase> cases;
  for (const AttentionRows& a :
       {AttentionRows{1, 1, context / 8 - 1}, AttentionRows{1, 1, context - 1},
        AttentionRows{1, 1, 8 * context - 1}, AttentionRows{8, 1, context / 2 - 1},
        AttentionRows{32, 1, context / 2 - 1}, AttentionRows{64, 1, context - 1},
        AttentionRows{1, context / 8, 0}, AttentionRows{1, context, 0},
        AttentionRows{1, context, 7 * context}}) {
    cases.push_back(AttentionCase(shape, a, device));
  }
  for (const int64_t rows : {int64_t{1}, int64_t{64}, context}) {
    cases.push_back(RotateCase(shape, rows, device));
  }
  return cases;
}

}  // namespace mneme
