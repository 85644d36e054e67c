#ifndef MNEME_TESTS_ENGINE_BACKENDS_H_
#define MNEME_TESTS_ENGINE_BACKENDS_H_

// The backends that the engine's tests run on.

#include <memory>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace mneme {

enum class BackendKind : uint8_t {
  kCpuFloat32,
  kCpuBFloat16,
  kCudaFloat32,
  kCudaBFloat16,
  kCudaFloat32Delta,  // bfloat16, but ΔW accumulates in float32
  kCudaFp8Delta,      // bfloat16, but ΔW is read in fp8
};

std::string NameOf(BackendKind kind);
inline std::ostream& operator<<(std::ostream& out, BackendKind kind) { return out << NameOf(kind); }

constexpr bool IsCuda(BackendKind kind) { return kind >= BackendKind::kCudaFloat32; }
constexpr bool IsFloat32(BackendKind kind) {
  return kind == BackendKind::kCpuFloat32 || kind == BackendKind::kCudaFloat32;
}

// `cpu_threads`: 0: all. On CUDA ΔW accumulates and is read in float32 where all else is float32,
// and as the backend's defaults say unless the kind says otherwise. A status where the machine
// lacks what it needs.
absl::StatusOr<std::unique_ptr<Backend>> CreateTestBackend(BackendKind kind, int cpu_threads);

// OK, or why there is no such backend here. Tries once.
const absl::Status& BackendStatus(BackendKind kind);

}  // namespace mneme

// Ends a test, or a fixture's SetUp, where there is no backend of `kind`.
#define MNEME_SKIP_WITHOUT_BACKEND(kind)                                                         \
  if (const absl::Status& backend_status = ::mneme::BackendStatus(kind); !backend_status.ok()) { \
    GTEST_SKIP() << ::mneme::NameOf(kind) << ": " << backend_status.message();                   \
  }

#endif  // MNEME_TESTS_ENGINE_BACKENDS_H_
