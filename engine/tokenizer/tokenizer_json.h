#ifndef MNEME_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
#define MNEME_ENGINE_TOKENIZER_TOKENIZER_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/tokenizer/tokenizer_spec.h"

namespace mneme {

// Reads the contents of a Hugging Face tokenizer.json and, unless it is empty, of a
// tokenizer_config.json (for `add_bos_token` and `bos_token` only; tokenizer.json is the
// authority). Supported: byte-level BPE, no normalizer or NFC, pre-tokenizers made of Split (regex,
// isolated), Digits and ByteLevel, post-processors that add at most one token, before the text.
// `truncation` and `padding` are not looked at. INVALID_ARGUMENT if the file is broken,
// UNIMPLEMENTED, naming the component, if it asks for something else.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view tokenizer_json,
                                                 absl::string_view tokenizer_config_json);

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
