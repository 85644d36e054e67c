#ifndef MNEME_CLIENT_CLIENT_H_
#define MNEME_CLIENT_CLIENT_H_

#include "client/console.h"
#include "client/interrupter.h"

namespace mneme {

// The program `mneme`: parses the command line and runs its command. Returns the exit code:
// 0 done, 1 an error (one line on `err` says which), 2 a wrong command line, 130 interrupted.
int RunClient(int argc, const char* const* argv, Console& console, Interrupter& interrupter);

}  // namespace mneme

#endif  // MNEME_CLIENT_CLIENT_H_
