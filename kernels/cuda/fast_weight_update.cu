#include <cstdint>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "kernels/cuda/delta.h"
#include "kernels/cuda/fast_weight_kernels.h"
#include "kernels/cuda/memory.h"

namespace mneme::cuda {
namespace {

class Updater final : public FastWeightUpdater {
 public:
  Updater(const CudaBackendOptions& options, ProductPlans* products, DeviceMemory control)
      : options_(options), products_(products), control_(std::move(control)) {}

  void Update(const FastWeightLayer& layer, const void* projection,
              absl::Span<const ChunkUpdate> updates, const DeltaMerge& merge,
              ChunkUpdateResult* results, const LaunchContext& context) override {
    for (size_t first = 0; first < updates.size(); first += kUpdateBatch) {
      UpdateSome(layer, projection, updates.subspan(first, kUpdateBatch), merge, results + first,
                 context);
    }
  }

 private:
  void UpdateSome(const FastWeightLayer& layer, const void* projection,
                  absl::Span<const ChunkUpdate> updates, const DeltaMerge& merge,
                  ChunkUpdateResult* results, const LaunchContext& context) {
    const DeltaLayout layout = {options_.delta_accumulate, options_.delta_read,
                                updates[0].target.cols, updates[0].z.cols};
    UpdateBatch batch = Describe(layer, updates, merge);
    Reserve(batch, context);
    if (!context.errors->ok()) return;
    ConvolveTargets(batch, layer.conv, context);
    if (projection != nullptr) Project(projection, batch, context);
    FindMaxima(batch, context);
    for (int i = 0; i < batch.count; ++i) Multiply(batch, i, context);
    MeasureUpdates(batch, layout, context);
    ApplyUpdates(batch, layout, context);
    FinishUpdates(batch, layout, results, context);
  }

  static UpdateBatch Describe(const FastWeightLayer& layer, absl::Span<const ChunkUpdate> updates,
                              const DeltaMerge& merge) {
    UpdateBatch batch = {};
    batch.count = static_cast<int>(updates.size());
    batch.d = updates[0].target.cols;
    batch.f = updates[0].z.cols;
    batch.dtype = updates[0].z.dtype;
    int64_t rows = 0;
    for (int i = 0; i < batch.count; ++i) {
      const ChunkUpdate& update = updates[static_cast<size_t>(i)];
      batch.tasks[i] = {update.target.data,
                        update.z.data,
                        update.target.stride,
                        update.z.stride,
                        update.target.rows,
                        rows,
                        static_cast<char*>(update.delta),
                        update.delta_is_zero,
                        layer.learning_rate * update.lr_scale,
                        1 - update.decay,
                        update.clip_norm,
                        static_cast<double>(update.max_relative_norm) * layer.down_norm,
                        nullptr,
                        nullptr};
      if (merge.delta == update.delta) {
        batch.tasks[i].w_down = merge.w_down;
        batch.tasks[i].merged = merge.merged;
      }
      rows += update.target.rows;
    }
    return batch;
  }

  // Its scratch memory; v = c.
  void Reserve(UpdateBatch& batch, const LaunchContext& context) {
    const UpdateTask& last = batch.tasks[batch.count - 1];
    const int64_t element = SizeOf(batch.dtype);
    batch.convolved =
        convolved_.Get((last.first_row + last.rows) * batch.d * element, context.errors);
    batch.values = batch.convolved;
    batch.updates = updates_.Get(batch.count * batch.d * batch.f * element, context.errors);
    batch.row_sums = static_cast<double2*>(row_sums_.Get(
        batch.count * batch.d * static_cast<int64_t>(sizeof(double2)), context.errors));
    batch.control = static_cast<UpdateControl*>(control_.get());
  }

  // v = c W_proj, of all updates at once.
  void Project(const void* projection, UpdateBatch& batch, const LaunchContext& context) {
    const UpdateTask& last = batch.tasks[batch.count - 1];
    Product product;
    product.a = batch.convolved;
    product.b = projection;
    product.m = last.first_row + last.rows;
    product.n = product.k = batch.d;
    product.a_stride = product.b_stride = product.out_stride = batch.d;
    product.dtype = product.out_dtype = batch.dtype;
    product.out = projected_.Get(product.m * batch.d * SizeOf(batch.dtype), context.errors);
    if (!context.errors->ok()) return;
    products_->Run(product, context);
    batch.values = product.out;
  }

  // U = η lr_scale vᵀ z. Rounded to the activations' type, it is as exact as its factors.
  void Multiply(const UpdateBatch& batch, int index, const LaunchContext& context) {
    const UpdateTask& task = batch.tasks[index];
    const int64_t element = SizeOf(batch.dtype);
    Product product;
    product.a = static_cast<const char*>(batch.values) + task.first_row * batch.d * element;
    product.b = task.z;
    product.out = static_cast<char*>(batch.updates) + index * batch.d * batch.f * element;
    product.m = batch.d;
    product.n = batch.f;
    product.k = task.rows;
    product.a_stride = batch.d;
    product.b_stride = task.z_stride;
    product.out_stride = batch.f;
    product.a_transposed = product.b_plain = true;
    product.dtype = product.out_dtype = batch.dtype;
    product.alpha = task.factor;
    products_->Run(product, context);
  }

  const CudaBackendOptions options_;
  ProductPlans* const products_;
  const DeviceMemory control_;
  Scratch convolved_, projected_, updates_, row_sums_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FastWeightUpdater>> FastWeightUpdater::Create(
    const CudaBackendOptions& options, ProductPlans* products) {
  MNEME_ASSIGN_OR_RETURN(DeviceMemory control, AllocateZeroed(sizeof(UpdateControl)));
  return std::make_unique<Updater>(options, products, std::move(control));
}

}  // namespace mneme::cuda
