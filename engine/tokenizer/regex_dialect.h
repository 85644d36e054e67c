#ifndef MNEME_ENGINE_TOKENIZER_REGEX_DIALECT_H_
#define MNEME_ENGINE_TOKENIZER_REGEX_DIALECT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace mneme {

// Rewrites a pattern of tokenizer.json, which is in Oniguruma's Ruby syntax, as one that means the
// same to PCRE2 (UTF, UCP, newline LF). `\s` becomes the characters that Unicode calls white space,
// because PCRE2 counts U+180E among them and Oniguruma does not. What may mean something else in
// the two (anchors, nested classes, other escapes and groups, quantifiers after `}`) is
// UNIMPLEMENTED; a pattern that ends in the middle of something is INVALID_ARGUMENT.
absl::StatusOr<std::string> TranslateRegex(absl::string_view pattern);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_REGEX_DIALECT_H_
