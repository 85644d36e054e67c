#ifndef MNEME_ENGINE_TOKENIZER_UTF8_H_
#define MNEME_ENGINE_TOKENIZER_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

// What stands at the front of a byte string.
struct Utf8Step {
  enum class Kind {
    kCodePoint,   // a whole code point of `length` bytes
    kInvalid,     // `length` bytes that no further byte can mend (a maximal subpart)
    kIncomplete,  // all `length` bytes that are there begin a code point whose rest is missing
  };
  Kind kind;
  size_t length;
  char32_t code_point;  // of kCodePoint
};

// Reads one step; `bytes` must not be empty. Surrogates and overlong forms are invalid.
Utf8Step ReadUtf8(absl::string_view bytes);

bool IsValidUtf8(absl::string_view bytes);

// `bytes` with each maximal invalid subpart replaced by U+FFFD.
std::string Utf8Lossy(absl::string_view bytes);

// Moves from the front of `*bytes` to the end of `*text` all that no later byte can change,
// invalid subparts as U+FFFD. At most 3 bytes remain: the beginning of a code point.
void DrainUtf8(std::string* bytes, std::string* text);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_UTF8_H_
