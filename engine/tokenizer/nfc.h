#ifndef MNEME_ENGINE_TOKENIZER_NFC_H_
#define MNEME_ENGINE_TOKENIZER_NFC_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

// The Unicode normalization form C of `text`, which must be valid UTF-8. Time is n log n and memory
// linear whatever the text, also for runs of a million combining marks.
std::string NormalizeNfc(absl::string_view text);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_NFC_H_
