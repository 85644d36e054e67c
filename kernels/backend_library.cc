#include "kernels/backend_library.h"

#include <dlfcn.h>

#include <array>
#include <filesystem>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/version.h"

namespace mneme {
namespace {

constexpr char kLibraryName[] = "libmneme_cuda.so";

absl::Status NoLibrary(const std::string& directory) {
  return absl::NotFoundError(absl::StrCat(
      "there is no ", kLibraryName, " in ", directory,
      ", in ../lib beside it, or where the system ",
      "looks for libraries: this build has no CUDA backend. Build with the CUDA toolkit ",
      "(-DMNEME_CUDA=ON), or use the CPU backend"));
}

absl::Status DoesNotLoad(const std::string& reason) {
  return absl::NotFoundError(
      absl::StrCat("the CUDA backend does not load: ", reason,
                   ". Install the CUDA 13 libraries that it needs, or use the CPU backend"));
}

// The library's handle, which is never closed: objects of the library may live until exit.
absl::StatusOr<void*> Open() {
  std::error_code error;
  const std::filesystem::path directory =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::array<std::filesystem::path, 2> beside = {
      directory / kLibraryName, directory.parent_path() / "lib" / kLibraryName};
  for (const std::filesystem::path& path : beside) {
    if (!std::filesystem::exists(path, error)) continue;
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); handle != nullptr) {
      return handle;
    }
    return DoesNotLoad(dlerror());
  }
  void* handle = dlopen(kLibraryName, RTLD_NOW | RTLD_LOCAL);
  if (handle != nullptr) return handle;
  // The loader names the file that it did not find: this library itself, or one that it needs.
  const std::string reason = dlerror();
  if (reason.rfind(absl::StrCat(kLibraryName, ": cannot open shared object file"), 0) == 0) {
    return NoLibrary(directory.string());
  }
  return DoesNotLoad(reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> LoadCudaBackend(const CudaBackendOptions& options) {
  MNEME_ASSIGN_OR_RETURN(void* const handle, Open());
  const auto entry = reinterpret_cast<CudaLibraryEntry>(dlsym(handle, kCudaLibraryEntryName));
  if (entry == nullptr) return DoesNotLoad(dlerror());
  const CudaLibrary& library = *entry();
  if (std::string(library.version) != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(kLibraryName, " is of version ",
                                                      library.version, ", this program of version ",
                                                      kVersion, ": install both from one build"));
  }
  return library.create(options);
}

}  // namespace mneme
