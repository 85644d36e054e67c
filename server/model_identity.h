#ifndef MNEME_SERVER_MODEL_IDENTITY_H_
#define MNEME_SERVER_MODEL_IDENTITY_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/loading/config.h"

namespace mneme {

// Number of elements of the model's matrices, norms and TTT parts.
int64_t CountParameters(const ModelConfig& config);

// Of config.json, the weights and the window: equal ones can share sessions. Hexadecimal. Reads all
// of it. NOT_FOUND if a file cannot be read.
absl::StatusOr<std::string> Fingerprint(const std::filesystem::path& model_dir,
                                        int64_t sliding_window);

// As Fingerprint, for random weights, which are a function of the shape's name, the seed, the chunk
// size and the window.
std::string RandomFingerprint(const std::string& shape, uint64_t seed, int64_t chunk,
                              int64_t sliding_window);

// Of all that a computed state is a function of besides the session's log: the model's fingerprint,
// and how it is computed (backend, number formats). Never 0.
uint64_t StateFingerprint(const std::string& model, const std::vector<std::string>& computed_by);

}  // namespace mneme

#endif  // MNEME_SERVER_MODEL_IDENTITY_H_
