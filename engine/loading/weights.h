#ifndef MNEME_ENGINE_LOADING_WEIGHTS_H_
#define MNEME_ENGINE_LOADING_WEIGHTS_H_

// A model's parameters on a device.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/dtype.h"
#include "engine/loading/config.h"
#include "engine/loading/tensor_source.h"
#include "kernels/backend.h"

namespace mneme {

struct LayerWeights {
  DeviceBuffer input_norm;      // float32 [d]
  DeviceBuffer post_norm;       // float32 [d], post_attention_layernorm
  DeviceBuffer q_norm, k_norm;  // float32 [head_dim]; empty without q/k norm
  DeviceBuffer qkv_bias;        // float32 [(Hq + 2 Hkv) head_dim]; empty without attention bias
  DeviceBuffer o_bias;          // float32 [d]; empty without attention bias
  std::unique_ptr<PackedMatrix> qkv;      // [(Hq + 2 Hkv) head_dim, d]
  std::unique_ptr<PackedMatrix> o;        // [d, Hq head_dim]
  std::unique_ptr<PackedMatrix> gate_up;  // [2 f, d], gate first
  std::unique_ptr<PackedMatrix> down;     // [d, f]

  // TTT layers only.
  DeviceBuffer ttt_conv;                         // float32 [d, 5]
  std::unique_ptr<PackedMatrix> ttt_projection;  // W_projᵀ [d, d]; null without projection
  double down_norm = 0;                          // ‖W_down‖_F
};

struct ModelWeights {
  DeviceBuffer embedding_storage;
  Matrix embedding;  // [V, d] in the checkpoint's dtype
  std::vector<LayerWeights> layers;
  DeviceBuffer final_norm;                // float32 [d]
  std::unique_ptr<PackedMatrix> lm_head;  // [V, d]
};

// Progress of a long load: layers done, layers in all.
using LoadProgress = std::function<void(int, int)>;

// Puts a model's parameters on `backend`. INVALID_ARGUMENT or NOT_FOUND for a checkpoint that does
// not fit `config`, UNIMPLEMENTED for a model that the backend cannot compute, RESOURCE_EXHAUSTED
// if the device is too small.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const TensorSource& source,
                                         Backend& backend, const LoadProgress& progress = nullptr);

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_WEIGHTS_H_
