#ifndef MNEME_BENCH_PROGRESS_H_
#define MNEME_BENCH_PROGRESS_H_

#include <unistd.h>

#include <iostream>
#include <string>

namespace mneme {

// A bar on a terminal, drawn anew with each call; elsewhere nothing. `share` is in [0, 1].
inline void ShowProgress(const std::string& label, double share) {
  if (!isatty(STDERR_FILENO)) return;
  constexpr int kWidth = 40;
  const auto filled = static_cast<size_t>(share * kWidth);
  std::cerr << "\r\x1b[K" << label << " [" << std::string(filled, '#')
            << std::string(kWidth - filled, ' ') << "] " << static_cast<int>(share * 100) << " %"
            << std::flush;
}

// Takes the bar away.
inline void EndProgress() {
  if (isatty(STDERR_FILENO)) std::cerr << "\r\x1b[K";
}

}  // namespace mneme

#endif  // MNEME_BENCH_PROGRESS_H_
