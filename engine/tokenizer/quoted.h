#ifndef MNEME_ENGINE_TOKENIZER_QUOTED_H_
#define MNEME_ENGINE_TOKENIZER_QUOTED_H_

#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

// A name or token out of a file or request as it stands in messages: in quotes, escaped, valid
// UTF-8, at most 64 bytes of it.
std::string Quoted(absl::string_view text);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_QUOTED_H_
