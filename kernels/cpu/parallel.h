#ifndef MNEME_KERNELS_CPU_PARALLEL_H_
#define MNEME_KERNELS_CPU_PARALLEL_H_

#include <omp.h>

#include <cstdint>

namespace mneme {

// The number of threads worth waking for `elements` elements of vector work: all or one.
inline int ThreadsFor(int64_t elements, int threads) {
  constexpr int64_t kWorthWaking = 16 * 1024;
  return elements < kWorthWaking ? 1 : threads;
}

// Lets the helpers go with which the calling thread has run loops; they are made anew when it next
// needs them. To be called by a thread that is not the one which computes steps: helpers spin
// between two loops only while all threads together have no more of them than there are
// processors, and else each loop of a step waits for some to wake.
inline void ReleaseHelpers() { omp_pause_resource_all(omp_pause_soft); }

// Runs body(i) for each i in [0, count), in equal contiguous shares. `body` must not throw.
template <typename Body>
void ParallelFor(int64_t count, int threads, const Body& body) {
  if (threads == 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < count; ++i) body(i);
}

// Runs body(i, thread) for each i in [0, count), each as soon as a thread is free; for work of
// uneven size. `thread` is in [0, threads). `body` must not throw.
template <typename Body>
void ParallelForDynamic(int64_t count, int threads, const Body& body) {
  if (threads == 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t i = 0; i < count; ++i) body(i, omp_get_thread_num());
}

}  // namespace mneme

#endif  // MNEME_KERNELS_CPU_PARALLEL_H_
