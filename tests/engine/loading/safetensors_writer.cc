#include "tests/engine/loading/safetensors_writer.h"

#include <bit>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "nlohmann/json.hpp"

namespace mneme {
namespace {

// Rounds to nearest for values that binary16 holds as normal numbers, and zero.
uint16_t FloatToFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = (bits & 0x7fffffffU) + 0x1000U;
  if (magnitude < 0x38800000U) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | ((magnitude >> 13) - (112U << 10)));
}

template <typename T>
void AppendBytes(T value, std::string& bytes) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "mneme_test_XXXXXX").string();
  MNEME_CHECK(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << content;
  stream.close();
  MNEME_CHECK(stream.good());
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  MNEME_CHECK(stream.good());
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

TensorData MakeTensor(DType dtype, const std::vector<int64_t>& shape,
                      absl::Span<const float> values) {
  TensorData tensor{NameOf(dtype), shape, {}};
  for (const float value : values) {
    if (dtype == DType::kF32) AppendBytes(value, tensor.bytes);
    if (dtype == DType::kF16) AppendBytes(FloatToFloat16(value), tensor.bytes);
    if (dtype == DType::kBF16) AppendBytes(FloatToBFloat16(value), tensor.bytes);
  }
  return tensor;
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  std::string bytes;
  AppendBytes(uint64_t{header.size()}, bytes);
  return bytes + header + data;
}

std::string SafetensorsBytes(const std::map<std::string, TensorData>& tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = data.size();
    data += tensor.bytes;
    header[name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return SafetensorsBytes(header.dump(), data);
}

}  // namespace mneme
