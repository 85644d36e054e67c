#ifndef MNEME_TESTS_ENGINE_FAILING_BACKEND_H_
#define MNEME_TESTS_ENGINE_FAILING_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "kernels/backend.h"

namespace mneme {

// `inner`, but once `*broken` is true its streams' Synchronize fails with INTERNAL, as after a
// device error. `broken` must outlive it.
std::unique_ptr<Backend> MakeFailingBackend(std::unique_ptr<Backend> inner,
                                            const std::atomic<bool>* broken);

// `inner`, on CUDA, but while `*broken` is true each step begins with an operation on memory that
// is not there: a real failure of the device, which this process cannot use again. `broken` must
// outlive it.
std::unique_ptr<Backend> MakeFaultingBackend(std::unique_ptr<Backend> inner,
                                             const std::atomic<bool>* broken);

// Views of memory that no device has.
Matrix MissingMatrix(int64_t number);

// Ends the process of a death test: with `exit_code` if all expectations held in it, else with 99,
// after printing those that did not.
[[noreturn]] void EndDeathTest(int exit_code);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_FAILING_BACKEND_H_
