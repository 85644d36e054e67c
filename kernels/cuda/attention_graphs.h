#ifndef MNEME_KERNELS_CUDA_ATTENTION_GRAPHS_H_
#define MNEME_KERNELS_CUDA_ATTENTION_GRAPHS_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/memory.h"
#include "kernels/cuda/step.h"

namespace mneme::cuda {

// FA2's plans for captured graphs. A graph has pointers, grids and layouts in its kernels'
// arguments: so each key has memory of its own that stays where it is, plans of a fixed layout, and
// whatever differs between steps is sent before each replay. One thread.
class GraphPlans {
 public:
  // Plans the step, of one row a sequence, for the graph of `key` and layers of `shapes`, to which
  // later calls of the key may add. Returns false if memory had to be moved since the last call.
  bool Prepare(uint64_t key, absl::Span<const AttentionShape> shapes, const Step& step,
               Planner* planner, const LaunchContext& context);
  // Null if there is none.
  const ShapePlan* Find(uint64_t key, const AttentionShape& shape) const;

 private:
  struct Pages {  // of a KV group
    DeviceMemory memory;
    int64_t capacity_pages = 0;
    FlashArrays host, device;
  };
  struct Plan {
    DeviceMemory schedule;
    ShapePlan plan;
  };
  struct Graph {
    std::map<int, Pages> pages;  // by KV group
    std::vector<Plan> plans;
  };

  static bool SendPages(const KvGroupView& view, int64_t sequences, Pages* pages, Planner* planner,
                        const LaunchContext& context);
  static void PlanShape(int64_t sequences, const Pages& pages, Plan* plan, Planner* planner,
                        const LaunchContext& context);

  std::map<uint64_t, Graph> graphs_;
};

}  // namespace mneme::cuda

#endif  // MNEME_KERNELS_CUDA_ATTENTION_GRAPHS_H_
