#ifndef MNEME_TESTS_ENGINE_REPEATING_BACKEND_H_
#define MNEME_TESTS_ENGINE_REPEATING_BACKEND_H_

#include <cstdint>
#include <memory>

#include "kernels/backend.h"

namespace mneme {

// What a RepeatingBackend has seen.
struct RepeatCounts {
  int64_t recorded = 0;  // keys
  int64_t repeated = 0;  // steps of a key that was recorded before
};

// `inner`, but steps of one row for each sequence are padded to a multiple of four rows at least,
// and what is repeated is held to what Stream::Repeat says: a test fails if the operations are
// other calls, or calls with other arguments, than those of the key's first step. `counts` must
// outlive it.
std::unique_ptr<Backend> MakeRepeatingBackend(std::unique_ptr<Backend> inner, RepeatCounts* counts);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_REPEATING_BACKEND_H_
