#ifndef MNEME_ENGINE_TOKENIZER_BYTE_LEVEL_H_
#define MNEME_ENGINE_TOKENIZER_BYTE_LEVEL_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace mneme {

// Byte-level vocabularies spell each byte as one printable character: bytes that are printable in
// Latin-1 as themselves, the other 68 as U+0100 and up ("Ġ" is a space).

// The bytes that `spelling` (valid UTF-8) stands for; nullopt if it holds a character that stands
// for no byte.
std::optional<std::string> BytesOfSpelling(absl::string_view spelling);

// The character that stands for `byte`, in UTF-8.
std::string SpellingOfByte(uint8_t byte);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_BYTE_LEVEL_H_
