#ifndef MNEME_ENGINE_TOKENIZER_PRETOKENIZER_H_
#define MNEME_ENGINE_TOKENIZER_PRETOKENIZER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/tokenizer/regex.h"

namespace mneme {

// The pattern of a ByteLevel pre-tokenizer with `use_regex`, from GPT-2.
inline constexpr char kGpt2Regex[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Cuts text into the pieces within which byte pairs merge. Immutable; any number of threads.
class PreTokenizer {
 public:
  // Applies `regexes` one after the other, each within the pieces of the one before. Statuses of
  // Regex::Compile.
  static absl::StatusOr<PreTokenizer> Create(absl::Span<const std::string> regexes);

  // The pieces of `text` (valid UTF-8), in order, none empty; they point into `text`.
  // RESOURCE_EXHAUSTED as Regex::Split.
  absl::StatusOr<std::vector<absl::string_view>> Split(absl::string_view text) const;

 private:
  explicit PreTokenizer(std::vector<Regex> steps) : steps_(std::move(steps)) {}

  std::vector<Regex> steps_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_PRETOKENIZER_H_
