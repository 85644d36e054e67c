#include "kernels/cpu/cpu_backend.h"

#include <omp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/parallel.h"
#include "kernels/host_memory.h"
#include "kernels/pack_parts.h"

namespace mneme {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t PhysicalMemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * int64_t{sysconf(_SC_PAGESIZE)};
}

// Whether oneDNN uses `isa`. Its values are sets of bits, and later versions have more of them.
bool Uses(dnnl::cpu_isa isa) {
  const auto wanted = static_cast<unsigned>(isa);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

bool HasBFloat16() { return Uses(dnnl::cpu_isa::avx512_core_bf16); }

const char* IsaName() {
  if (Uses(dnnl::cpu_isa::avx512_core_amx)) return "AVX512_AMX";
  if (Uses(dnnl::cpu_isa::avx512_core_bf16)) return "AVX512_BF16";
  if (Uses(dnnl::cpu_isa::avx512_core)) return "AVX512";
  if (Uses(dnnl::cpu_isa::avx2)) return "AVX2";
  return "baseline";
}

class CpuBackend : public Backend {
 public:
  CpuBackend(DType matmul_dtype, int threads)
      : matmul_dtype_(matmul_dtype), threads_(threads), engine_(dnnl::engine::kind::cpu, 0) {}

  std::string description() const override {
    const dnnl_version_t* version = dnnl_version();
    return absl::StrCat("cpu (oneDNN ", version->major, ".", version->minor, ", ", IsaName(), ", ",
                        threads_, threads_ == 1 ? " thread, " : " threads, ",
                        matmul_dtype_ == DType::kF32 ? "float32" : "bfloat16", ")");
  }
  DType activation_dtype() const override { return DType::kF32; }
  DType kv_dtype() const override { return DType::kF32; }
  int64_t DeltaBytes(int64_t d, int64_t f) const override { return d * f * SizeOf(DType::kF32); }
  bool commits_on_touch() const override { return true; }
  int64_t FreeBytes() const override { return AvailableHostBytes(); }
  int64_t RepeatableRows(int64_t rows) const override { return rows; }

  absl::StatusOr<DeviceBuffer> Allocate(int64_t bytes) override;
  absl::StatusOr<DeviceBuffer> AllocateHost(int64_t bytes) override { return Allocate(bytes); }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(absl::Span<const HostTensor> parts) override;
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override;

 private:
  const DType matmul_dtype_;
  const int threads_;
  const dnnl::engine engine_;
};

// Maps memory that the kernel commits when it is touched, so that pools may be generous.
absl::StatusOr<DeviceBuffer> CpuBackend::Allocate(int64_t bytes) {
  const int64_t physical_bytes = PhysicalMemoryBytes();
  if (bytes < 0 || bytes > physical_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes: this machine has ", physical_bytes));
  }
  const size_t mapped = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  void* data = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", bytes, " bytes of memory: ", std::strerror(errno)));
  }
  // Attention walks rows that lie kilobytes apart: small pages would cost a table walk for each.
  // Where the kernel has no huge pages, it says so and nothing is lost.
  if (bytes >= kHugePageBytes) madvise(data, mapped, MADV_HUGEPAGE);
  return DeviceBuffer(data, bytes, [mapped](void* address) { munmap(address, mapped); });
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> CpuBackend::Pack(absl::Span<const HostTensor> parts) {
  if (const absl::Status status = CheckPackParts(parts); !status.ok()) return status;
  if (omp_get_max_threads() != threads_) omp_set_num_threads(threads_);
  const absl::Cleanup release = ReleaseHelpers;
  try {
    return std::make_unique<CpuPackedMatrix>(engine_, matmul_dtype_, parts);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory while packing a weight matrix");
  } catch (const dnnl::error& error) {
    return absl::InternalError(absl::StrCat("oneDNN cannot pack a weight matrix: ", error.what()));
  }
}

absl::StatusOr<std::unique_ptr<Stream>> CpuBackend::CreateStream() {
  try {
    return std::make_unique<CpuStream>(engine_, threads_);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("cannot create a CPU stream: ", error.what()));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const CpuBackendOptions& options) {
  if (options.matmul_dtype != DType::kF32 && options.matmul_dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the CPU backend multiplies in F32 or BF16, not ", NameOf(options.matmul_dtype)));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the number of threads must not be negative, but is ", options.threads));
  }
  if (options.matmul_dtype == DType::kBF16 && !HasBFloat16()) {
    return absl::FailedPreconditionError(
        "this processor has no bfloat16 instructions (AVX512_BF16 or AMX); use float32");
  }
  const int threads = options.threads > 0 ? options.threads : omp_get_max_threads();
  try {
    return std::make_unique<CpuBackend>(options.matmul_dtype, threads);
  } catch (const dnnl::error& error) {
    return absl::InternalError(absl::StrCat("oneDNN does not start: ", error.what()));
  }
}

}  // namespace mneme
