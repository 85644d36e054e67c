#ifndef MNEME_ENGINE_LOADING_TENSOR_SOURCE_H_
#define MNEME_ENGINE_LOADING_TENSOR_SOURCE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

// Where parameters come from: a checkpoint, or a generator of random ones. One thread at a time.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  // The tensor `name`, which must have the shape [rows, cols]; cols = 0 asks for a vector [rows],
  // which comes back as [1, rows]. A conv [d, 1, 5] is asked for as [d, 5]. NOT_FOUND or
  // INVALID_ARGUMENT with the name. The memory lives as long as the source.
  virtual absl::StatusOr<HostTensor> Find(const std::string& name, int64_t rows,
                                          int64_t cols) const = 0;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_TENSOR_SOURCE_H_
