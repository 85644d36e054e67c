#ifndef MNEME_TESTS_ENGINE_PEEK_H_
#define MNEME_TESTS_ENGINE_PEEK_H_

// What would follow in a session, to be compared with another: whatever both have been through.

#include <cstdint>
#include <memory>
#include <string>

#include "tests/engine/loop_harness.h"

namespace mneme {

inline constexpr double kPeekTolerance = 2e-3;  // of log-probabilities, in float32

// Greedy tokens with their log-probabilities. Leaves no trace.
std::unique_ptr<Call> Peek(LoopHarness& engine, const std::string& id, int64_t max_tokens = 30);

// The same tokens, as probable, at the same version.
void ExpectSame(const Call& actual, const Call& expected);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_PEEK_H_
