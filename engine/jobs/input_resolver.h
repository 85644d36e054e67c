#ifndef MNEME_ENGINE_JOBS_INPUT_RESOLVER_H_
#define MNEME_ENGINE_JOBS_INPUT_RESOLVER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/request.h"

namespace mneme {

// Turns input pieces into the tokens that they add to a log: BOS at position 0, and the end of an
// assistant's turn that is still open. A retry resolves from where the request began, and so gets
// the same tokens.
class InputResolver {
 public:
  // `log` up to `position`; `open_turn` is where the open assistant turn began, if there is one.
  InputResolver(absl::Span<const int32_t> log, int64_t position, std::optional<int64_t> open_turn,
                int64_t vocab_size);

  // The tokens of the next piece. INVALID_ARGUMENT if it is empty or has an id that is not in the
  // vocabulary; then nothing is taken.
  absl::StatusOr<std::vector<int32_t>> Resolve(const InputPiece& piece);

  int64_t position() const { return position_; }
  std::optional<int64_t> open_turn() const { return open_turn_; }

 private:
  // How many tokens of `turn_end` the open turn ends with already.
  size_t AlreadyLogged(absl::Span<const int32_t> turn_end) const;

  int64_t position_;
  std::optional<int64_t> open_turn_;
  const int64_t vocab_size_;
  std::vector<int32_t> turn_;  // tokens of the open turn
};

}  // namespace mneme

#endif  // MNEME_ENGINE_JOBS_INPUT_RESOLVER_H_
