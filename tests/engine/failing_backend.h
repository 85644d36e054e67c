#ifndef MNEME_TESTS_ENGINE_FAILING_BACKEND_H_
#define MNEME_TESTS_ENGINE_FAILING_BACKEND_H_

#include <atomic>
#include <memory>

#include "kernels/backend.h"

namespace mneme {

// `inner`, but once `*broken` is true its streams' Synchronize fails with INTERNAL, as after a
// device error. `broken` must outlive it.
std::unique_ptr<Backend> MakeFailingBackend(std::unique_ptr<Backend> inner,
                                            const std::atomic<bool>* broken);

}  // namespace mneme

#endif  // MNEME_TESTS_ENGINE_FAILING_BACKEND_H_
