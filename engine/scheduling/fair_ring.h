#ifndef MNEME_ENGINE_SCHEDULING_FAIR_RING_H_
#define MNEME_ENGINE_SCHEDULING_FAIR_RING_H_

// Deficit round robin (Shreedhar and Varghese, 1995) over flows: each is a tenant's requests of one
// priority, input that a stream waits for apart from documents.

#include <cstddef>
#include <deque>

#include "engine/request.h"

namespace mneme {

struct FlowKey {
  int tenant = 0;
  Priority priority = Priority::kNormal;
  bool of_stream = false;  // somebody waits for the first token

  friend bool operator==(const FlowKey& a, const FlowKey& b) = default;
};

// What a flow may still take before the next one's turn; negative: it took more than it had.
struct FlowCredit {
  FlowKey flow;
  double credit = 0;
};

// The flows whose work did not all fit into the steps so far, the one whose turn it is first. A
// flow without work is not in it: who has nothing to do saves nothing up.
using FairRing = std::deque<FlowCredit>;

// How many parts of its tenant's share go to a flow, where several of them have work: four times as
// many to each priority as to the one below, and sixteen times as many to input that a stream waits
// for as to a document. All of them get some: none starves another.
double FlowWeight(const FlowKey& flow);

}  // namespace mneme

#endif  // MNEME_ENGINE_SCHEDULING_FAIR_RING_H_
