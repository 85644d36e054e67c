#include "engine/tokenizer/pretokenizer.h"

#include "base/status_macros.h"

namespace mneme {

absl::StatusOr<PreTokenizer> PreTokenizer::Create(absl::Span<const std::string> regexes) {
  std::vector<Regex> steps;
  for (const std::string& regex : regexes) {
    MNEME_ASSIGN_OR_RETURN(Regex step, Regex::Compile(regex));
    steps.push_back(std::move(step));
  }
  return PreTokenizer(std::move(steps));
}

absl::StatusOr<std::vector<absl::string_view>> PreTokenizer::Split(absl::string_view text) const {
  std::vector<absl::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  for (const Regex& step : steps_) {
    MNEME_ASSIGN_OR_RETURN(pieces, step.Split(pieces));
  }
  return pieces;
}

}  // namespace mneme
