// Prints what loading the CUDA backend comes to.

#include <cstdio>

#include "kernels/backend_library.h"

int main() {
  const auto backend = mneme::LoadCudaBackend({});
  const std::string text =
      backend.ok() ? "OK: " + (*backend)->description() : backend.status().ToString();
  std::puts(text.c_str());
}
