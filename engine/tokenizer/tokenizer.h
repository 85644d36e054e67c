#ifndef MNEME_ENGINE_TOKENIZER_TOKENIZER_H_
#define MNEME_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace mneme {

// A byte-level BPE tokenizer as Qwen2/3 and Llama-3 have it, from a Hugging Face tokenizer.json. It
// gives the ids that Hugging Face `tokenizers` gives. Immutable; any number of threads may use it.
//
// Where Unicode versions differ, so may the pieces: which characters are letters and numbers comes
// from PCRE2's tables (Unicode 14), NFC from utf8proc's (15); Hugging Face has newer letters and an
// older NFC (9). Only characters assigned after the older of two versions are affected; they decode
// to themselves, with NFC to their utf8proc normal form.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json and, if there is one, DIR/tokenizer_config.json. NOT_FOUND if there is
  // no tokenizer.json, INVALID_ARGUMENT if a file is broken, UNIMPLEMENTED, naming the component,
  // if it asks for something that is not supported (see tokenizer_json.h).
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
      const std::filesystem::path& model_dir);

  // The same from the files' contents; an empty `tokenizer_config_json` means that there is none.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> FromJson(
      absl::string_view tokenizer_json, absl::string_view tokenizer_config_json);

  // The ids of `text`, without BOS. With `parse_special` a special token that is spelled out
  // becomes its id; without it the spelling is ordinary text and no id in the result IsSpecial.
  // Added tokens that are not special are always recognized. INVALID_ARGUMENT if `text` is not
  // valid UTF-8 or larger than 512 MiB; RESOURCE_EXHAUSTED if the file's own regex backtracks too
  // much on it.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, bool parse_special) const;

  // The text of `ids`: valid UTF-8, with U+FFFD for each maximal invalid subpart. Special tokens
  // are spelled out, or left out without `include_special`. INVALID_ARGUMENT if an id is not in
  // [0, vocab_size()).
  absl::StatusOr<std::string> Decode(absl::Span<const int32_t> ids, bool include_special) const;

  // The bytes of one token, a special one's spelling; they need not be UTF-8. Empty for an id that
  // no token has. Valid as long as the tokenizer.
  absl::string_view TokenBytes(int32_t id) const { return vocabulary_.TokenBytes(id); }

  bool IsSpecial(int32_t id) const { return vocabulary_.IsSpecial(id); }

  // The largest id + 1. A model's vocabulary may be larger (padding).
  int32_t vocab_size() const { return vocabulary_.size(); }

  // The token that stands at position 0; nullopt if this tokenizer does not begin texts with one.
  std::optional<int32_t> bos_id() const { return bos_id_; }

  // The id of the token that tokenizer.json spells so (bytes in the byte-level alphabet, "Ġthe").
  std::optional<int32_t> TokenToId(absl::string_view spelling) const {
    return vocabulary_.Find(spelling);
  }

 private:
  Tokenizer(Vocabulary vocabulary, Bpe bpe, PreTokenizer pretokenizer)
      : vocabulary_(std::move(vocabulary)),
        bpe_(std::move(bpe)),
        pretokenizer_(std::move(pretokenizer)) {}

  static absl::StatusOr<std::unique_ptr<const Tokenizer>> FromSpec(const TokenizerSpec& spec);

  void AddAddedTokens(const TokenizerSpec& spec);

  // Appends the ids of text in which no added token is left to find before normalization.
  absl::Status EncodeSegment(absl::string_view text, bool parse_special,
                             std::vector<int32_t>* ids) const;

  Vocabulary vocabulary_;
  Bpe bpe_;
  PreTokenizer pretokenizer_;
  AddedTokenFinder added_;             // looked for in the text as given
  AddedTokenFinder normalized_added_;  // looked for in the normalized text
  bool nfc_ = false;
  std::optional<int32_t> bos_id_;
};

}  // namespace mneme

#endif  // MNEME_ENGINE_TOKENIZER_TOKENIZER_H_
