// Any bytes as a safetensors file: refused, or every tensor lies inside and has its shape's size.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "engine/loading/safetensors.h"
#include "engine/loading/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = mneme::SafetensorsFile::FromBytes({data, size}, "input");
  if (!file.ok()) return 0;
  uint64_t sum = 0;
  for (const auto& [name, tensor] : file->tensors()) {
    int64_t bytes = mneme::SafetensorsElementBytes(tensor.dtype);
    for (const int64_t dimension : tensor.shape) bytes *= dimension;
    MNEME_CHECK(static_cast<size_t>(bytes) == tensor.bytes.size());
    MNEME_CHECK(file->Find(name) == &tensor);
    for (const uint8_t byte : tensor.bytes) sum += byte;
  }
  volatile uint64_t sink = sum;  // the reads must happen
  static_cast<void>(sink);
  return 0;
}
