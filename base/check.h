#ifndef MNEME_BASE_CHECK_H_
#define MNEME_BASE_CHECK_H_

namespace mneme {

// Prints `condition` with its place and aborts. Called by MNEME_CHECK only.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace mneme

// Aborts the process unless `condition` holds. For what no input can cause; anything that a file, a
// request or a device can bring about is an absl::Status.
#define MNEME_CHECK(condition)                              \
  do {                                                      \
    if (!(condition)) [[unlikely]]                          \
      ::mneme::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)

#endif  // MNEME_BASE_CHECK_H_
