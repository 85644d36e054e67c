#ifndef MNEME_ENGINE_LOADING_SAFETENSORS_CHECKPOINT_H_
#define MNEME_ENGINE_LOADING_SAFETENSORS_CHECKPOINT_H_

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loading/safetensors.h"
#include "engine/loading/tensor_source.h"

namespace mneme {

// The tensors of a Hugging Face model directory, mapped: model.safetensors, or the shards that
// model.safetensors.index.json lists. Immutable: any thread.
class Checkpoint final : public TensorSource {
 public:
  // NOT_FOUND for a missing file, or a tensor missing in the shard that should hold it;
  // INVALID_ARGUMENT for a malformed one or a shard outside of the directory.
  static absl::StatusOr<Checkpoint> Open(const std::filesystem::path& model_dir);

  absl::StatusOr<HostTensor> Find(const std::string& name, int64_t rows,
                                  int64_t cols) const override;

  // All tensors, with the files' own shapes and dtypes.
  std::vector<std::string> Names() const;

 private:
  struct Location {
    const SafetensorsTensor* tensor;
    const std::string* file;  // key in files_
  };

  Checkpoint() = default;
  static absl::StatusOr<Checkpoint> OpenShards(const std::filesystem::path& model_dir,
                                               const std::filesystem::path& index_path);
  // The file `name` in `model_dir`, opened at its first use.
  absl::StatusOr<const SafetensorsFile*> OpenFile(const std::filesystem::path& model_dir,
                                                  const std::string& name);

  std::map<std::string, SafetensorsFile> files_;  // by name in the directory
  std::map<std::string, Location> tensors_;       // into files_, whose nodes stay where they are
};

}  // namespace mneme

#endif  // MNEME_ENGINE_LOADING_SAFETENSORS_CHECKPOINT_H_
