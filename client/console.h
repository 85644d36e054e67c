#ifndef MNEME_CLIENT_CONSOLE_H_
#define MNEME_CLIENT_CONSOLE_H_

#include <functional>
#include <iosfwd>

namespace mneme {

// What a command reads and writes. Results go to `out`, everything else (progress, errors) to
// `err`, so that results can be piped. Borrowed; outlives every command.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool err_is_terminal = false;
  std::function<double()> clock_s;  // seconds since some fixed point, never going back
};

}  // namespace mneme

#endif  // MNEME_CLIENT_CONSOLE_H_
