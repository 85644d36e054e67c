#include "kernels/cpu/matmul.h"

#include <cstring>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_loops.h"

namespace mneme {
namespace {

using dnnl::memory;

// More rows than twice this are cut into a multiple of it and a rest, so that all row counts
// together need few primitives.
constexpr int64_t kRowStep = 64;
// The layout that oneDNN prefers for this many rows serves fewer and more as well.
constexpr int64_t kTypicalRows = 512;

memory::data_type TypeOf(DType dtype) {
  return dtype == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
}

memory::desc RowMajor(int64_t rows, int64_t cols, memory::data_type type) {
  return {{rows, cols}, type, memory::format_tag::ab};
}

// The product of `x` and `weights`, plus `bias` if it has elements. oneDNN 3 builds in one step
// what takes two in oneDNN 2.
dnnl::matmul::primitive_desc DescribeProduct(const dnnl::engine& engine, const memory::desc& x,
                                             const memory::desc& weights, const memory::desc& bias,
                                             const memory::desc& out,
                                             const dnnl::primitive_attr& attributes) {
  const bool has_bias = bias.get_size() > 0;
#if DNNL_VERSION_MAJOR >= 3
  if (has_bias) return {engine, x, weights, bias, out, attributes};
  return {engine, x, weights, out, attributes};
#else
  if (has_bias) return {{x, weights, bias, out}, attributes, engine};
  return {{x, weights, out}, attributes, engine};
#endif
}

memory::desc PackedLayout(const dnnl::engine& engine, int64_t out, int64_t in, DType dtype) {
  const memory::desc any({in, out}, TypeOf(dtype), memory::format_tag::any);
  return DescribeProduct(engine, RowMajor(kTypicalRows, in, TypeOf(dtype)), any, {},
                         RowMajor(kTypicalRows, out, memory::data_type::f32), {})
      .weights_desc();
}

// The parts one below the other, as float32.
void Concatenate(absl::Span<const HostTensor> parts, float* to) {
  for (const HostTensor& part : parts) {
    const char* source = static_cast<const char*>(part.data);
    ParallelFor(part.rows, omp_get_max_threads(), [&](int64_t row) {
      ConvertToFloat(source + row * part.cols * SizeOf(part.dtype), part.dtype, part.cols,
                     to + row * part.cols);
    });
    to += part.rows * part.cols;
  }
}

bool IsDense(Matrix m) { return m.stride == m.cols || m.rows == 1; }

const float* Floats(Matrix m, int64_t row) {
  return static_cast<const float*>(m.data) + row * m.stride;
}

float* MutableFloats(Matrix m, int64_t row) { return static_cast<float*>(m.data) + row * m.stride; }

Matrix Dense(float* data, int64_t rows, int64_t cols) {
  return {data, DType::kF32, rows, cols, cols};
}

}  // namespace

CpuPackedMatrix::CpuPackedMatrix(const dnnl::engine& engine, DType dtype,
                                 absl::Span<const HostTensor> parts)
    : dtype_(dtype), in_features_(parts[0].cols) {
  for (const HostTensor& part : parts) out_features_ += part.rows;
  Scratch staging;
  float* plain = staging.Floats(out_features_ * in_features_);
  Concatenate(parts, plain);
  dnnl::memory source(
      {{in_features_, out_features_}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ba},
      engine, plain);
  memory_ = dnnl::memory(PackedLayout(engine, out_features_, in_features_, dtype), engine);
  dnnl::stream stream(engine);
  dnnl::reorder(source, memory_).execute(stream, source, memory_);
  stream.wait();
}

int64_t CpuPackedMatrix::size_bytes() const {
  return static_cast<int64_t>(memory_.get_desc().get_size());
}

Matmul::Matmul(const dnnl::engine& engine, int threads, size_t max_primitives)
    : engine_(engine), stream_(engine), threads_(threads), max_primitives_(max_primitives) {}

void Matmul::Linear(Matrix x, const CpuPackedMatrix& weight, const void* bias, bool accumulate,
                    Matrix out) {
  if (x.rows == 0) return;
  if (!IsDense(out)) {  // oneDNN multiplies into packed rows only
    const Matrix dense =
        Dense(output_.Floats(out.rows * weight.out_features()), out.rows, weight.out_features());
    Linear(x, weight, bias, false, dense);
    ParallelFor(out.rows, ThreadsFor(out.rows * out.cols, threads_), [&](int64_t row) {
      PlaceRow(Floats(dense, row), out.cols, accumulate, MutableFloats(out, row));
    });
    return;
  }
  const int64_t rest = x.rows > 2 * kRowStep ? x.rows % kRowStep : 0;
  const int64_t whole = x.rows - rest;
  LinearDense(x.Rows(0, whole), weight, bias, accumulate, out.Rows(0, whole));
  if (rest == 0) return;
  LinearDense(x.Rows(whole, rest), weight, bias, accumulate, out.Rows(whole, rest));
}

void Matmul::LinearDense(Matrix x, const CpuPackedMatrix& weight, const void* bias, bool accumulate,
                         Matrix out) {
  const Shape shape = {x.rows,          weight.out_features(),
                       x.cols,          static_cast<int64_t>(weight.dtype()),
                       bias != nullptr, accumulate};
  Primitive& primitive = Find(shape, weight);
  primitive.x.set_data_handle(const_cast<void*>(PackInput(x, weight.dtype())));
  primitive.out.set_data_handle(out.data);
  if (bias != nullptr) primitive.bias.set_data_handle(const_cast<void*>(bias));
  primitive.arguments[DNNL_ARG_WEIGHTS] = weight.memory();
  primitive.matmul.execute(stream_, primitive.arguments);
  stream_.wait();
}

// The rows of x as oneDNN reads them: packed, in the weights' dtype.
const void* Matmul::PackInput(Matrix x, DType dtype) {
  if (dtype == DType::kF32 && IsDense(x)) return x.data;
  char* packed = static_cast<char*>(input_.Bytes(x.rows * x.cols * SizeOf(dtype)));
  ParallelFor(x.rows, ThreadsFor(x.rows * x.cols, threads_), [&](int64_t row) {
    void* to = packed + row * x.cols * SizeOf(dtype);
    if (dtype == DType::kBF16) {
      ConvertRowToBFloat16(Floats(x, row), x.cols, static_cast<uint16_t*>(to));
    } else {
      std::memcpy(to, Floats(x, row), static_cast<size_t>(x.cols) * sizeof(float));
    }
  });
  return packed;
}

Matmul::Primitive& Matmul::Find(const Shape& shape, const CpuPackedMatrix& weight) {
  if (const auto known = by_shape_.find(shape); known != by_shape_.end()) {
    recent_.splice(recent_.begin(), recent_, known->second);
    return recent_.front().second;
  }
  if (recent_.size() == max_primitives_) {
    by_shape_.erase(recent_.back().first);
    recent_.pop_back();
  }
  recent_.emplace_front(shape, Make(shape, weight));
  by_shape_[shape] = recent_.begin();
  return recent_.front().second;
}

Matmul::Primitive Matmul::Make(const Shape& shape, const CpuPackedMatrix& weight) const {
  const auto [rows, out_features, in_features, dtype, has_bias, accumulate] = shape;
  const memory::desc x = RowMajor(rows, in_features, TypeOf(weight.dtype()));
  const memory::desc bias =
      has_bias != 0 ? RowMajor(1, out_features, memory::data_type::f32) : memory::desc();
  const memory::desc out = RowMajor(rows, out_features, memory::data_type::f32);
  const memory::desc weights = weight.memory().get_desc();
  dnnl::primitive_attr attributes;
  if (accumulate != 0) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  Primitive made;
  made.matmul = dnnl::matmul(DescribeProduct(engine_, x, weights, bias, out, attributes));
  made.x = memory(x, engine_, nullptr);
  made.out = memory(out, engine_, nullptr);
  made.arguments = {{DNNL_ARG_SRC, made.x}, {DNNL_ARG_DST, made.out}};
  if (has_bias != 0) {
    made.bias = memory(bias, engine_, nullptr);
    made.arguments[DNNL_ARG_BIAS] = made.bias;
  }
  return made;
}

namespace {

void Sgemm(char transpose_a, char transpose_b, int64_t k, Matrix a, Matrix b, float beta,
           Matrix c) {
  const dnnl::status status =
      dnnl::sgemm(transpose_a, transpose_b, c.rows, c.cols, k, 1.0f,
                  static_cast<const float*>(a.data), a.stride, static_cast<const float*>(b.data),
                  b.stride, beta, static_cast<float*>(c.data), c.stride);
  if (status != dnnl::status::success) {
    throw dnnl::error(static_cast<dnnl_status_t>(status), "oneDNN's sgemm failed");
  }
}

}  // namespace

void MultiplyTransposed(Matrix a, Matrix b, Matrix c) { Sgemm('T', 'N', a.rows, a, b, 0.0f, c); }

void MultiplyAdd(Matrix a, Matrix b, Matrix c) { Sgemm('N', 'T', a.cols, a, b, 1.0f, c); }

}  // namespace mneme
