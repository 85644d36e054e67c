#ifndef MNEME_CLIENT_PROGRESS_BAR_H_
#define MNEME_CLIENT_PROGRESS_BAR_H_

#include <string>

#include "client/console.h"

namespace mneme {

// Shows how far a piece of work is, on the console's `err`: on a terminal one line that is drawn
// anew ten times a second at most, elsewhere a plain line every five seconds at most.
class ProgressBar {
 public:
  // `console` is borrowed.
  ProgressBar(std::string label, Console& console);
  // Ends the line of a bar that was not finished.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `fraction` in [0, 1] of the work is done; `detail` stands behind the bar.
  void Update(double fraction, const std::string& detail);

  // The work is done: draws the last state, whenever the one before was drawn. Once.
  void Finish(const std::string& detail);

  // Seconds since the bar was made.
  double elapsed_s() const;

 private:
  void Draw(double fraction, const std::string& detail);

  const std::string label_;
  Console& console_;
  const double start_s_;
  double last_drawn_s_;
  bool line_open_ = false;  // a terminal's cursor stands behind the bar
};

}  // namespace mneme

#endif  // MNEME_CLIENT_PROGRESS_BAR_H_
