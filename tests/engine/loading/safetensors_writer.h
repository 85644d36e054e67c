#ifndef MNEME_TESTS_ENGINE_LOADING_SAFETENSORS_WRITER_H_
#define MNEME_TESTS_ENGINE_LOADING_SAFETENSORS_WRITER_H_

// Writes safetensors files, good and bad ones, and the directories they lie in.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/dtype.h"

namespace mneme {

// An empty directory, removed with its content at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void WriteFile(const std::filesystem::path& path, const std::string& content);
std::string ReadFile(const std::filesystem::path& path);

// A tensor in a file's format.
struct TensorData {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// `values` rounded to `dtype`.
TensorData MakeTensor(DType dtype, const std::vector<int64_t>& shape,
                      absl::Span<const float> values);

// A safetensors file of a header as given, whose length stands before it, and of data.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

// A well-formed file of these tensors, in the order of their names.
std::string SafetensorsBytes(const std::map<std::string, TensorData>& tensors);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_LOADING_SAFETENSORS_WRITER_H_
