#ifndef MNEME_KERNELS_BENCH_BENCH_DEVICE_H_
#define MNEME_KERNELS_BENCH_BENCH_DEVICE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// Prints the status and ends the program unless it is OK.
void Require(const absl::Status& status);

// A backend with a stream, and memory that lives as long: made from seeds, so that two devices hold
// the same numbers. Of matrices with one seed and equally many columns the shorter is the
// beginning of the longer. Any failure ends the program.
class BenchDevice {
 public:
  // delta_read_bytes: of an element of ΔW as DownProject reads it.
  BenchDevice(std::unique_ptr<Backend> backend, DType weight_dtype, int64_t delta_read_bytes);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  int64_t activation_bytes() const { return SizeOf(backend_->activation_dtype()); }
  int64_t weight_bytes() const { return SizeOf(weight_dtype_); }
  int64_t delta_read_bytes() const { return delta_read_bytes_; }

  // Uniform multiples of 2⁻⁷ in [−1, 1), which every dtype holds.
  Matrix Random(int64_t rows, int64_t cols, DType dtype, uint64_t seed);
  Matrix Activations(int64_t rows, int64_t cols, uint64_t seed) {
    return Random(rows, cols, backend_->activation_dtype(), seed);
  }
  // float32, about normal with a standard deviation of 2.
  Matrix Logits(int64_t rows, int64_t cols, uint64_t seed);
  // `copies` weights of the same random numbers.
  std::vector<const PackedMatrix*> Weights(int64_t out, int64_t in, uint64_t seed, int copies);
  // A ΔW made by an update of a few random rows; `copies` of it.
  std::vector<void*> Deltas(int64_t d, int64_t f, uint64_t seed, int64_t copies);
  void* Allocate(int64_t bytes);
  void* AllocateHost(int64_t bytes);

  std::vector<float> Read(Matrix matrix);
  void Synchronize() { Require(stream_->Synchronize()); }
  // Releases all that was made so far.
  void Clear();

 private:
  Matrix Upload(const std::vector<float>& values, int64_t rows, int64_t cols, DType dtype);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  const DType weight_dtype_;
  const int64_t delta_read_bytes_;
  std::vector<DeviceBuffer> buffers_;
  std::vector<std::unique_ptr<PackedMatrix>> weights_;
};

}  // namespace mneme

#endif  // MNEME_KERNELS_BENCH_BENCH_DEVICE_H_
