#ifndef MNEME_KERNELS_HOST_MEMORY_H_
#define MNEME_KERNELS_HOST_MEMORY_H_

#include <cstdint>
#include <string>

namespace mneme {

// Memory in bytes that this process can take without swapping or being killed: what the kernel
// calls available, within the limits of the process's control groups (version 1 or 2) less what
// they use. 0 if /proc/meminfo cannot be read. `root` stands before the paths of /proc and /sys.
int64_t AvailableHostBytes(const std::string& root = "");

}  // namespace mneme

#endif  // MNEME_KERNELS_HOST_MEMORY_H_
