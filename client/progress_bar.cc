#include "client/progress_bar.h"

#include <algorithm>
#include <cmath>
#include <ostream>
#include <utility>

#include "absl/strings/str_format.h"

namespace mneme {
namespace {

constexpr int kWidth = 30;  // of the bar, in characters
constexpr double kTerminalIntervalSeconds = 0.1;
constexpr double kPlainIntervalSeconds = 5;

}  // namespace

ProgressBar::ProgressBar(std::string label, Console& console)
    : label_(std::move(label)),
      console_(console),
      start_s_(console.clock_s()),
      last_drawn_s_(start_s_) {}

ProgressBar::~ProgressBar() {
  if (line_open_) console_.err << std::endl;
}

double ProgressBar::elapsed_s() const { return console_.clock_s() - start_s_; }

void ProgressBar::Update(double fraction, const std::string& detail) {
  const double interval_s =
      console_.err_is_terminal ? kTerminalIntervalSeconds : kPlainIntervalSeconds;
  if (console_.clock_s() - last_drawn_s_ >= interval_s) Draw(fraction, detail);
}

void ProgressBar::Finish(const std::string& detail) {
  Draw(1, detail);
  if (line_open_) console_.err << std::endl;
  line_open_ = false;
}

void ProgressBar::Draw(double fraction, const std::string& detail) {
  fraction = std::clamp(fraction, 0.0, 1.0);
  last_drawn_s_ = console_.clock_s();
  const int percent = static_cast<int>(std::floor(fraction * 100));
  if (!console_.err_is_terminal) {
    console_.err << absl::StrFormat("%s %3d%%  %s\n", label_, percent, detail) << std::flush;
    return;
  }
  const int filled = static_cast<int>(std::floor(fraction * kWidth));
  const std::string bar = std::string(static_cast<size_t>(filled), '#') +
                          std::string(static_cast<size_t>(kWidth - filled), '.');
  // Erases what a longer line before has left.
  console_.err << absl::StrFormat("\r%s [%s] %3d%%  %s\x1b[K", label_, bar, percent, detail)
               << std::flush;
  line_open_ = true;
}

}  // namespace mneme
